import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_reid import backbones


@pytest.mark.parametrize(("name", "width"), [("small", 256), ("resnet50", 2048)])
def test_a_backbone_gives_one_vector_an_image_and_a_gradient_to_its_input(name, width):
    backbone = backbones.BACKBONES[name]((64, 32), None)
    images = tf.constant(np.random.default_rng(0).uniform(-1, 1, (2, 64, 32, 3)), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(images)
        features = backbone(images)
        total = tf.reduce_sum(features**2)
    assert features.shape == (2, width)
    assert np.abs(tape.gradient(total, images)).max() > 0


def test_preprocessing_is_what_keras_weights_were_trained_on():
    pixels = np.random.default_rng(0).integers(256, size=(2, 8, 4, 3)).astype(np.float32)
    expected = keras.applications.resnet50.preprocess_input(pixels.copy())
    np.testing.assert_allclose(backbones.CaffePreprocessing()(pixels / 127.5 - 1.0), expected, atol=1e-3)


def test_weights_are_read_from_a_local_file(tmp_path):
    trained = backbones.small((32, 16))
    trained.save_weights(tmp_path / "small.weights.h5")
    again = backbones.small((32, 16), str(tmp_path / "small.weights.h5"))
    for a, b in zip(trained.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_weights_that_cannot_be_fetched_say_what_to_do(monkeypatch):
    def unreachable(**_):
        raise OSError("no route to host")

    monkeypatch.setattr(keras.applications, "ResNet50", unreachable)
    with pytest.raises(OSError, match=r"set method\.weights to its path"):
        backbones.resnet50((64, 32), "imagenet")


@pytest.mark.parametrize("name", backbones.BACKBONES)
def test_batch_statistics_are_those_of_all_replicas(name):
    layers = backbones.BACKBONES[name]((32, 16), None)._flatten_layers()
    found = [layer.synchronized for layer in layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert len(found) > 10 and all(found)
