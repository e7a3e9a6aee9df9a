"""The batches of a run's stage: augmented to train on, unaugmented to look at and to validate with."""

import tensorflow as tf

from tf_reid.data import pipeline
from tf_reid.data.pipeline import Sampler
from tf_reid.data.records import Records
from tf_reid.settings import Config

PLAIN = {"flip": False, "pad": 0, "grey": 0.0}


def augmented_batches(
    config: Config, number: int, records: dict[str, Records], sampler: Sampler, start: int, steps: int
) -> tf.data.Dataset:
    """Batches `start`..`steps - 1` of the stage of this number; see `pipeline.training_batches`."""
    augmentation = config.data.augment.model_dump()
    place = {"seed": config.run.seed, "stage": number, "image_size": config.data.image_size}
    return pipeline.training_batches(records, sampler, start=start, steps=steps, **place, **augmentation)


def unaugmented_batches(
    config: Config, number: int, records: dict[str, Records], sampler: Sampler, steps: int
) -> tf.data.Dataset:
    """The first batches of the stage of this number as they are stored, but for the size of images."""
    place = {"seed": config.run.seed, "stage": number, "image_size": config.data.image_size}
    return pipeline.training_batches(records, sampler, start=0, steps=steps, **place, **PLAIN)
