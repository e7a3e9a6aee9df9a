"""How training steps are carried out: by stage and phase, on one device or on every replica, several a call."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext

import keras
import tensorflow as tf

from tf_reid.networks.compiled import compiling
from tf_reid.networks.precision import products_in


class StagedModel(keras.Model):
    """A model that is trained in stages: `advance` repeats `STAGE_step(batch)` of the stage that `begin` chose.

    Attributes:
        stage: name of the current stage.
        step: steps of this stage that are done, int64 scalar; part of every checkpoint.
        phase: what `phase_of` returned for the current step; a constant inside the step.
        xla: compile the step with XLA.
        precision: of the step's convolutions and matrix products.
        steps_per_call: how many steps `advance` carries out at most.
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
        self.steps_per_call = 1
        self._host_step = 0  # `step`, but known in Python: a phase is chosen before the step is traced
        self._reported: tuple[str, ...] = ()  # names of the losses of the step that is traced
        self.built = True  # a method builds its networks in its constructor

    def phase_of(self, step: int) -> dict | None:
        """The kind of a step, where a stage's steps differ, such as `{"discriminators_move": True}`.

        `STAGE_step` reads it as `self.phase`; it is traced once for each kind. None: all steps are alike.
        """
        return None

    def frozen_at(self, step: int) -> tuple[str, ...]:
        """The players whose backbones rest at a step; steps that differ in it are traced apart, as two phases are."""
        return ()

    def resting(self, players: tuple[str, ...]) -> AbstractContextManager:
        """In this context a step is traced in which the backbones of these players rest."""
        return nullcontext()

    def begin(self, stage: str):
        """Train `stage` from now on, starting at its step `self.step`."""
        self.stage = stage
        self._host_step = int(self.step.numpy())
        strategy = self.distribute_strategy

        def on_replicas(batch):
            with self._clustering():
                losses = strategy.run(self._step_of_replica(), args=(batch,))
            return {name: strategy.reduce("MEAN", loss, axis=None) for name, loss in losses.items()}

        @tf.function
        def one_step(batches, phase, frozen):
            self.phase = dict(phase) if phase else None
            with self.resting(frozen):
                return on_replicas(next(batches))

        @tf.function
        def several_steps(batches, phase, frozen, steps):
            self.phase = dict(phase) if phase else None
            rows = tf.TensorArray(tf.float32, steps)
            with self.resting(frozen):
                for number in tf.range(steps):
                    rows = rows.write(number, self._as_row(on_replicas(next(batches))))
            return self._by_name(rows.stack())

        self._one_step, self._several_steps = one_step, several_steps

    def advance(self, batches: Iterator, most: int = 1) -> tuple[int, dict[str, tf.Tensor]]:
        """Carry out the stage's next steps in one call: at most so many, and all of one phase.

        Every reported loss is averaged over the replicas. Nothing is read back from the device.

        Args:
            batches: gives the next batch for each step.

        Returns:
            How many steps, and name -> the losses of each, float32 [steps], or a scalar if `steps_per_call` is 1.
        """
        kind, steps = self._kind_of(self._host_step), 1
        while steps < min(most, self.steps_per_call) and self._kind_of(self._host_step + steps) == kind:
            steps += 1
        self._host_step += steps
        if self.steps_per_call == 1:
            return steps, self._one_step(batches, *kind)
        return steps, self._several_steps(batches, *kind, tf.constant(steps))

    def _kind_of(self, step):
        """What a traced step is made for: its phase, and the players whose backbones rest."""
        phase = self.phase_of(step)
        return tuple(phase.items()) if phase else None, self.frozen_at(step)

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

    def _step_of_replica(self):
        """What each replica carries out; XLA compiles the whole step of a replica that is alone."""
        if not self.xla:
            return self.train_step
        return tf.function(self.compiled_step, jit_compile=True) if self._alone() else self.compiled_step

    def _clustering(self):
        """Where replicas exchange values, XLA gathers the operations in this context into clusters and compiles them.

        The context marks the graph, whichever thread adds to it. So it surrounds the threads of all replicas.
        """
        if not self.xla or self._alone():
            return nullcontext()
        return tf.xla.experimental.jit_scope(separate_compiled_gradients=True)

    def _alone(self) -> bool:
        strategy = self.distribute_strategy
        return strategy.num_replicas_in_sync == 1 and strategy.cluster_resolver is None

    def _as_row(self, losses):
        self._reported = tuple(losses)
        return tf.stack([tf.cast(loss, tf.float32) for loss in losses.values()])

    def _by_name(self, rows):
        return {name: rows[:, column] for column, name in enumerate(self._reported)}
