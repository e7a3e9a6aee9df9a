import keras
import numpy as np
import pytest
import scipy.io
import tensorflow as tf

from tf_reid import config as configuration
from tf_reid.config import ConfigError
from tf_reid.data.pipeline import IMAGENET_MEAN
from tf_reid.methods import METHODS
from tf_reid.networks import applications, backbones


@pytest.mark.parametrize(
    ("name", "width"),
    [("small", 256), ("small_vgg", 256), ("ResNet50", 2048), ("VGG16", 512), ("vgg_m", 512), ("MobileNetV2", 1280)],
)
def test_a_backbone_gives_one_vector_an_image_and_a_gradient_to_its_input(name, width):
    backbone = backbones.BACKBONES[name]((64, 64), None)
    images = tf.constant(np.random.default_rng(0).uniform(-1, 1, (2, 64, 64, 3)), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(images)
        features = backbone(images)
        total = tf.reduce_sum(features**2)
    assert features.shape == (2, width)
    assert np.abs(tape.gradient(total, images)).max() > 0


def test_preprocessing_is_what_keras_weights_were_trained_on():
    pixels = np.random.default_rng(0).integers(256, size=(2, 8, 4, 3)).astype(np.float32)
    expected = keras.applications.resnet50.preprocess_input(pixels.copy())
    np.testing.assert_allclose(applications.CaffePreprocessing()(pixels / 127.5 - 1.0), expected, atol=1e-3)


def test_weights_are_read_from_a_local_file(tmp_path):
    trained = backbones.small((32, 16))
    trained.save_weights(tmp_path / "small.weights.h5")
    again = backbones.small((32, 16), str(tmp_path / "small.weights.h5"))
    for a, b in zip(trained.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_network_of_kerass_starts_from_the_weights_of_a_backbone_or_of_keras(tmp_path):
    trained = backbones.build_backbone("MobileNetV2", (32, 32), None)
    trained.save_weights(tmp_path / "backbone.weights.h5")
    again = backbones.build_backbone("MobileNetV2", (64, 32), str(tmp_path / "backbone.weights.h5"))
    for a, b in zip(trained.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    plain = keras.applications.MobileNetV2(include_top=False, weights=None)
    plain.save_weights(tmp_path / "keras.weights.h5")
    kernel = backbones.build_backbone("MobileNetV2", (32, 32), str(tmp_path / "keras.weights.h5")).get_weights()[0]
    np.testing.assert_array_equal(kernel, plain.get_weights()[0])


def test_weights_that_cannot_be_fetched_say_what_to_do(monkeypatch):
    def unreachable(**_):
        raise OSError("no route to host")

    unreachable.__name__ = "ResNet50"
    monkeypatch.setattr(keras.applications, "ResNet50", unreachable)
    with pytest.raises(OSError, match="set the method's weights to its path"):
        backbones.build_backbone("ResNet50", (64, 32), "imagenet")


def test_images_that_are_too_small_for_imagenets_weights_are_no_failed_fetch(monkeypatch):
    def of_another_size(**_):
        raise ValueError("input_shape should be (224, 224, 3)")

    monkeypatch.setattr(applications, "family_of", lambda name: "resnet")
    monkeypatch.setattr(keras.applications, "ResNet50", of_another_size)
    with pytest.raises(ValueError, match="too small for ResNet50"):
        applications.build("ResNet50", (64, 32))


def test_what_is_erased_has_the_mean_of_imagenet():
    np.testing.assert_allclose(np.array(applications.MEAN) * 2 - 1, IMAGENET_MEAN, atol=1e-12)


@pytest.mark.parametrize("name", ["small", "small_vgg", "vgg_m", "ResNet50", "MobileNetV2", "VGG16", "VGG19"])
def test_every_batch_norm_has_one_momentum_one_epsilon_and_the_statistics_of_all_replicas(name):
    layers = backbones.BACKBONES[name]((64, 64), None)._flatten_layers()
    norms = [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert len(norms) >= {"ResNet50": 53, "MobileNetV2": 52, "small": 12, "small_vgg": 8}.get(name, 0)
    assert all(norm.synchronized for norm in norms)
    assert {(norm.momentum, norm.epsilon) for norm in norms} <= {(0.9, 1e-5)}  # PyTorch's 0.1 and 1e-5


def test_our_epsilon_changes_no_feature_of_trained_weights():
    theirs = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(32, 32, 3))
    for layer in theirs.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.moving_variance.assign(0.001 * layer.moving_variance)  # as small as Keras's epsilon
    images = tf.random.stateless_uniform((2, 32, 32, 3), [0, 1], -1, 1)
    ours = applications.with_our_layers(theirs, "mobilenet_v2")
    np.testing.assert_allclose(ours(images), theirs(images), rtol=1e-3, atol=1e-4)
    assert np.abs(theirs(images)).max() > 0.01


@pytest.mark.parametrize("name", ["small", "small_vgg", "vgg_m"])
def test_a_net_without_imagenet_weights_says_so(name):
    with pytest.raises(ValueError, match=f"no ImageNet weights of the backbone {name}"):
        backbones.BACKBONES[name]((64, 64), "imagenet")


def matconvnet(path, kernels):
    """A file of MatConvNet's form: a cell of layer structures with names, types and weights."""
    names = [name for kernel in kernels for name in (kernel, f"relu{kernel[-1]}")]
    found = np.empty((1, len(names)), object)
    for i, name in enumerate(names):
        weights = np.empty((1, 2 if name in kernels else 0), object)
        if name in kernels:
            weights[0, 0], weights[0, 1] = kernels[name], np.zeros((kernels[name].shape[-1], 1), np.float32)
        found[0, i] = {"name": name, "type": "conv" if name in kernels else "relu", "weights": weights}
    scipy.io.savemat(path, {"layers": found})


def test_vgg_m_takes_matconvnets_weights_and_refuses_other_files(tmp_path):
    net = backbones.vgg_m((64, 64))
    rng = np.random.default_rng(0)
    convolutions = [layer for layer in net.layers if layer.name.startswith("conv")]
    kernels = {layer.name: rng.normal(size=layer.kernel.shape).astype(np.float32) for layer in convolutions}
    matconvnet(tmp_path / "imagenet-vgg-m.mat", kernels)
    loaded = backbones.vgg_m((64, 64), str(tmp_path / "imagenet-vgg-m.mat"))
    for name, kernel in kernels.items():
        np.testing.assert_array_equal(loaded.get_layer(name).kernel, kernel)
    matconvnet(tmp_path / "other.mat", {"conv1": kernels["conv1"]})
    with pytest.raises(ValueError, match=r"other\.mat is not MatConvNet's imagenet-vgg-m\.mat"):
        backbones.vgg_m((64, 64), str(tmp_path / "other.mat"))


def test_vgg_m_has_the_published_number_of_convolution_weights():
    net = backbones.vgg_m((224, 224))
    assert net.count_params() == 6_528_640
    assert net.get_layer("pool5").output.shape == (None, 6, 6, 512)  # what its first fully-connected layer takes


@pytest.mark.parametrize(
    ("name", "expected"),
    [("resnet50", "ResNet50"), ("mobilenet_v2", "MobileNetV2"), ("vgg16", "VGG16"), ("Small_VGG", "small_vgg")],
)
def test_case_and_underscores_of_a_name_do_not_matter(name, expected):
    assert backbones.spelled(name) == expected


def test_a_name_that_is_none_gives_one_sentence_with_similar_ones():
    settings = ["method.backbone=ResNet5O", "method.weights=null"]
    with pytest.raises(ConfigError) as refused:
        configuration.load("identity", settings, METHODS)
    (sentence,) = str(refused.value).splitlines()
    assert "method.backbone is 'ResNet5O', but it must be a network of keras.applications" in sentence
    assert "ResNet50" in sentence and len(sentence) < 300
    loaded = configuration.load("crossgan", ["method.encoder=mobilenet_v2"], METHODS)
    assert loaded.method["encoder"] == "MobileNetV2"
    with pytest.raises(ConfigError) as refused:
        configuration.load("crossgan", ["method.encoder=pixel"], METHODS)
    assert "similar ones are pixels" in str(refused.value) and "\n" not in str(refused.value)


PREPROCESSED = {  # a network of each way to preprocess -> Keras's own, on 0-255
    "VGG16": keras.applications.vgg16.preprocess_input,
    "DenseNet121": keras.applications.densenet.preprocess_input,
    "EfficientNetV2B0": keras.applications.efficientnet_v2.preprocess_input,
    "MobileNetV3Small": keras.applications.mobilenet_v3.preprocess_input,
    "ConvNeXtTiny": keras.applications.convnext.preprocess_input,
    "ResNet50V2": keras.applications.resnet_v2.preprocess_input,
    "Xception": keras.applications.xception.preprocess_input,
}


@pytest.mark.parametrize("name", PREPROCESSED)
def test_a_network_sees_what_kerass_own_preprocessing_gives(name):
    pixels = np.random.default_rng(0).integers(256, size=(2, 8, 4, 3)).astype(np.float32)
    make = applications.PREPROCESSING.get(applications.family_of(name), keras.layers.Identity)
    found = make()(tf.constant(pixels / 127.5 - 1.0))
    np.testing.assert_allclose(found, PREPROCESSED[name](pixels.copy()), atol=1e-3)


def test_what_does_not_fit_a_network_gives_one_sentence(tmp_path):
    backbones.small((32, 16)).save_weights(tmp_path / "small.weights.h5")
    (tmp_path / "text.weights.h5").write_text("no weights")
    for file in ("small.weights.h5", "text.weights.h5"):
        with pytest.raises(ValueError, match=rf"{file} does not hold the weights of the backbone MobileNetV2"):
            backbones.build_backbone("MobileNetV2", (32, 32), str(tmp_path / file))
    with pytest.raises(ValueError, match="does not hold the weights of the backbone small_vgg"):
        backbones.build_backbone("small_vgg", (32, 16), str(tmp_path / "small.weights.h5"))
    for name in ("VGG16", "small_vgg", "ConvNeXtTiny"):
        with pytest.raises(ValueError, match=f"the last stage of {name} cannot keep its size: set 2"):
            backbones.build_backbone(name, (32, 16), None, last_stride=1)
    with pytest.raises(ValueError, match="too small for VGG16"):
        backbones.build_backbone("VGG16", (16, 16))


def test_the_fixed_standardisation_of_efficientnet_is_that_of_imagenet():
    images = keras.Input((2, 2, 3))
    mean, deviation = np.array(applications.MEAN), np.array(applications.DEVIATION)
    once_more = keras.layers.Rescaling((1 / np.sqrt(deviation)).tolist())
    seen = once_more(keras.layers.Normalization()(keras.layers.Rescaling(1 / 255)(images)))
    network = applications.with_our_layers(keras.Model(images, seen), "efficientnet")
    pixels = np.random.default_rng(0).uniform(0, 255, (1, 2, 2, 3)).astype(np.float32)
    np.testing.assert_allclose(network(pixels), (pixels / 255 - mean) / deviation, rtol=1e-4, atol=1e-5)
