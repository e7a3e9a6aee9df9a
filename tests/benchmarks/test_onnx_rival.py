"""The ONNX model of a served network computes the same embeddings."""

import keras
import numpy as np
import onnxruntime

from benchmarks.onnx_rival import onnx_model
from tf_reid.encoders.servable import Servable

SIZE = (16, 8)


def test_onnx_model_has_the_served_embeddings():
    keras.utils.set_random_seed(0)
    images = keras.Input((*SIZE, 3))
    maps = keras.layers.Conv2D(6, 3, strides=2, padding="same")(keras.layers.ZeroPadding2D(1)(images))
    maps = keras.layers.ReLU()(keras.layers.BatchNormalization()(maps))
    maps = keras.layers.MaxPooling2D(3, 2, padding="same")(maps)
    maps = keras.layers.add([maps, keras.layers.Conv2D(6, 1)(maps)])
    encoder = keras.Model(images, keras.layers.GlobalAveragePooling2D()(maps))

    servable = Servable(encoder, SIZE, flip=False, unit=True)
    exported = onnx_model(servable.embedded.graph, servable.embedded.outputs[0].op.name)
    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    pixels = np.random.default_rng(0).integers(256, size=(3, *SIZE, 3), dtype=np.uint8)
    (answer,) = session.run(None, {session.get_inputs()[0].name: pixels})
    np.testing.assert_allclose(answer, servable.from_pixels(pixels)["embedding"], atol=1e-5)
