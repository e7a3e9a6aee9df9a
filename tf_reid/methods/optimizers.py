"""A player's optimizer: the Keras optimizer and learning-rate schedule that its settings describe."""

import keras
import tensorflow as tf

from tf_reid.settings import Optimizer


class LearningRate(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that follows the stage's step, so that a player that rests at some steps keeps up.

    Args:
        config: the player's settings.
        steps: of the whole stage.
        step: the stage's current step, int64 scalar.
        factor: multiplies the scheduled rate, float32 scalar; a method may change it during training.
        part: multiplies the rate too: that of a backbone, relative to the player's.
    """

    def __init__(self, config: Optimizer, steps: int, step: tf.Variable, factor: tf.Variable, part: float = 1.0):
        self.config, self.steps, self.step, self.factor, self.part = config, steps, step, factor, part

    def __call__(self, _iterations):
        rate = self.factor * self._scheduled()
        if self.config.warmup:
            rate *= self._risen()
        return rate if self.part == 1.0 else rate * self.part

    def _risen(self):
        """The factor of the warm-up: `warmup_from` at step 0, 1 from the end of the rise on."""
        done = tf.cast(self.step, tf.float32) / max(self.config.warmup * self.steps, 1.0)
        return self.config.warmup_from + (1.0 - self.config.warmup_from) * tf.minimum(done, 1.0)

    def _scheduled(self):
        if self.config.schedule == "constant":
            return tf.constant(self.config.learning_rate, tf.float32)
        if self.config.schedule == "drops":
            passed = [tf.cast(self.step >= round(part * self.steps), tf.float32) for part in self.config.drop_at]
            return self.config.learning_rate * tf.pow(0.1, tf.add_n([tf.zeros(()), *passed]))
        start = self.config.decay_from * self.steps
        done = (tf.cast(self.step, tf.float32) - start) / max(self.steps - start, 1.0)
        done = tf.clip_by_value(done, 0.0, 1.0)
        if self.config.schedule == "cosine":
            done = 0.5 * (1.0 - tf.cos(done * 3.14159265))
        return self.config.learning_rate * (1.0 - done)


def build_optimizer(config: Optimizer, rate: LearningRate) -> keras.optimizers.Optimizer:
    """The optimizer of the settings; L2 decay is not part of it, see `ReIDModel.minimize`."""
    average = {"use_ema": config.ema_momentum > 0, "ema_momentum": config.ema_momentum}
    if config.name == "sgd":
        return keras.optimizers.SGD(rate, momentum=config.momentum, nesterov=config.nesterov, **average)
    return keras.optimizers.Adam(rate, beta_1=config.beta_1, beta_2=config.beta_2, **average)
