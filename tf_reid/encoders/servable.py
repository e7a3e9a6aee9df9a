"""A trained encoder as it is served: from an image's bytes, or pixels, to its embedding, in one graph.

The graph reads no file and holds no variable: batch normalisation is folded and the weights are constants. So oneDNN
can lay them out once, and any TensorFlow that reads a SavedModel can load it.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2  # has no public name

from tf_reid.data import decoding, pipeline
from tf_reid.encoders import quantising
from tf_reid.encoders.folding import folded
from tf_reid.evaluation.feature_store import identifier
from tf_reid.files import without_pattern
from tf_reid.settings import Config

GALLERY_BYTES = 2**30  # a graph may not be larger than 2 GiB


class Servable(tf.Module):
    """Images -> embeddings, as evaluation makes them but for rounding.

    Args:
        encoder: a Keras model from float32 [B, H, W, 3] in [-1, 1] to features [B, D].
        image_size: (H, W), to which images are resized.
        flip: the mean of the features of an image and its mirror image is taken.
        unit: embeddings are of unit length, so that their inner product is the cosine.
        calibration: uint8 [N, H, W, 3], images to quantise the convolutions to int8 by; None leaves them float32.

    Attributes:
        width: D.
        folded, left: how many batch normalisations were folded, and how many are left.
        quantised, left_in_float: how many convolutions were quantised, and how many are left, where there are images
            for the calibration.
    """

    def __init__(
        self,
        encoder: keras.Model,
        image_size: Sequence[int],
        flip: bool,
        unit: bool,
        calibration: np.ndarray | None = None,
    ):
        super().__init__(name="servable")
        network, self.folded, self.left = folded(encoder)
        self.image_size, self.unit = tuple(image_size), unit

        def embedded(images):
            scaled = pipeline.as_seen(images)
            features = tf.cast(network(scaled, training=False), tf.float32)
            if flip:
                features = 0.5 * (features + tf.cast(network(scaled[:, :, ::-1], training=False), tf.float32))
            return tf.math.l2_normalize(features, axis=-1) if unit else features

        pixels = tf.TensorSpec((None, *self.image_size, 3), tf.uint8, name="images")
        self.embedded = _frozen(embedded, [pixels])
        self.quantised, self.left_in_float = 0, 0
        if calibration is not None:
            self.embedded, self.quantised, self.left_in_float = quantising.quantised(self.embedded, calibration)
        self.width = int(self.embedded.outputs[0].shape[-1])
        self.from_pixels = tf.function(self._from_pixels, input_signature=[pixels])
        encoded = tf.TensorSpec((None,), tf.string, name="image_bytes")
        self.from_bytes = tf.function(self._from_bytes, input_signature=[encoded])

    def _from_pixels(self, images):
        return {"embedding": tf.ensure_shape(self.embedded(images)[0], (None, self.width))}

    def _from_bytes(self, image_bytes):
        image = tf.TensorSpec((*self.image_size, 3), tf.uint8)
        return self._from_pixels(tf.map_fn(decoding.decoder(self.image_size), image_bytes, fn_output_signature=image))

    def search_in(self, ids: list[str], embeddings: np.ndarray, top: int) -> None:
        """Add the endpoint `search`: an image's bytes -> `ids` and `scores` [B, top] of a gallery, most alike first.

        A score is the cosine, or the negative Euclidean distance. Every image of the gallery is compared.

        Args:
            ids: of the gallery's images, N.
            embeddings: float32 [N, D].
            top: how many matches are answered; all N where there are fewer.

        Raises:
            ValueError: the gallery is empty, or too large for a graph.
        """
        if not 1 <= embeddings.nbytes <= GALLERY_BYTES:
            raise ValueError(
                f"A gallery of {len(ids)} images ({embeddings.nbytes / 2**20:.0f} MiB) cannot be part of a graph, "
                f"which holds up to {GALLERY_BYTES / 2**20:.0f} MiB; search it with python -m tf_reid.search."
            )
        top = min(top, len(ids))
        squares = (embeddings.astype(np.float64) ** 2).sum(axis=1).astype(np.float32)

        def search(image_bytes):
            query = self._from_bytes(image_bytes)["embedding"]
            gallery, names = tf.constant(embeddings), tf.constant(ids)
            scores = tf.matmul(query, gallery, transpose_b=True)
            if not self.unit:
                squared_distances = tf.reduce_sum(query * query, axis=1, keepdims=True) - 2.0 * scores + squares
                scores = -tf.sqrt(tf.maximum(squared_distances, 0.0))
            best = tf.math.top_k(scores, top)
            return {"ids": tf.gather(names, best.indices), "scores": best.values}

        self.search = tf.function(search, input_signature=self.from_bytes.input_signature)

    def signatures(self) -> dict[str, Callable]:
        """Endpoint -> function, of a SavedModel."""
        endpoints = {"serving_default": self.from_bytes, "tensor": self.from_pixels}
        return endpoints | ({"search": self.search} if hasattr(self, "search") else {})


class ImageServable(tf.Module):
    """Images -> an image made of them, as a method makes it.

    Args:
        names: of the images that one is made of.
        make: a function of so many float32 [B, H, W, 3] in [-1, 1], which returns such images.
        image_size: (H, W).
    """

    def __init__(self, names: tuple[str, ...], make: Callable[..., tf.Tensor], image_size: Sequence[int]):
        super().__init__(name="image_servable")
        self.names, self.make, self.image_size = names, make, tuple(image_size)

        def made(*images):
            scaled = (make(*map(pipeline.as_seen, images)) + 1.0) * 127.5
            return tf.cast(tf.clip_by_value(tf.round(scaled), 0.0, 255.0), tf.uint8)

        pixels = [tf.TensorSpec((None, *self.image_size, 3), tf.uint8, name=name) for name in names]
        self.made = _frozen(made, pixels)
        self.from_pixels = tf.function(self._from_pixels, input_signature=pixels)
        encoded = [tf.TensorSpec((None,), tf.string, name=f"{name}_bytes") for name in names]
        self.from_bytes = tf.function(self._from_bytes, input_signature=encoded)

    def _from_pixels(self, *images):
        return {"images": tf.ensure_shape(self.made(*images)[0], (None, *self.image_size, 3))}

    def _from_bytes(self, *encoded):
        image = tf.TensorSpec((*self.image_size, 3), tf.uint8)
        decode = decoding.decoder(self.image_size)
        pixels = [tf.map_fn(decode, part, fn_output_signature=image) for part in encoded]
        images = self._from_pixels(*pixels)["images"]
        return {"image_bytes": tf.map_fn(tf.io.encode_png, images, fn_output_signature=tf.string)}

    def signatures(self) -> dict[str, Callable]:
        """Endpoint -> function, of a SavedModel."""
        return {"serving_default": self.from_bytes, "tensor": self.from_pixels}


def _frozen(function, signature):
    """A function of constants alone."""
    return convert_variables_to_constants_v2(tf.function(function, input_signature=signature).get_concrete_function())


def servables(
    encoders: Mapping[str, keras.Model], config: Config, calibration: np.ndarray | None = None
) -> dict[str, Servable]:
    """Role -> servable, of a set of encoders (see `ReIDModel.encoders`) as a run's configuration evaluates them.

    Roles that share an encoder share its servable. For `calibration` see `Servable`.
    """
    unit = config.evaluate.distance == "cosine"
    by_encoder: dict[int, Servable] = {}
    for encoder in encoders.values():
        if id(encoder) not in by_encoder:
            by_encoder[id(encoder)] = Servable(encoder, config.data.image_size, config.evaluate.flip, unit, calibration)
    return {role: by_encoder[id(encoder)] for role, encoder in encoders.items()}


def digest(encoders: Mapping[str, keras.Model], config: Config) -> str:
    """16 hexadecimal digits that tell the embeddings of one set of encoders from those of another."""
    settings: dict[str, Any] = {"image_size": list(config.data.image_size), "flip": config.evaluate.flip}
    about = settings | {
        "distance": config.evaluate.distance,
        "encoders": {role: identifier(encoder) for role, encoder in encoders.items()},
    }
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]


def endpoints(version: Path) -> dict[str, Callable]:
    """Endpoint -> function, of an exported version's folder."""
    with without_pattern(version) as path:
        loaded = tf.saved_model.load(str(path))
    functions = dict(loaded.signatures)
    for function in functions.values():
        function._owner = loaded  # a signature alone does not keep its model alive
    return functions
