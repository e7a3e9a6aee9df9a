"""A stage stops early: it ends where the loss of the validation identities no longer falls."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tf_reid.config import ConfigError
from tf_reid.data import samplers
from tf_reid.data.records import Records
from tf_reid.methods.base import ReIDModel
from tf_reid.runs import splits
from tf_reid.runs.callbacks import EverySteps, NotFinite, curves
from tf_reid.runs.plateau import Plateau
from tf_reid.runs.stage_batches import unaugmented_batches
from tf_reid.runs.strategy import sum_over_replicas
from tf_reid.settings import Config, StageSettings


def records(config: Config, domains: dict[str, Records]) -> Records | None:
    """The images of the validation identities, or None where no stage of the run can stop early.

    Raises:
        ConfigError: fewer than two validation identities are seen by two cameras, or the run has a target.
    """
    if not any(stage.can_stop_early for stage in config.stages.values()):
        return None
    if config.data.target is not None:
        raise ConfigError(
            "stages.STAGE.early_stop watches the loss of labelled images, and with data.target the validation "
            "identities are of the target; set it to null."
        )
    held_out = splits.validation_records(config, domains)
    _check(held_out)
    return held_out


def batches_of_stages(model: ReIDModel, config: Config, held_out: Records | None) -> dict[str, tf.data.Dataset]:
    """Stage -> its validation batches, of those that can stop early; see `batches`.

    Raises:
        ConfigError: as `records`. ValueError: there is such a stage, and no `held_out`.
    """
    of_stages = {}
    for number, (name, stage) in enumerate(config.stages.items()):
        if stage.can_stop_early:
            if held_out is None:
                raise ValueError("A stage with early_stop needs `held_out`, the images of the validation identities.")
            of_stages[name] = batches(model, config, number, held_out)
    return of_stages


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
            f"{held_out.name} are seen by two cameras, and a stage with early_stop needs two at least; hold out more."
        )
    return usable


class ValidationLoss(EverySteps):
    """Computes the validation loss every n steps, on one device, and ends the stage at a plateau."""

    def __init__(
        self,
        model: ReIDModel,
        stage: StageSettings,
        checked: Iterable[Mapping[str, tf.Tensor]],
        plateau: Plateau,
        writer: Any,
        folder: Path,
    ) -> None:
        assert stage.early_stop is not None
        super().__init__(model, stage.early_stop.check_every)
        self.early_stop, self.checked, self.plateau = stage.early_stop, checked, plateau
        self.writer, self.folder = writer, folder
        self.loss_of = tf.function(lambda batch: model.validation_loss(batch))
        self.sum_over_replicas = sum_over_replicas(model.distribute_strategy)

    def at_end(self, step: int) -> None:
        pass  # a stage that is over cannot end early

    def act(self, step: int) -> None:
        with self.method.averaged():
            loss = float(np.mean([float(self.loss_of(batch)) for batch in self.checked]))
        loss = self._mean_of_workers(loss)
        if not np.isfinite(loss):
            raise NotFinite(
                f"The validation loss of stage {self.method.stage} is {loss} at step {step}; the checkpoint before it "
                "is kept. A lower learning rate is the usual remedy."
            )
        with curves(self.writer, self.folder, step):
            tf.summary.scalar(f"{self.method.stage}/validation/loss", loss)
        self.plateau.add(loss)
        if self.plateau.ends(self.early_stop):
            self.method.stop_training = True  # the training loop reads it after this step

    def _mean_of_workers(self, loss: float) -> float:
        """Workers compute the same loss but for rounding; by its mean they all stop at the same step."""
        strategy = self.method.distribute_strategy
        if strategy.cluster_resolver is None:
            return loss
        return float(self.sum_over_replicas(tf.constant(loss, tf.float32))) / strategy.num_replicas_in_sync
