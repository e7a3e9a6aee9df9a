"""One way to embed images' bytes, whether the encoder is a run's or an exported model."""

import json
from pathlib import Path

import numpy as np
import tensorflow as tf

from tf_reid.config import ConfigError
from tf_reid.encoders import image_checks
from tf_reid.encoders.servable import digest, endpoints, servables
from tf_reid.runs import run_folder

SEARCHED, SEARCHING = ("gallery", "image", "rgb"), ("probe", "image", "rgb")  # roles, the first that there is


class Embedder:
    """Images -> embeddings, and what tells these from those of other models.

    Attributes:
        digest: see `servable.digest`. distance: "cosine" or "euclidean". width: D.
        source: the folder it came from.
    """

    def __init__(self, functions: dict, about: dict, source: Path):
        self.functions, self.source = functions, source
        self.digest, self.distance, self.width = about["digest"], about["distance"], about["width"]

    def function(self, roles):
        """What embeds for the first of these roles that there is.

        Raises:
            ConfigError: there is none of them.
        """
        for role in roles:
            if role in self.functions:
                return self.functions[role]
        raise ConfigError(f"{self.source} embeds {', '.join(self.functions)} images, not {' or '.join(roles)} images.")

    def embed(self, images: list[bytes], roles) -> tuple[np.ndarray, dict[int, str]]:
        """float32 [B, D] of the images that can be read, in order, and of each other one's number what is wrong."""
        function, refused = self.function(roles), {}
        for number, image in enumerate(images):
            try:
                image_checks.check(image)
            except ValueError as error:
                refused[number] = str(error)
        good = [number for number in range(len(images)) if number not in refused]
        try:
            found = self._run(function, [images[number] for number in good])
        except tf.errors.InvalidArgumentError:  # the header of one was right and the rest is not: which one?
            rows = []
            for number in good:
                try:
                    rows.append(self._run(function, [images[number]]))
                except tf.errors.InvalidArgumentError:
                    refused[number] = "cannot be decoded"
            found = np.concatenate([np.zeros((0, self.width), np.float32), *rows])
        return found, refused

    def _run(self, function, images):
        return function(image_bytes=tf.constant(images, tf.string))["embedding"].numpy()


def of_run(folder: Path) -> Embedder:
    """The encoders of a finished run.

    Raises:
        ConfigError: there is no run, or it is not finished.
    """
    config = run_folder.load_run(folder)
    model, progress = run_folder.restored(folder, config)
    if int(progress.stage) < len(config.stages):
        raise ConfigError(f"{folder} is not finished; train it to its end with --run {folder}.")
    encoders = model.encoders()
    made = servables(encoders, config)
    width = next(iter(made.values())).width
    about = {"digest": digest(encoders, config), "distance": config.evaluate.distance, "width": width}
    return Embedder({role: servable.from_bytes for role, servable in made.items()}, about, folder)


def of_model(folder: Path) -> Embedder:
    """An exported model: a version's folder, or that of the model, whose newest version is taken.

    Raises:
        ConfigError: it is neither.
    """
    versions = sorted((path for path in folder.glob("*") if path.name.isdigit()), key=lambda path: int(path.name))
    place = versions[-1] if versions else folder
    path = place / "assets.extra" / "model.json"
    if not path.exists():
        raise ConfigError(f"{folder} is no exported model (no {path}); make one with python -m export.")
    about = json.loads(path.read_text())
    if "role" not in about:
        raise ConfigError(f"{folder} makes images and embeds none; name the model without _images.")
    return Embedder({about["role"]: endpoints(place)["serving_default"]}, about, place)


def opened(place: Path) -> Embedder:
    """Either."""
    return of_run(place) if run_folder.is_run(place) else of_model(place)
