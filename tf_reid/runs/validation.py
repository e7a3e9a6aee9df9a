"""The validation identities during a training: their images, their loss and their scores."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tf_reid.config import ConfigError
from tf_reid.data import samplers
from tf_reid.data.records import Records
from tf_reid.methods.base import ReIDModel
from tf_reid.runs import splits
from tf_reid.runs.callbacks import EverySteps, Losses, NotFinite, curves, log_scores
from tf_reid.runs.cluster import sum_over_replicas
from tf_reid.runs.selection import CHOOSES, Selection
from tf_reid.runs.stage_batches import unaugmented_batches
from tf_reid.settings import Config

Scores = Mapping[str, Mapping[str, Any]]  # representation -> metrics


def check_settings(config: Config) -> None:
    """Refuse settings that wait for a score or a loss which no step computes.

    Raises:
        ConfigError: they do; the message says what to set.
    """
    if config.run.validate_every:
        return
    if config.run.keep == "best":
        raise ConfigError("run.keep=best needs scores on validation identities: set run.validate_every to some steps.")
    for name, stage in config.stages.items():
        for key, watched in stage.watched.items():
            if watched != "loss" or not _loss_every(config, name):
                raise ConfigError(
                    f"stages.{name}.{key} watches the {watched} of validation identities: set run.validate_every to "
                    "some steps."
                )


def records(config: Config, domains: dict[str, Records]) -> Records | None:
    """The images of the validation identities, or None where the training does not look at them.

    Raises:
        ConfigError: as `check_settings`; they are to be scored, and there are fewer than two; or a stage watches their
            loss, and fewer than two of them are seen by two cameras, or the run has a target.
    """
    check_settings(config)
    watched = {watched for stage in config.stages.values() for watched in stage.watched.values()}
    is_looked_at = bool(watched) or config.run.validate_every > 0
    if not is_looked_at and config.evaluate.identities == "test":
        return None
    held_out = splits.validation_records(config, domains)
    if held_out.identities < 2:
        raise ConfigError(
            f"One validation identity of {held_out.scored_name} is held out. Every gallery image would show it, so "
            "that all scores are 100 %; hold out two or more."
        )
    if not is_looked_at:
        return None
    if "loss" in watched:
        if config.data.target is not None:
            raise ConfigError(
                "A stage watches the validation loss, which is of labelled source images, but with data.target the "
                "validation identities are of the target: watch rank1 or mAP."
            )
        _check(held_out)
    return held_out


def scored(config: Config) -> Config:
    """The settings with which a run's validation identities are scored: its own, by all queries."""
    run = config.run.model_copy(update={"evaluate_queries": 0})
    evaluate = config.evaluate.model_copy(update={"identities": "validation"})
    return config.model_copy(update={"run": run, "evaluate": evaluate})


def batches_of_stages(model: ReIDModel, config: Config, held_out: Records | None) -> dict[str, tf.data.Dataset]:
    """Stage -> its validation batches, of those whose validation loss is watched; see `batches`.

    Raises:
        ConfigError: as `records`. ValueError: there is such a stage, and no `held_out`.
    """
    of_stages = {}
    for number, (name, stage) in enumerate(config.stages.items()):
        if "loss" in stage.watched.values():
            if held_out is None:
                raise ValueError("A stage that watches a loss needs `held_out`, the images of validation identities.")
            of_stages[name] = batches(model, config, number, held_out)
    return of_stages


def _loss_every(config: Config, name: str) -> int:
    """Steps between two computations of a stage's validation loss."""
    early_stop = config.stages[name].early_stop
    return (early_stop and early_stop.check_every) or config.run.validate_every


