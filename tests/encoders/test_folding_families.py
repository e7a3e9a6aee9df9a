"""Folding, last stages and sizes of the smallest member of every family of `keras.applications`.

A family takes seconds to build. The default run has the quick ones; TF_REID_FAMILIES=1 has them all.
"""

import os

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_reid.encoders.folding import folded
from tf_reid.networks import applications
from tf_reid.networks.backbones import build_backbone, maps_of
from tf_reid.networks.layers import BatchNormalization
from tf_reid.networks.precision import products_in

QUICK = {"VGG16": 64, "MobileNet": 32, "MobileNetV3Small": 32}  # name -> height and width of the images
SLOW = {
    "ResNet50": 32,
    "ResNet50V2": 32,
    "DenseNet121": 32,
    "MobileNetV2": 32,
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


@pytest.mark.parametrize(("name", "side"), FAMILIES.items())
def test_the_folded_network_equals_the_trained_one(name, side):
    network = build_backbone(name, (side, side))
    images = tf.random.stateless_uniform((2, side, side, 3), [0, 1], -1, 1)
    with tf.GradientTape() as tape, products_in("bfloat16"):
        tape.watch(images)
        loss = tf.reduce_sum(network(images, training=True) ** 2)
    gradients = tape.gradient(loss, [images, *network.trainable_variables])
    assert all(gradient is not None and np.isfinite(gradient).all() for gradient in gradients)
    rng = np.random.default_rng(0)
    norms = [layer for layer in network._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]
    assert all(type(norm) is BatchNormalization for norm in norms)
    for variable in [variable for norm in norms for variable in norm.weights]:
        positive = variable.path.endswith(("gamma", "moving_variance"))
        variable.assign(rng.uniform(0.8, 1.2, variable.shape) if positive else rng.normal(0, 0.1, variable.shape))
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
