"""Whether what is watched still improves, from check to check; part of a run's checkpoints."""

import numpy as np
import tensorflow as tf

from tf_reid.settings import EarlyStop, RatePlateau


class Plateau(tf.Module):
    """What the checks of the present stage have shown: of a loss that should fall, or of a score times -1.

    Attributes:
        lowest: the lowest value so far, float32 scalar.
        waited: checks since then, int64 scalar.
    """

    def __init__(self) -> None:
        super().__init__(name="plateau")
        self.lowest = tf.Variable(float("inf"), trainable=False)
        self.waited = tf.Variable(tf.constant(0, tf.int64), trainable=False)

    def add(self, loss: float) -> None:
        """Take the value of one more check into account, rounded to float32 as the lowest one is kept."""
        loss = float(np.float32(loss))
        if loss < float(self.lowest):
            self.lowest.assign(loss)
            self.waited.assign(0)
        else:
            self.waited.assign_add(1)

    def ends(self, settings: EarlyStop | RatePlateau | None) -> bool:
        """Whether these settings' patience is at its end."""
        return settings is not None and int(self.waited) >= settings.patience

    def shown(self, watched: str) -> str:
        """In words: how long the best value has stood, and which it is."""
        if watched == "loss":
            return f"in {int(self.waited)} checks its validation loss fell no lower than {float(self.lowest):.4g}"
        return f"in {int(self.waited)} checks its validation {watched} rose no higher than {-float(self.lowest):.4g}"

    def clear(self) -> None:
        """Begin another stage."""
        self.lowest.assign(float("inf"))
        self.waited.assign(0)
