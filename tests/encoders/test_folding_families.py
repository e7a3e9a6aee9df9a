"""Folding, last stages and sizes of the smallest member of every family of `keras.applications`.

A family takes seconds to build. The default run has the quick ones; TF_REID_FAMILIES=1 has them all.
"""

import os

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from export import saving
from tf_reid.encoders.folding import folded
from tf_reid.encoders.servable import Servable, endpoints
from tf_reid.networks import applications
from tf_reid.networks.backbones import build_backbone, maps_of
from tf_reid.networks.layers import BatchNormalization
from tf_reid.networks.precision import Conv2D, DepthwiseConv2D, products_in

# name -> height and width of the images
QUICK = {"VGG16": 64, "MobileNet": 32, "MobileNetV2": 32, "MobileNetV3Small": 32}
SLOW = {
    "ResNet50": 32,
    "ResNet50V2": 32,
    "DenseNet121": 32,
    "EfficientNetB0": 32,
    "EfficientNetV2B0": 32,
    "ConvNeXtTiny": 32,
    "Xception": 96,
    "InceptionV3": 96,
    "InceptionResNetV2": 96,
    "NASNetMobile": 64,
    "VGG19": 64,
}
UNFOLDED = {"ResNet50V2", "DenseNet121", "NASNetMobile"}  # normalisation comes before their convolutions
FAMILIES = QUICK | (SLOW if os.environ.get("TF_REID_FAMILIES") else {})


def test_every_family_has_a_case():
    families = {applications.family_of(name) for name in applications.names()}
    assert {applications.family_of(name) for name in QUICK | SLOW} == families


def with_other_norms(network):
    """Its batch normalisations, whose weights and statistics are random now."""
    rng = np.random.default_rng(0)
    norms = [layer for layer in network._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]
    for variable in [variable for norm in norms for variable in norm.weights]:
        positive = variable.path.endswith(("gamma", "moving_variance"))
        variable.assign(rng.uniform(0.8, 1.2, variable.shape) if positive else rng.normal(0, 0.1, variable.shape))
    return norms


@pytest.mark.parametrize(("name", "side"), FAMILIES.items())
def test_the_folded_network_equals_the_trained_one(name, side):
    network = build_backbone(name, (side, side))
    images = tf.random.stateless_uniform((2, side, side, 3), [0, 1], -1, 1)
    with tf.GradientTape() as tape, products_in("bfloat16"):
        tape.watch(images)
        loss = tf.reduce_sum(network(images, training=True) ** 2)
    gradients = tape.gradient(loss, [images, *network.trainable_variables])
    assert all(gradient is not None and np.isfinite(gradient).all() for gradient in gradients)
    norms = with_other_norms(network)
    assert all(type(norm) is BatchNormalization for norm in norms)
    quick, done, left = folded(network)
    assert done + left == len(norms) and (left == 0 or name in UNFOLDED)
    expected = network(images, training=False).numpy()
    assert np.abs(expected).max() > 0
    np.testing.assert_allclose(quick(images), expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def can_keep_its_size(name):
    return applications.family_of(name) in applications.LAST_STRIDE


@pytest.mark.parametrize("name", list(filter(can_keep_its_size, FAMILIES)))
def test_a_last_stage_that_keeps_its_size_has_maps_twice_as_large(name):
    halved, kept = (maps_of(build_backbone(name, (64, 32), None, stride)) for stride in (2, 1))
    assert halved.output_shape[1:3] == (2, 1) and kept.output_shape[1:3] == (4, 2)
    assert [w.shape for w in kept.weights] == [w.shape for w in halved.weights]


@pytest.mark.skipif(not os.environ.get("TF_REID_FAMILIES"), reason="TF_REID_FAMILIES=1 exports every family")
@pytest.mark.parametrize(("name", "side"), FAMILIES.items())
def test_the_exported_network_equals_the_trained_one(name, side, tmp_path):
    network = build_backbone(name, (side, side))
    with_other_norms(network)
    pixels = np.random.default_rng(0).integers(256, size=(2, side, side, 3), dtype=np.uint8)
    expected = network(pixels / 127.5 - 1.0, training=False).numpy()
    saving.save(Servable(network, (side, side), flip=False, unit=False), tmp_path / "1")
    files = tf.constant([tf.io.encode_png(image).numpy() for image in pixels])
    served = endpoints(tmp_path / "1")["serving_default"](image_bytes=files)["embedding"]
    np.testing.assert_allclose(served, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    graph = saved_model_pb2.SavedModel.FromString((tmp_path / "1" / "saved_model.pb").read_bytes())
    functions = graph.meta_graphs[0].graph_def.library.function
    assert not any(function.attr["_XlaMustCompile"].b for function in functions)  # not every server has XLA


def test_a_convolution_with_a_group_for_each_channel_becomes_a_depthwise_one():
    images = keras.Input((8, 6, 4))
    x = keras.layers.Conv2D(4, 3, padding="same", groups=4, name="by_channel")(images)
    theirs = keras.Model(images, keras.layers.Conv2D(6, 3, groups=2)(x))  # two channels a group: it stays
    ours = applications.with_our_layers(theirs, "convnext")
    assert [type(layer) for layer in ours.layers[1:]] == [DepthwiseConv2D, Conv2D]
    maps = tf.random.stateless_normal((2, 8, 6, 4), [0, 1])
    np.testing.assert_allclose(ours(maps), theirs(maps), atol=1e-5)
