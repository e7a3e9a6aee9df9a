"""The classifier of a finished run: what the run's own settings say of it, and its encoder for another method."""

import json
import os
from pathlib import Path
from typing import Any

import keras

from tf_reid import config as configuration
from tf_reid.config import ConfigError, is_run
from tf_reid.networks.siamese import SiameseClassifier
from tf_reid.networks.strong import StrongClassifier


def form_of(run: str) -> dict[str, Any]:
    """The settings of a run of `strong` that its weights do not show: `last_stride` and `bnneck`.

    Args:
        run: the run's folder, or a file of its folder `networks`. Where there is no config.yaml, the defaults.
    """
    folder = Path(run) if Path(run).is_dir() else Path(run).parent.parent
    path = folder / "config.yaml"
    method = configuration.read(str(path)).get("method", {}) if path.is_file() else {}
    return {"last_stride": method.get("last_stride", 1), "bnneck": method.get("bnneck", True)}


def check_form(run: str, setting: str, network: Any, last_stride: int) -> None:
    """Make sure that a strong classifier is built as it was in its run. All else the weights themselves show.

    Args:
        setting: the method's setting that names the run. network: of any kind. last_stride: of its backbone.

    Raises:
        ConfigError: the run had another last stride, or no neck.
    """
    if not isinstance(network, StrongClassifier):
        return
    trained = form_of(run)
    if not trained["bnneck"]:
        raise ConfigError(
            f"method.{setting}: {run} was trained with method.bnneck=false; name a run that has the neck."
        )
    if trained["last_stride"] != last_stride:
        raise ConfigError(
            f"method.{setting}: {run} was trained with method.last_stride={trained['last_stride']}; set it here too."
        )


def names_run(encoder: str) -> bool:
    """Whether `method.encoder` names a run: any path does, for settings may name a run to come."""
    return os.sep in encoder or is_run(encoder)


def encoder_of(run: str, image_size: tuple[int, int]) -> keras.Model:
    """The encoder of a finished run of `identity` or `strong`, not to be trained.

    Images [B, H, W, 3] in [-1, 1] -> the features by which that run is scored, float32 [B, D].

    Args:
        run: its folder. image_size: of the images here; the run must have been trained at this size.

    Raises:
        ConfigError: it is a run of another method or image size, or it is not finished.
    """
    if not is_run(run):
        raise ConfigError(f"method.encoder: there is no run in {run}; train one with --run {run}.")
    settings = configuration.read(str(Path(run) / "config.yaml"))
    method, trained_size = settings["method"], settings["data"]["image_size"]
    if method["name"] not in ("identity", "strong"):
        raise ConfigError(f"method.encoder: {run} is a run of {method['name']}; name one of identity or strong.")
    if list(trained_size) != list(image_size):
        raise ConfigError(
            f"method.encoder: {run} was trained at data.image_size={trained_size}, but this run has {list(image_size)}."
        )
    file = Path(run) / "networks" / ("strong.weights.h5" if method["name"] == "strong" else "classifier.weights.h5")
    if not file.exists():
        raise ConfigError(f"method.encoder: {run} is not finished; train it to its end with --run {run}.")
    identities = json.loads((Path(run) / "data.json").read_text())["source"]["identities"]
    if method["name"] == "strong":
        classifier = StrongClassifier(image_size, identities, method["backbone"], None, **form_of(run))
    else:
        classifier = SiameseClassifier(image_size, identities, method["backbone"], None)
    classifier.load(str(file), "method.encoder")
    classifier.encoder.trainable = False
    return classifier.encoder
