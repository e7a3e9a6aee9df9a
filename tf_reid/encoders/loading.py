"""Opening what embeds images: a run, or an exported model, as an `Encoder`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from tf_reid.config import ConfigError, is_run
from tf_reid.data import pipeline
from tf_reid.encoders.encoder import EmbedPixels, Encoder
from tf_reid.encoders.servable import digest, endpoints
from tf_reid.evaluation import extraction
from tf_reid.runs import run_folder
from tf_reid.settings import Config

ROLES = ("image", "probe", "gallery", "rgb", "ir")


def load(folder: str | Path) -> Encoder:
    """Open what embeds images.

    Args:
        folder: a run, `runs/simpgan`; an exported model, `models/simpgan`, of which the newest version is taken; or one
            version of it, `models/simpgan/3`. The two models of a two-sided method, `models/views_probe` and
            `models/views_gallery`, can be opened together as `models/views`.

    Raises:
        ConfigError: it is none of these, or the run is not finished.
    """
    folder = Path(folder)
    return of_run(folder) if is_run(folder) else of_model(folder)


def of_run(folder: Path) -> Encoder:
    """The encoder of a finished run.

    Raises:
        ConfigError: there is no run, or it is not finished.
    """
    config = run_folder.load_run(folder)
    model, progress = run_folder.restored(folder, config)
    if int(progress.stage) < len(config.stages):
        raise ConfigError(f"{folder} is not finished; train it to its end with --run {folder}.")
    return of_networks(model.encoders(), config, folder)


def of_networks(networks: Mapping[str, keras.Model], config: Config, source: Path) -> Encoder:
    """The encoder that a run's Keras models make, by role, as its configuration evaluates them."""
    image_size = (int(config.data.image_size[0]), int(config.data.image_size[1]))

    def embed_pixels(network: keras.Model) -> EmbedPixels:
        features = extraction.compiled(network, config.evaluate.flip)
        return lambda pixels: features(pipeline.as_seen(pixels)).numpy()

    return Encoder(
        {role: embed_pixels(network) for role, network in networks.items()},
        width=int(next(iter(networks.values())).output_shape[-1]),
        image_size=image_size,
        metric=config.evaluate.distance,
        digest=digest(networks, config),
        source=source,
        to_unit_length=config.evaluate.distance == "cosine",
    )


def of_model(folder: Path) -> Encoder:
    """The encoder of an exported model: of a version's folder, of the newest version, or of all roles' models together.

    Raises:
        ConfigError: it is no exported model, or one that makes images; the models of two roles are of other runs.
    """
    versions = _versions_by_role(folder) or [_newest_version(folder)]
    parts = [_of_version(version, folder) for version in versions]
    first = parts[0]
    if len(parts) == 1:
        return first
    if len({part.digest for part in parts}) > 1:
        raise ConfigError(f"{', '.join(map(str, versions))} were exported from different runs; export one run anew.")
    by_role = {role: embed_pixels for part in parts for role, embed_pixels in part.by_role.items()}
    return Encoder(
        by_role,
        width=first.width,
        image_size=first.image_size,
        metric=first.metric,
        digest=first.digest,
        source=folder,
    )


def _of_version(version: Path, asked: Path) -> Encoder:
    path = version / "assets.extra" / "model.json"
    if not path.exists():
        within = sorted(str(inside) for inside in asked.glob("*") if is_run(inside) or _has_versions(inside))
        way_out = "train a run with python -m tf_reid.train, or export one with python -m export"
        if within:
            way_out = f"name one of {', '.join(within)}"
        raise ConfigError(
            f"{asked} is no run (no {asked / 'config.yaml'}) and is no exported model (no {path}); {way_out}."
        )
    about: dict[str, Any] = json.loads(path.read_text())
    if "role" not in about:
        raise ConfigError(f"{asked} makes images and embeds none; name the model without _images.")
    # The endpoint of pixels runs the same graph as that of bytes, behind the same reading of images.
    answer: Any = endpoints(version)["tensor"]
    _, height, width, _ = answer.structured_input_signature[1]["images"].shape
    return Encoder(
        {about["role"]: lambda pixels: answer(images=tf.constant(pixels))["embedding"].numpy()},
        width=about["width"],
        image_size=(height, width),
        metric=about["distance"],
        digest=about["digest"],
        source=version,
    )


def _has_versions(folder: Path) -> bool:
    return any(folder.glob("[0-9]*/saved_model.pb"))


def _newest_version(folder: Path) -> Path:
    """The folder of the model's newest version; the folder itself where it holds no versions."""
    versions = [path for path in folder.glob("*") if path.name.isdigit()]
    return max(versions, key=lambda path: int(path.name), default=folder)


def _versions_by_role(folder: Path) -> list[Path]:
    """Versions of the models NAME_ROLE, of a folder NAME or NAME/VERSION that is not there itself."""
    if folder.exists():
        return []
    if folder.name.isdigit():
        models = [folder.parent.with_name(f"{folder.parent.name}_{role}") / folder.name for role in ROLES]
    else:
        models = [folder.with_name(f"{folder.name}_{role}") for role in ROLES]
    return [_newest_version(model) for model in models if model.exists()]
