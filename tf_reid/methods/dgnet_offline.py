"""DG-Net offline: a new encoder learns from the swaps of a finished run, whose networks learn no more."""

from pathlib import Path

import keras
import tensorflow as tf

from tf_reid.config import ConfigError
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


def check_feed(feed: str, finished: FinishedGenerator | None):
    """Make sure that a stage `pretrain` with feed="offline" has swaps to learn from.

    Raises:
        ConfigError: no run is named.
    """
    if feed == "offline" and finished is None:
        raise ConfigError("method.feed=offline needs the folder of a finished run of dgnet: method.swaps_from=RUN.")
