"""The contract of every method: networks grouped into players, each moved by its own optimizer in some stages."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import keras
import tensorflow as tf

from tf_reid.methods.checks import check_method, check_settings
from tf_reid.methods.optimizers import LearningRate, build_optimizer
from tf_reid.methods.presentation import Presentation
from tf_reid.methods.representation import Representation
from tf_reid.methods.staged_model import StagedModel
from tf_reid.networks.compiled import of_this_replica
from tf_reid.settings import StageSettings


@dataclass(frozen=True)
class Stage:
    """A part of a method's training.

    Attributes:
        players: names of the players that it moves.
        sampler: name of the sampler in `tf_reid.data.samplers` that draws its batches.
        domains: 1 if a batch holds source images only, 2 if it holds target images too.
        weight: the method's setting that weighs the stage's only loss, if there is one: at 0 the stage is refused.
        validated: `validation_loss` has a loss of this stage, so that it can stop early.
    """

    players: tuple[str, ...]
    sampler: str
    domains: int = 1
    weight: str | None = None
    validated: bool = False


class ReIDModel(StagedModel):
    """A method. A subclass lists its `STAGES`, builds its networks in the constructor, and writes `STAGE_step(batch)`.

    The constructor takes `(image_size, identities, seed)`; its keyword-only arguments are the settings of the
    configuration's `method` section. A step computes losses under a `tf.GradientTape`, calls `minimize` for the
    players that it moves, and returns `report(...)`.
    """

    STAGES: ClassVar[dict[str, Stage]] = {}
    # Settings that change the scores of a trained run, and nothing that is trained.
    RESCORED: ClassVar[tuple[str, ...]] = ()

    def __init__(self, image_size, identities: int, seed: int):
        super().__init__(next(iter(self.STAGES)))
        self.image_size, self.identities, self.seed = tuple(image_size), identities, seed
        self.steps_of_stage: dict[str, int] = {}

    # ----------------------------------------------------------------- what a method defines

    def players(self) -> dict[str, list[keras.Model]]:
        """Player -> the networks that its optimizer moves; a variable belongs to one player."""
        raise NotImplementedError

    def backbones(self) -> dict[str, list[keras.Model]]:
        """Player -> those of its networks that may start from pretrained weights; by default none.

        `backbone_rate` and `freeze_steps` of the player's optimizer are theirs.
        """
        return {}

    def networks(self) -> dict[str, keras.Model]:
        """Name -> network; a finished stage with steps saves those that it trained as `networks/NAME.weights.h5`."""
        raise NotImplementedError

    def encoders(self) -> dict[str, keras.Model]:
        """Role -> model from images float32 [B, H, W, 3] in [-1, 1] to features float32 [B, D].

        Roles: `image`, or `rgb` and `ir`, or `probe` and `gallery`. These are evaluated, searched with and served.
        """
        raise NotImplementedError

    def validation_loss(self, batch: dict[str, tf.Tensor]) -> tf.Tensor:
        """The present stage's loss of identities that it is not trained on, in inference mode, float32 scalar.

        A stage that is `validated` has one: it must not need classes, which such identities do not have.
        """
        raise NotImplementedError

    def representations(self) -> dict[str, Representation]:
        """Name in metrics.json -> a representation to evaluate; `raw` is always there."""
        return {"raw": Representation(self.encoders())}

    def check_training(self) -> None:
        """Refuse settings that do not allow a training, though a run that has them can be evaluated; by default none.

        Raises:
            ConfigError: a setting must change; the message names it.
        """

    def presentation(self) -> Presentation:
        """What people can look at of this model; by default nothing."""
        return Presentation(self)

    # ----------------------------------------------------------------- what a step uses

    def minimize(self, tape: tf.GradientTape, losses: dict[str, tf.Tensor], *players: str):
        """Move these players one step down the sum of `losses`; variables that no loss reaches stay.

        A loss is a mean over this replica's images, and Keras sums gradients over replicas. They are divided by the
        number of replicas here, so that the step is that of the global batch. L2 decay is added to the gradients.
        """
        stage, own_players = self.stage, self.STAGES[self.stage].players
        if unknown := set(players) - set(own_players):
            raise ValueError(
                f"{type(self).__name__}: minimize names the player {min(unknown)!r}, which stage {stage!r} does "
                f"not have; its players are {', '.join(own_players)}."
            )
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        parts = {name: own for player in players for name, own in self.parts_of(stage, player).items()}
        targets = list(losses.values())
        weights = [tf.fill(tf.shape(loss), tf.cast(1.0 / replicas, loss.dtype)) for loss in targets]
        gradients = tape.gradient(targets, list(parts.values()), output_gradients=weights)
        for (name, own), of_part in zip(parts.items(), gradients, strict=True):
            reached = [(g, v) for g, v in zip(of_part, own, strict=True) if g is not None]
            if decay := self.l2_of[stage][name] / replicas:
                reached = [(g + decay * tf.convert_to_tensor(v), v) for g, v in reached]
            if reached:
                self.optimizers_of[stage][name].apply(*zip(*reached, strict=True))

    def report(self, **losses_of_players: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """`PLAYER/LOSS` -> value, as it is logged."""
        return {f"{player}/{name}": loss for player, own in losses_of_players.items() for name, loss in own.items()}

    def global_batch(self, rows: tf.Tensor) -> tf.Tensor:
        """This replica's rows [b, ...] -> the rows of all replicas [B, ...] (all-gather); gradients flow back.

        For a loss that compares the images of a batch with one another: each replica computes the loss of the global
        batch, and `minimize` averages.
        """
        context = tf.distribute.get_replica_context()
        return context.all_gather(rows, axis=0) if context.num_replicas_in_sync > 1 else rows

    def drawn(self, draw, rows: int, shape: tuple[int, ...], number: int = 0) -> tf.Tensor:
        """Random numbers [rows, *shape] for this replica's images.

        They depend on the run's seed, the step and `number` alone: not on the number of replicas, nor on a resumption.

        Args:
            draw: `uniform` or `normal` of `tf_reid.networks.compiled`.
        """
        return of_this_replica(draw, [rows, *shape], self.seed_of_step(number))

    def seed_of_step(self, number: int) -> tf.Tensor:
        """The seed of a step's draw with this number (0 to 7), int64 [2]."""
        return tf.stack([tf.constant(self.seed * 8 + number, tf.int64), self.step.read_value()])

    # ----------------------------------------------------------------- what training uses

    def compile(
        self,
        stages: dict[str, StageSettings],
        jit_compile: bool = False,
        precision: str = "float32",
        steps_per_call: int = 1,
    ):
        """Check the stages and build all optimizers; inside the strategy's scope, before a checkpoint is restored.

        Raises:
            ValueError: the method's stages are not complete; see `checks.check_method`.
            ConfigError: the settings do not fit the method; see `checks.check_settings`.
        """
        check_method(self)
        check_settings(self, stages)
        super().compile(optimizer=None, jit_compile=False)
        self.xla, self.precision, self.steps_per_call = jit_compile, precision, steps_per_call
        self.steps_of_stage = {name: settings.steps for name, settings in stages.items()}
        self.batch_size_of_stage = {name: settings.batch_size for name, settings in stages.items()}
        self.settings_of = {stage: settings.optimizers for stage, settings in stages.items()}
        # Stage -> a player, or the backbones of a player that have an optimizer of their own -> optimizer, L2 decay.
        self.optimizers_of: dict[str, dict[str, keras.optimizers.Optimizer]] = {}
        self.l2_of: dict[str, dict[str, float]] = {}
        for stage, settings in stages.items():
            built, l2 = {}, {}
            for player, optimizer in settings.optimizers.items():
                for name, variables in self.parts_of(stage, player).items():
                    part = 1.0 if name == player else optimizer.backbone_rate
                    rate = LearningRate(optimizer, settings.steps, self.step, self.rate_factor, part)
                    built[name], l2[name] = build_optimizer(optimizer, rate), optimizer.l2
                    built[name].build(variables)
            self.optimizers_of[stage], self.l2_of[stage] = built, l2

    def variables_of(self, player: str) -> list:
        """The trainable variables of a player; without its backbones in a step in which they rest."""
        return [variable for network in self.players()[player] for variable in network.trainable_variables]

    def parts_of(self, stage: str, player: str) -> dict[str, list]:
        """Name of an optimizer -> the variables of a player that it moves; a part without variables is left out.

        Backbones with a rate of their own, or that rest at first, have an optimizer of their own, `PLAYER_backbone`:
        its moments, and Adam's count of steps, begin where the backbones begin to move.
        """
        own, settings = self.variables_of(player), self.settings_of[stage][player]
        if settings.backbone_rate == 1.0 and not settings.freeze_steps:
            return {player: own}
        of_backbones = {id(variable) for network in self.backbones()[player] for variable in network.variables}
        parts = {
            player: [variable for variable in own if id(variable) not in of_backbones],
            f"{player}_backbone": [variable for variable in own if id(variable) in of_backbones],
        }
        return {name: variables for name, variables in parts.items() if variables}

    def frozen_at(self, step):
        return tuple(
            player for player, settings in self.settings_of[self.stage].items() if step < settings.freeze_steps
        )

    @contextmanager
    def resting(self, players):
        """As `StagedModel.resting`: none of their weights moves, and their batch norm uses the statistics it has."""
        networks = [network for player in players for network in self.backbones()[player]]
        for network in networks:
            network.trainable = False
        try:
            yield
        finally:
            for network in networks:
                network.trainable = True

    def learning_rates(self) -> dict[str, float]:
        """Player, or `PLAYER_backbone` -> its learning rate at this step of this stage."""
        return {name: float(by._learning_rate(None)) for name, by in self.optimizers_of[self.stage].items()}

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """In this context, players with an `ema_momentum` have the running mean of their weights."""
        own = [(variable, variable.numpy()) for _, variables in self._averaging() for variable in variables]
        self.finish()
        try:
            yield
        finally:
            for variable, value in own:
                variable.assign(value)

    def finish(self):
        """End the stage: players with an `ema_momentum` keep the running mean of their weights."""
        for optimizer, variables in self._averaging():
            optimizer.finalize_variable_values(variables)

    def _averaging(self):
        """(optimizer, its variables) of those with a running mean that have moved: until then the mean is zero."""
        optimizers = self.optimizers_of[self.stage]
        parts = [part for player in self.settings_of[self.stage] for part in self.parts_of(self.stage, player).items()]
        return [
            (optimizers[name], variables)
            for name, variables in parts
            if optimizers[name].use_ema and int(optimizers[name].iterations.numpy()) > 0
        ]
