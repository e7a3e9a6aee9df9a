"""Int8 encoders: one digest for one computation, and a sentence where TensorFlow cannot compute them."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import METHODS, SIZE, make_records

from export import quantisation, saving
from tf_reid import config as configuration
from tf_reid.config import ConfigError
from tf_reid.encoders import loading
from tf_reid.encoders.servable import Servable, servables
from tf_reid.evaluation import scoring


@pytest.fixture(scope="module")
def run():
    config = configuration.load("configs/identity.yaml", ["data.image_size=[32, 16]"], METHODS)
    return scoring.Trained(None, config, {}, {"source": make_records([1, 2], [1, 2])}, None)


def chosen(run, offset=0.0):
    keras.utils.set_random_seed(0)
    images = keras.Input((*SIZE, 3))
    maps = keras.layers.Conv2D(4, 3, strides=2, activation="relu")(images)
    second = keras.layers.Conv2D(4, 3, activation="relu")
    networks = {"image": keras.Model(images, keras.layers.GlobalAveragePooling2D()(second(maps)))}
    second.bias.assign_add(np.full(4, offset))
    encoder = loading.of_networks(networks, run.config, Path("runs/one"))
    return saving.Chosen("raw", networks, encoder, servables(networks, run.config), "of the weights")


def test_the_digest_tells_computations_apart_and_not_the_names_that_keras_gave(run):
    one = chosen(run)
    first, again = quantisation.quantised(one, run), quantisation.quantised(chosen(run), run)
    graphs = [made.servables["image"].embedded.graph.as_graph_def() for made in (first, again)]
    assert {node.name for node in graphs[0].node} != {node.name for node in graphs[1].node}
    assert first.digest == again.digest != one.digest
    assert quantisation.quantised(chosen(run, offset=0.1), run).digest != first.digest


def test_a_tensorflow_that_cannot_compute_int8_is_named_in_one_sentence(run, monkeypatch):
    message = "Missing 0-th output from {{node conv2d/Relu/int8}}"  # with TF_ENABLE_ONEDNN_OPTS=0

    class Refusing(Servable):
        def __init__(self, *given):
            super().__init__(*given)
            self.embedded = self.refuse

        def refuse(self, _images):
            raise tf.errors.InternalError(None, None, message)

    monkeypatch.setattr("tf_reid.encoders.servable.Servable", Refusing)
    with pytest.raises(ConfigError, match=r"cannot compute int8 .* x86 .* oneDNN .*; export without --quantise\.$"):
        quantisation.quantised(chosen(run), run)