def batches(model: ReIDModel, config: Config, number: int, held_out: Records) -> tf.data.Dataset:
    """One pass over nearly all validation identities in the form of a stage's batches, without augmentation.

    Where they do not fill equal batches, fewer identities than a batch has are left out.

    Args:
        number: of the stage. held_out: the images of the validation identities.

    Returns:
        The same batches whenever it is iterated over. They are equally large, of two identities at least, and at most
        as large as the stage's.

    Raises:
        ConfigError: as `records`.
    """
    name, stage = list(config.stages.items())[number]
    row = 2 * stage.images_per_view
    usable = _check(held_out)
    parts = -(-usable * row // stage.batch_size)
    identities = max(2, usable // parts)  # of a batch
    fewer = stage.model_copy(update={"batch_size": row * identities})
    sampler = samplers.of_stage(model.STAGES[name], fewer, {"source": held_out})
    return unaugmented_batches(config, number, {"source": held_out}, sampler, steps=usable // identities)


def _check(held_out: Records) -> int:
    """How many validation identities are seen by two cameras.

    Raises:
        ConfigError: fewer than two.
    """
    seen = np.unique(np.stack([held_out.identity, held_out.camera]), axis=1)[0]
    usable = int((np.unique(seen, return_counts=True)[1] > 1).sum())
    if usable < 2:
        raise ConfigError(
            f"data.validation: {usable} of the {held_out.identities} validation identities of "
            f"{held_out.scored_name} are seen by two cameras, and their loss needs two at least; hold out more."
        )
    return usable


class ValidationLoss(EverySteps):
    """Computes the validation loss every n steps, on one device, and lets the run choose by it."""

    def __init__(
        self,
        model: ReIDModel,
        every: int,
        checked: Iterable[Mapping[str, tf.Tensor]],
        choose: Callable[[Mapping[str, float], int], None],
        writer: Any,
        folder: Path,
    ) -> None:
        super().__init__(model, every)
        self.checked, self.choose = checked, choose
        self.writer, self.folder = writer, folder
        self.loss_of = tf.function(lambda batch: model.validation_loss(batch))
        self.mean_of_workers = MeanOfWorkers(model.distribute_strategy)

    def at_end(self, step: int) -> None:
        pass  # a stage that is over cannot end early

    def act(self, step: int) -> None:
        with self.method.averaged():
            loss = float(np.mean([float(self.loss_of(batch)) for batch in self.checked]))
        loss = self.mean_of_workers({"loss": loss})["loss"]
        if not np.isfinite(loss):
            raise NotFinite(
                f"The validation loss of stage {self.method.stage} is {loss} at step {step}; the checkpoint before it "
                "is kept. A lower learning rate is the usual remedy."
            )
        with curves(self.writer, self.folder, step):
            tf.summary.scalar(f"{self.method.stage}/validation/loss", loss)
        self.choose({"loss": loss}, step)


class ValidationScores(EverySteps):
    """Scores the validation identities every n steps and after the stage's last, and lets the run choose by it.

    What is chosen by is the first representation that the stage changes: `raw` where it changes that.
    """

    def __init__(
        self,
        model: ReIDModel,
        every: int,
        last: int,
        validate: Callable[[], Scores],
        choose: Callable[[Mapping[str, float], int], None],
        losses: Losses,
    ) -> None:
        super().__init__(model, every)
        self.last, self.validate, self.choose, self.losses = last, validate, choose, losses
        self.mean_of_workers = MeanOfWorkers(model.distribute_strategy)

    def after(self, step: int) -> None:
        """Also after the last step: before its checkpoint, so that a run that is killed then chooses alike."""
        if step % self.every == 0 or step == self.last or self.method.stop_training:
            self.act(step)

    def at_end(self, step: int) -> None:
        pass  # see `after`

    def act(self, step: int) -> None:
        with self.method.averaged():  # the weights that are scored are those that are kept
            scores = self.validate()
            if not scores:  # the stage changes no representation
                return
            log_scores(self.losses.writer, self.losses.folder, step, f"{self.method.stage}/validation", scores)
            first = next(iter(scores.values()))
            values = self.mean_of_workers({name: float(first[name]) for name in ("rank1", "mAP")})
            self.losses.also = {f"validation {CHOOSES}": f"{values[CHOOSES]:.1f}"}
            self.choose(values, step)


class MeanOfWorkers:
    """Every worker computes the same values but for rounding; by their mean all choose alike, at the same step."""

    def __init__(self, strategy: tf.distribute.Strategy) -> None:
        self.strategy = strategy
        self.sum_over_replicas = sum_over_replicas(strategy)

    def __call__(self, values: Mapping[str, float]) -> dict[str, float]:
        if self.strategy.cluster_resolver is None:
            return dict(values)
        total = self.sum_over_replicas(tf.constant(list(values.values()), tf.float32)).numpy()
        return dict(zip(values, (total / self.strategy.num_replicas_in_sync).tolist(), strict=True))


def callbacks(
    model: ReIDModel,
    config: Config,
    name: str,
    checked: Iterable[Mapping[str, tf.Tensor]] | None,
    validate: Callable[[], Scores] | None,
    selection: Selection,
    losses: Losses,
) -> list[EverySteps]:
    """What a stage does with validation identities every few steps, to be done before a step's checkpoint.

    Args:
        checked: the stage's validation batches, where their loss is watched.
        validate: () -> the scores of the validation identities, in a run that looks at them.
    """
    stage = config.stages[name]

    def choose(values: Mapping[str, float], step: int) -> None:
        selection.take(stage, values, step)

    made: list[EverySteps] = []
    if checked is not None:
        every = _loss_every(config, name)
        made.append(ValidationLoss(model, every, checked, choose, losses.writer, losses.folder))
    if validate is not None and config.run.validate_every:
        made.append(ValidationScores(model, config.run.validate_every, stage.steps, validate, choose, losses))
    return made
