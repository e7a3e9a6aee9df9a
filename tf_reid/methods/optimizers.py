"""A player's optimizer: Keras's optimizer in fewer operations, and the learning-rate schedule of its settings."""

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


class FewOperations(keras.optimizers.Optimizer):
    """The part that the optimizers below share: the running mean of weights, in three operations a variable."""

    def _update_model_variables_moving_average(self, trainable_variables):
        if not self.use_ema:
            return
        first_step = tf.cast(tf.equal(self.iterations, 0), tf.float32)
        share = tf.maximum(1.0 - self.ema_momentum, first_step)  # of the new weights; the mean starts as the first ones
        for variable, average in zip(trainable_variables, self._model_variables_moving_average, strict=True):
            average.assign(average + share * (variable - average))


class SGD(FewOperations, keras.optimizers.SGD):
    """Keras's SGD, the same within rounding, by one operation a variable: a GPU waits for each operation's start."""

    def update_step(self, gradient, variable, learning_rate):
        if not self.momentum:
            tf.raw_ops.ResourceApplyGradientDescent(var=variable.handle, alpha=learning_rate, delta=gradient)
            return
        tf.raw_ops.ResourceApplyKerasMomentum(
            var=variable.handle,
            accum=self.momentums[self._get_variable_index(variable)].value.handle,
            lr=learning_rate,
            grad=gradient,
            momentum=self.momentum,
            use_nesterov=self.nesterov,
        )


class Adam(FewOperations, keras.optimizers.Adam):
    """Keras's Adam, the same within rounding, by one operation a variable in place of about twenty."""

    def _backend_update_step(self, grads, trainable_variables, learning_rate):
        step = tf.cast(self.iterations + 1, tf.float32)
        corrected = learning_rate * tf.sqrt(1.0 - tf.pow(self.beta_2, step)) / (1.0 - tf.pow(self.beta_1, step))
        super()._backend_update_step(grads, trainable_variables, corrected)

    def update_step(self, gradient, variable, learning_rate):
        index = self._get_variable_index(variable)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=0.0,  # the rate is corrected already, once for all variables
            beta2_power=0.0,
            lr=learning_rate,
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=gradient,
        )


def build_optimizer(config: Optimizer, rate: LearningRate) -> keras.optimizers.Optimizer:
    """The optimizer of the settings; L2 decay is not part of it, see `ReIDModel.minimize`."""
    average = {"use_ema": config.ema_momentum > 0, "ema_momentum": config.ema_momentum}
    if config.name == "sgd":
        return SGD(rate, momentum=config.momentum, nesterov=config.nesterov, **average)
    return Adam(rate, beta_1=config.beta_1, beta_2=config.beta_2, **average)
