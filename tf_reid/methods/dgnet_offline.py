"""DG-Net offline: a new encoder learns from the swaps of a finished run, whose networks learn no more."""

from pathlib import Path

import keras
import tensorflow as tf

from tf_reid.config import ConfigError
from tf_reid.methods.base import ReIDModel
from tf_reid.methods.dgnet_features import FED_IN
from tf_reid.methods.dgnet_swaps import exchanged
from tf_reid.networks.dgnet import from_imagenet, to_imagenet
from tf_reid.networks.layers import copied


class FinishedGenerator:
    """E_a, E_s and G of a finished run, in inference. They are no part of the model, and not in its checkpoints.

    Args:
        run: its folder.
        appearance, structure, decoder: networks of the form of its E_a, E_s and G; they stay as they are.

    Raises:
        ConfigError: the run has no such networks, or networks of another form.
    """

    def __init__(self, run: str, appearance: keras.Model, structure: keras.Model, decoder: keras.Model):
        self.E_a, self.E_s, self.G = (copied(network) for network in (appearance, structure, decoder))
        for name, network in (("E_a", self.E_a), ("E_s", self.E_s), ("G", self.G)):
            path = Path(run) / "networks" / f"{name}.weights.h5"
            try:
                network.load_weights(path)
            except (OSError, ValueError) as error:
                raise ConfigError(
                    f"method.swaps_from: {path} does not hold the weights of this {name}; name a run of dgnet whose "
                    f"stage joint is finished, with the same backbone, stripes, width and image size ({error})."
                ) from error

    def swaps(self, pair: tf.Tensor) -> tf.Tensor:
        """x_ba and x_ab of x_a and x_b, float32 [2P, H, W, 3] in [-1, 1], in steps of 1/255 as a file keeps them."""
        structure = exchanged(self.E_s(to_imagenet(pair)))
        images = from_imagenet(self.G([self.E_a(pair)[0], structure]))
        return tf.stop_gradient(tf.round((tf.clip_by_value(images, -1.0, 1.0) + 1.0) * 127.5) / 127.5 - 1.0)


def check_pretraining(model: ReIDModel) -> None:
    """Make sure that every step of stage `pretrain` of a `DGNet` has a loss to minimise: of Eq. 3, or of Eq. 8 and 9.

    Raises:
        ConfigError: Eq. 3 is left out, and the stage has steps in which nothing is fed.
    """
    if model.identity_weight or not model.steps_of_stage["pretrain"]:
        return
    if model.feed == "online" or not model.primary_weight:
        raise ConfigError(
            "method.identity_weight is 0, which leaves stage pretrain nothing to learn; set stages.pretrain.steps=0."
        )
    if model.warm_up:
        raise ConfigError(
            f"method.identity_weight is 0, which leaves the first {model.warm_up} steps of stage pretrain nothing to "
            "learn; set method.warm_up=0."
        )


def check_feed(model: ReIDModel) -> None:
    """Make sure that a teacher that labels swaps is trained, and that feed="offline" feeds swaps, and only them.

    A finished run is evaluated without the runs of its teacher and swaps, so this is checked before a training alone.

    Raises:
        ConfigError: it does not; the message names the setting.
    """
    fed = model.primary_weight and model.steps_of_stage[FED_IN[model.feed]] > model.warm_up
    labels = model.teacher_style in ("soft", "hard", "both")
    if fed and labels and not (model.steps_of_stage["teacher"] or model.teacher.trained):
        raise ConfigError(
            f"method.teacher_style={model.teacher_style} labels swaps by a teacher, but stages.teacher.steps is 0 and "
            "none is given; name a finished run in method.teacher, or train one."
        )
    if model.feed == "online":
        return
    if model.finished is None:
        raise ConfigError("method.feed=offline needs the folder of a finished run of dgnet: method.swaps_from=RUN.")
    steps = model.steps_of_stage
    if steps["joint"]:
        raise ConfigError(
            "method.feed=offline feeds no swap in stage joint and leaves out Eq. 4 and 5 there; set "
            "stages.joint.steps=0."
        )
    if steps["pretrain"] <= model.warm_up:
        raise ConfigError(
            f"method.feed=offline feeds no swap: stage pretrain ends after {steps['pretrain']} steps, before "
            f"method.warm_up={model.warm_up}; set stages.pretrain.steps higher, or method.warm_up lower."
        )
