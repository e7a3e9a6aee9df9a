"""How Keras's `fit` carries out a training step: by stage and phase, on one device or on every replica."""

import keras
import tensorflow as tf

from tf_reid.networks.compiled import compiling
from tf_reid.networks.precision import products_in


class StagedModel(keras.Model):
    """A model that is trained in stages: `fit` repeats `STAGE_step(batch)` of the stage that `begin` chose.

    Attributes:
        stage: name of the current stage.
        step: steps of this stage that are done, int64 scalar; part of every checkpoint.
        phase: what `phase_of` returned for the current step; a constant inside the step.
        xla: compile the step with XLA.
        precision: of the step's convolutions and matrix products.
    """

    def __init__(self, stage: str):
        super().__init__()
        once = tf.VariableAggregation.ONLY_FIRST_REPLICA
        self.step = tf.Variable(0, dtype=tf.int64, trainable=False, aggregation=once, name="step")
        self.rate_factor = tf.Variable(1.0, trainable=False, aggregation=once, name="rate_factor")
        self.stage = stage
        self.phase: dict | None = None
        self.xla = False
        self.precision = "float32"
        self._host_step = 0  # `step`, but known in Python: a phase is chosen before the step is traced
        self.built = True  # a method builds its networks in its constructor

    def phase_of(self, step: int) -> dict | None:
        """The kind of a step, where a stage's steps differ, such as `{"discriminators_move": True}`.

        `STAGE_step` reads it as `self.phase`; it is traced once for each kind. None: all steps are alike.
        """
        return None

    def begin(self, stage: str):
        """Train `stage` from now on, starting at its step `self.step`."""
        self.stage = stage
        self._host_step = int(self.step.numpy())
        self.make_train_function(force=True)

    def train_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """One step of the current stage -> the losses it reports."""
        with products_in(self.precision):
            losses = getattr(self, f"{self.stage}_step")(batch)
        self.step.assign_add(1)
        return losses

    def compiled_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """`train_step`, for XLA."""
        with compiling():
            return self.train_step(batch)

    def make_train_function(self, force=False):
        """Build what `fit` calls for each step; every reported loss is averaged over the replicas.

        Keras's own version knows no phases and does not run on several machines.

        Raises:
            ValueError: XLA on several replicas.
        """
        if self.train_function is not None and not force:
            return
        strategy = self.distribute_strategy
        if self.xla and strategy.num_replicas_in_sync > 1:
            raise ValueError("run.jit_compile works on one device only; set run.jit_compile=false or run.strategy=one.")

        @tf.function
        def distributed_step(iterator, phase):
            self.phase = dict(phase) if phase else None
            one_step = tf.function(self.compiled_step, jit_compile=True) if self.xla else self.train_step
            losses = strategy.run(one_step, args=(next(iterator),))
            return {name: strategy.reduce("MEAN", loss, axis=None) for name, loss in losses.items()}

        def train_function(iterator):
            phase = self.phase_of(self._host_step)
            self._host_step += 1
            return distributed_step(iterator, tuple(phase.items()) if phase else None)

        self.train_function = train_function

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        """Do nothing: all is built. Keras's own version takes a batch away and fails on several machines."""

    @property
    def metrics(self):
        return []  # the training loop averages losses between two log lines
