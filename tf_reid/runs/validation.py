"""A stage stops early: it ends where the loss of the validation identities no longer falls."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tf_reid.data import pipeline, samplers
from tf_reid.data.records import Records
from tf_reid.methods.base import ReIDModel
from tf_reid.runs.callbacks import EverySteps, NotFinite, curves
from tf_reid.runs.plateau import Plateau
from tf_reid.settings import Config, EarlyStop


def batches(model: ReIDModel, config: Config, number: int, held_out: Records) -> tf.data.Dataset:
    """One pass over the validation identities in the form of a stage's batches, without augmentation.

    Args:
        number: of the stage. held_out: the images of the validation identities.

    Returns:
        The same batches whenever it is iterated over. They are equally large and at most as large as the stage's.

    Raises:
        ValueError: the sampler cannot draw two identities.
    """
    name, stage = list(config.stages.items())[number]
    row = 2 * stage.images_per_view
    usable = _identities_of_two_sides(held_out)
    parts = max(1, -(-usable * row // stage.batch_size))
    identities = max(1, usable // parts)  # of a batch
    fewer = stage.model_copy(update={"batch_size": row * identities})
    sampler = samplers.of_stage(model.STAGES[name], fewer, {"source": held_out})
    place = {"seed": config.run.seed, "stage": number, "image_size": config.data.image_size}
    plain = {"flip": False, "pad": 0, "grey": 0.0}
    steps = usable // identities
    return pipeline.training_batches({"source": held_out}, sampler, start=0, steps=steps, **plain, **place)


def _identities_of_two_sides(records: Records) -> int:
    """How many identities are seen by two cameras."""
    seen = np.unique(np.stack([records.identity, records.camera]), axis=1)[0]
    return int((np.unique(seen, return_counts=True)[1] > 1).sum())


class ValidationLoss(EverySteps):
    """Computes the validation loss every n steps, on one device, and ends the stage at a plateau."""

    def __init__(
        self,
        model: ReIDModel,
        early_stop: EarlyStop,
        checked: Iterable[Mapping[str, tf.Tensor]],
        plateau: Plateau,
        writer: Any,
        folder: Path,
    ) -> None:
        super().__init__(model, early_stop.check_every)
        self.early_stop, self.checked, self.plateau = early_stop, checked, plateau
        self.writer, self.folder = writer, folder
        self.loss_of = tf.function(lambda batch: model.validation_loss(batch))

    def at_end(self, step: int) -> None:
        if self.plateau.ends(self.early_stop):
            checks, lowest = int(self.plateau.waited), float(self.plateau.lowest)
            print(
                f"Stage {self.method.stage} ends early, at step {step}: in {checks} checks its validation loss "
                f"fell no lower than {lowest:.4g}."
            )

    def act(self, step: int) -> None:
        with self.method.averaged():
            loss = float(np.mean([float(self.loss_of(batch)) for batch in self.checked]))
        loss = _agreed(self.method.distribute_strategy, loss)
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


def _agreed(strategy: tf.distribute.Strategy, loss: float) -> float:
    """The mean over workers, which could otherwise differ by rounding and stop at different steps."""
    if strategy.cluster_resolver is None:
        return loss

    @tf.function
    def mean():
        return strategy.reduce("MEAN", strategy.run(lambda: tf.constant(loss, tf.float32)), axis=None)

    return float(mean())
