"""Encoders whose convolutions are int8, and what that costs on the run's own protocol."""

import hashlib

import numpy as np
import tensorflow as tf

from export import rescoring
from export.saving import Chosen
from tf_reid.config import ConfigError
from tf_reid.data import pipeline
from tf_reid.encoders.servable import servables
from tf_reid.evaluation.scoring import Trained

CALIBRATION = 256  # images of the run's training data, from each domain
MOST_LOST = 0.5  # points of rank-1
COMPARED = ("rank1", "mAP")
BATCH = 32


def quantised(chosen: Chosen, run: Trained) -> Chosen:
    """The same encoders with int8 convolutions, calibrated on images that the run was trained on.

    Raises:
        ConfigError: an encoder has no convolution that can be quantised, or this TensorFlow cannot compute them.
    """
    pixels = np.concatenate([_some(records, run.config.data.image_size) for records in run.seen.values()])
    made = servables(chosen.networks, run.config, pixels)
    for role, servable in made.items():
        if not servable.quantised:
            raise ConfigError(
                f"--quantise int8: the encoder of {role} has no convolution that can be quantised (the one that reads "
                "the pixels stays float32); export it without."
            )
        _try(servable, pixels[:1])
    computed = [_computation(made[role].embedded) for role in sorted(made)]
    digest = hashlib.sha256(b"".join([chosen.digest.encode(), *computed])).hexdigest()[:16]
    return chosen._replace(servables=made, digest=digest, quantised=True)


def check_loss(chosen: Chosen, in_int8: Chosen, run: Trained) -> None:
    """Score both on the run's protocol and print the scores.

    Raises:
        ConfigError: rank-1 falls by more than half a point.
    """
    rank1 = []
    for name, one in (("float32", chosen), ("int8", in_int8)):
        scores = rescoring.scores(run, one.servables, _embed)
        print(f"{name:8}" + "   ".join(f"{key} {scores[key]:6.2f}" for key in COMPARED))
        rank1.append(float(scores["rank1"]))
    before, after = rank1
    if before - after > MOST_LOST:
        raise ConfigError(
            f"--quantise int8: rank-1 falls from {before:.2f} to {after:.2f} on the run's own protocol, by more than "
            f"{MOST_LOST} points, so nothing was exported; export it without --quantise."
        )


def _try(servable, pixels):
    """Raise a ConfigError where the quantised graph cannot run."""
    try:
        servable.embedded(tf.constant(pixels))
    except tf.errors.OpError as error:
        raise ConfigError(
            "--quantise int8: this TensorFlow cannot compute int8 convolutions, which needs TensorFlow for x86 with "
            "oneDNN (TF_ENABLE_ONEDNN_OPTS=0 turns oneDNN off); export without --quantise."
        ) from error


def _computation(function: tf.types.experimental.ConcreteFunction) -> bytes:
    """A hash of the operations and constants that an output is computed by.

    Names take no part: Keras numbers its layers as they are made, so those of a second export have other names.
    """
    hashes: dict[str, bytes] = {}
    for operation in function.graph.get_operations():  # inputs come first
        definition = operation.node_def
        kept = {key: definition.attr[key] for key in sorted(definition.attr) if not key.startswith("_")}
        inputs = [(hashes[tensor.op.name].hex(), tensor.value_index) for tensor in operation.inputs]
        values = [value.SerializeToString(deterministic=True) for value in kept.values()]
        about = f"{operation.type} {inputs} {list(kept)} {[len(value) for value in values]}".encode()
        hashes[operation.name] = hashlib.sha256(b"".join([about, *values])).digest()
    return hashes[function.outputs[0].op.name]


def _some(records, size):
    """uint8 [N, H, W, 3], spread evenly over the records."""
    chosen = np.unique(np.linspace(0, len(records) - 1, CALIBRATION).astype(int))
    return pipeline.to_uint8(pipeline.all_images(records.take(chosen), size))


def _embed(servable, images):
    batches = [images[start : start + BATCH].tolist() for start in range(0, len(images), BATCH)]
    return np.concatenate([servable.from_bytes(tf.constant(batch))["embedding"].numpy() for batch in batches])
