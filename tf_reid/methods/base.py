"""What every method shares: players with their optimizers, stages, one place where gradients are applied."""

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import keras
import tensorflow as tf

from tf_reid.config import Optimizer, StageSettings
from tf_reid.methods.representation import Representation
from tf_reid.pictures.page import Page, Shown


@dataclass(frozen=True)
class Stage:
    """A span of training of a method.

    Attributes:
        players: names of the players it moves.
        sampler: name of the sampler in `tf_reid.data.samplers` that makes its batches.
        domains: 1 if a batch holds source images only, 2 if it holds target images too.
        weight: the method's setting without which the stage has no loss, if there is one.
    """

    players: tuple[str, ...]
    sampler: str
    domains: int = 1
    weight: str | None = None


class LearningRate(keras.optimizers.schedules.LearningRateSchedule):
    """Learning rate by the stage's step, so that a player that rests at some steps stays in time with the others.

    `factor` is a variable that a method may raise or lower on the way.
    """

    def __init__(self, config: Optimizer, steps: int, step: tf.Variable, factor: tf.Variable):
        self.config, self.steps, self.step, self.factor = config, steps, step, factor

    def __call__(self, _iterations):
        return self.factor * self._scheduled()

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


class ReIDModel(keras.Model):
    """A method: named players, each with its own optimizer, moved in turn by the steps of a stage.

    A subclass lists its `STAGES`, builds its networks in the constructor, and writes one `STAGE_step(batch)` a stage.
    The constructor takes `(image_size, identities, seed)` from the data; its keyword-only arguments are the
    method's section of the configuration.
    """

    STAGES: ClassVar[dict[str, Stage]] = {}

    def __init__(self, image_size, identities, seed):
        super().__init__()
        self.image_size, self.identities, self.seed = tuple(image_size), identities, seed
        once = tf.VariableAggregation.ONLY_FIRST_REPLICA
        self.step = tf.Variable(0, dtype=tf.int64, trainable=False, aggregation=once, name="step")
        self.rate_factor = tf.Variable(1.0, trainable=False, aggregation=once, name="rate_factor")
        self.stage = next(iter(self.STAGES))
        self.phase = None
        self.steps_of_stage = {}
        self._host_step = 0
        self.built = True  # the networks are built in the constructor; nothing is left for `fit` to build

    # ----------------------------------------------------------------- what a method says of itself

    def players(self) -> dict[str, list[keras.Model]]:
        """Player name -> the networks that its optimizer moves."""
        raise NotImplementedError

    def networks(self) -> dict[str, keras.Model]:
        """Name -> network, as saved with a finished run for another run to start from."""
        raise NotImplementedError

    def encoders(self) -> dict[str, keras.Model]:
        """Role -> model from images float32 [B, H, W, 3] in [-1, 1] to features float32 [B, D].

        Roles: `image`, or `rgb` and `ir`, or `probe` and `gallery`. What is evaluated, searched with and served.
        """
        raise NotImplementedError

    def representations(self) -> dict[str, Representation]:
        """Every representation worth scoring, by the name under which its metrics are written."""
        return {"raw": Representation(self.encoders())}

    def pictures(self, batch) -> dict[str, tuple[list[str], list[tf.Tensor]]]:
        """Title -> (column titles, columns of images [n, H, W, 3]) for people to look at; empty where none are made."""
        return {}

    def generated(self, batch) -> dict[str, tuple]:
        """Title -> (images, real ones that they are to be like, [n, H, W, 3] each, and persons [n] or None).

        For judging what the last stage has learned to make; empty where nothing is made.
        """
        return {}

    def maps(self) -> dict[str, keras.Model]:
        """Role, as of `encoders` -> model from images to the encoder's last maps [B, h, w, C], where it has such."""
        return {}

    def across(self) -> dict[str, keras.Model]:
        """Name -> model from images of the probe's view to what they would be in the gallery's, if it makes such."""
        return {}

    def image_maker(self) -> tuple[tuple[str, ...], Callable] | None:
        """Names of images, and a function of so many [B, H, W, 3] in [-1, 1] to one made of them; None: there is none.

        What is served where images are asked for.
        """
        return None

    def pages(self) -> dict[str, Callable[[Shown, Shown], Page]]:
        """Name -> what makes a page to look at of what the method makes of images; empty where it makes none.

        It is called with as many images of the source and of the target; where the encoders are of two views, of the
        probe's and, of the same persons, of the gallery's; else of some persons and of others.
        """
        return {}

    def phase_of(self, step: int):
        """What kind of step this is, where a stage alternates; each kind is traced once and read as `self.phase`."""
        return None

    # ----------------------------------------------------------------- training

    def compile(self, stages: dict[str, StageSettings], jit_compile: bool = False):
        """Build every stage's optimizers now, inside the strategy's scope: a checkpoint restores only what is built.

        Raises:
            ValueError: a stage would learn nothing, or a player's weights cannot be averaged.
        """
        for name, settings in stages.items():
            weight = self.STAGES[name].weight
            if settings.steps and weight and not getattr(self, weight):
                raise ValueError(
                    f"method.{weight} is 0, which leaves stage {name} nothing to learn; set stages.{name}.steps=0."
                )
        super().compile(optimizer=None, jit_compile=False)
        self.xla = jit_compile
        self.steps_of_stage = {name: settings.steps for name, settings in stages.items()}
        self.batch_size_of_stage = {name: settings.batch_size for name, settings in stages.items()}
        self.player_optimizers, self.l2_of = {}, {}
        for stage, settings in stages.items():
            for player, optimizer in settings.optimizers.items():
                rate = LearningRate(optimizer, settings.steps, self.step, self.rate_factor)
                built = self.player_optimizers[f"{stage}_{player}"] = _build_optimizer(optimizer, rate)
                built.build(self.variables_of(player))
                self.l2_of[f"{stage}_{player}"] = optimizer.l2
                if optimizer.ema_momentum and self._keeps_batch_statistics(player):
                    raise ValueError(
                        f"stages.{stage}.optimizers.{player}.ema_momentum: the batch normalisation in its networks "
                        "keeps statistics, which would not be those of averaged weights; set it to 0."
                    )

    def variables_of(self, player: str) -> list:
        return [variable for network in self.players()[player] for variable in network.trainable_variables]

    def _keeps_batch_statistics(self, player):
        return any("moving_mean" in v.path for network in self.players()[player] for v in network.weights)

    def begin(self, stage: str):
        """Train `stage` from now on. `self.step` says how many of its steps are done."""
        self.stage = stage
        self._host_step = int(self.step.numpy())
        self.make_train_function(force=True)

    def train_step(self, batch):
        losses = getattr(self, f"{self.stage}_step")(batch)
        self.step.assign_add(1)
        return losses

    @contextmanager
    def averaged(self):
        """Inside, the players that have an `ema_momentum` in this stage carry the running mean of their weights."""
        own = [(variable, variable.numpy()) for player in self._averaging() for variable in self.variables_of(player)]
        self.finish()
        try:
            yield
        finally:
            for variable, value in own:
                variable.assign(value)

    def finish(self):
        """The stage is over: players that have an `ema_momentum` take the running mean of their weights for good."""
        for player, optimizer in self._averaging().items():
            optimizer.finalize_variable_values(self.variables_of(player))

    def _averaging(self):
        """Player -> optimizer, of those that keep a running mean and have moved: before that the mean is zero."""
        optimizers = self._optimizers_of_stage()
        return {
            player: optimizer
            for player, optimizer in optimizers.items()
            if optimizer.use_ema and int(optimizer.iterations.numpy()) > 0
        }

    def _optimizers_of_stage(self):
        prefix = f"{self.stage}_"
        return {
            key.removeprefix(prefix): optimizer
            for key, optimizer in self.player_optimizers.items()
            if key.startswith(prefix)
        }

    def minimize(self, tape, losses: dict, *players: str):
        """Descend the sum of `losses` with these players' variables and no others, those that the losses reach.

        Keras optimizers sum gradients over replicas while every loss is a mean over its replica's images: dividing
        by the number of replicas here, once, makes the step that of the whole batch.
        """
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        variables = [self.variables_of(player) for player in players]
        targets = list(losses.values())
        shares = [tf.fill(tf.shape(loss), tf.cast(1.0 / replicas, loss.dtype)) for loss in targets]
        gradients = tape.gradient(targets, variables, output_gradients=shares)
        for player, found, moved in zip(players, gradients, variables, strict=True):
            reached = [(g, v) for g, v in zip(found, moved, strict=True) if g is not None]
            if decay := self.l2_of[f"{self.stage}_{player}"] / replicas:
                reached = [(g + decay * tf.convert_to_tensor(v), v) for g, v in reached]
            self.player_optimizers[f"{self.stage}_{player}"].apply(*zip(*reached, strict=True))

    def global_batch(self, rows):
        """This replica's rows [b, ...] -> those of all replicas [B, ...], through which gradients flow.

        For losses that compare a batch's images with one another: every replica then computes the loss of the whole
        batch, and what `minimize` divides by the replicas adds up to its gradient.
        """
        context = tf.distribute.get_replica_context()
        return context.all_gather(rows, axis=0) if context.num_replicas_in_sync > 1 else rows

    def drawn(self, draw, rows, shape, number=0):
        """`draw`, such as `tf.random.stateless_uniform`, for this replica's rows of the batch: [rows, *shape].

        A function of the run's seed, the step and `number`, whatever the replicas, and so the same after a resumption.
        """
        context = tf.distribute.get_replica_context()
        whole = draw([rows * context.num_replicas_in_sync, *shape], self.seed_of_step(number))
        first = context.replica_id_in_sync_group * rows
        return whole[first : first + rows]

    def seed_of_step(self, number):
        """A seed for one of a step's draws, int64 [2]."""
        return tf.stack([tf.constant(self.seed * 8 + number, tf.int64), self.step.read_value()])

    def report(self, **losses_of_players: dict) -> dict:
        """`player/loss` -> value: the very dicts that were minimised are what is logged."""
        return {
            f"{player}/{name}": loss for player, losses in losses_of_players.items() for name, loss in losses.items()
        }

    def learning_rates(self) -> dict[str, float]:
        """Player -> its learning rate at the present step of the present stage."""
        return {player: float(by._learning_rate(None)) for player, by in self._optimizers_of_stage().items()}

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        """Nothing is left to build; Keras's own would take a batch away, and fails on several machines."""

    @property
    def metrics(self):
        return []  # losses are averaged over the steps between two log lines by the training loop

    def make_train_function(self, force=False):
        """As Keras's own, but it also works on several machines (stock `fit` does not), and knows phases.

        `strategy.run` on a `next(iterator)` inside one `tf.function`, each value reduced by its mean.
        """
        if self.train_function is not None and not force:
            return
        strategy = self.distribute_strategy
        if self.xla and strategy.num_replicas_in_sync > 1:
            raise ValueError("run.jit_compile works on one device only; set run.jit_compile=false or run.strategy=one.")

        @tf.function
        def distributed_step(iterator, phase):
            self.phase = dict(phase) if phase else None
            one_step = tf.function(self.train_step, jit_compile=True) if self.xla else self.train_step
            losses = strategy.run(one_step, args=(next(iterator),))
            return {name: strategy.reduce("MEAN", loss, axis=None) for name, loss in losses.items()}

        def train_function(iterator):
            phase = self.phase_of(self._host_step)
            self._host_step += 1
            return distributed_step(iterator, tuple(phase.items()) if phase else None)

        self.train_function = train_function


def _build_optimizer(config: Optimizer, rate: LearningRate):
    average = {"use_ema": config.ema_momentum > 0, "ema_momentum": config.ema_momentum}
    if config.name == "sgd":
        return keras.optimizers.SGD(rate, momentum=config.momentum, nesterov=config.nesterov, **average)
    return keras.optimizers.Adam(rate, beta_1=config.beta_1, beta_2=config.beta_2, **average)
