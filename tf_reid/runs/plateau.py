"""Whether a loss still falls, from check to check; part of a run's checkpoints, so that a resumed run decides alike."""

import numpy as np
import tensorflow as tf

from tf_reid.settings import EarlyStop


class Plateau(tf.Module):
    """What the checks of the present stage's validation loss have shown.

    Attributes:
        lowest: the lowest loss so far, float32 scalar.
        waited: checks since then, int64 scalar.
    """

    def __init__(self) -> None:
        super().__init__(name="plateau")
        self.lowest = tf.Variable(float("inf"), trainable=False)
        self.waited = tf.Variable(tf.constant(0, tf.int64), trainable=False)

    def add(self, loss: float) -> None:
        """Take the loss of one more check into account, rounded to float32 as the lowest one is kept."""
        loss = float(np.float32(loss))
        if loss < float(self.lowest):
            self.lowest.assign(loss)
            self.waited.assign(0)
        else:
            self.waited.assign_add(1)

    def ends(self, early_stop: EarlyStop | None) -> bool:
        """Whether the present stage, of these settings, has come to its early end."""
        return early_stop is not None and int(self.waited) >= early_stop.patience

    def why_it_ends(self, stage: str, step: int) -> str:
        """What is printed where a stage ends early, after this step."""
        return (
            f"Stage {stage} ends early, at step {step}: in {int(self.waited)} checks its validation loss fell no lower "
            f"than {float(self.lowest):.4g}."
        )

    def clear(self) -> None:
        """Begin another stage."""
        self.lowest.assign(float("inf"))
        self.waited.assign(0)
