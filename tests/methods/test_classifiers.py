"""A finished run of `strong` as the classifier of SimPGAN and as the teacher of DG-Net."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import yaml
from conftest import IDENTITIES, SIZE, build, random_batch

from tf_reid.config import ConfigError
from tf_reid.methods.dgnet_teacher import build_teacher
from tf_reid.networks.strong import StrongClassifier

IMAGES = random_batch()["source"][:, 0]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The network of a run of `strong`, and the run's folder, as far as others read it."""
    keras.utils.set_random_seed(1)
    network, run = StrongClassifier(SIZE, IDENTITIES, "small", None, last_stride=2), tmp_path_factory.mktemp("strong")
    network.features(IMAGES, training=True)  # statistics of its own
    (run / "networks").mkdir()
    network.save_weights(run / "networks" / "strong.weights.h5")
    method = {"name": "strong", "backbone": "small", "last_stride": 2, "bnneck": True}
    (run / "config.yaml").write_text(yaml.safe_dump({"method": method}))
    return network, str(run)


def simpgan(run, **changes):
    return build("simpgan", classifier_kind="strong", classifier=run, skipped=("classifier",), **changes)


def test_simpgan_judges_pairs_by_the_cosine_of_a_strong_classifiers_features(finished):
    network, run = finished
    model = simpgan(run, last_stride=2)
    features = network(IMAGES).numpy()
    np.testing.assert_allclose(model.representations()["raw"].encoders["image"](IMAGES), features, atol=1e-5)
    np.testing.assert_allclose(model.encoders()["image"](IMAGES), network(model.F(IMAGES)), atol=1e-4)

    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    cosine = (unit[0::2] * unit[1::2]).sum(axis=1)
    probability = 1 / (1 + np.exp(-10 * (cosine - 0.5)))
    with tf.GradientTape() as tape:
        tape.watch(IMAGES)
        loss = model.similarity_loss(IMAGES, tf.constant([[0, 0], [1, 2]]))
    expected = -np.mean([np.log(probability[0]), np.log(1 - probability[1])])
    np.testing.assert_allclose(loss, expected, rtol=1e-4)
    assert np.abs(tape.gradient(loss, IMAGES)).max() > 0


def test_simpgan_takes_a_strong_classifier_only_as_it_was_trained(finished):
    _, run = finished
    with pytest.raises(ConfigError, match=r"method\.classifier: .* was trained with method\.last_stride=2; set it"):
        simpgan(run, last_stride=1)
    with pytest.raises(ConfigError, match=r"set stages\.classifier\.steps=0"):
        build("simpgan", classifier_kind="strong", classifier=run, last_stride=2)
    with pytest.raises(ValueError, match=r"does not hold the weights of this strong classifier"):
        simpgan(f"{run}/config.yaml", last_stride=1)  # a file that holds none
    with pytest.raises(ConfigError, match=r"needs a finished run of strong: method\.classifier=RUN"):
        simpgan(None).check_training()


def test_dgnets_teacher_is_the_network_of_a_strong_run_with_its_last_stride(finished):
    network, run = finished
    teacher = build_teacher(run, SIZE, IDENTITIES, "small", None, 0.5)
    assert teacher.backbone.layers[-2].output.shape == network.backbone.layers[-2].output.shape
    logits = network.identity_head(network(IMAGES))
    np.testing.assert_allclose(teacher.logits(IMAGES, False), logits, atol=1e-5)
    np.testing.assert_allclose(teacher.features()(IMAGES), network(IMAGES), atol=1e-5)
    before = [variable.numpy() for variable in teacher.variables]
    by_batch = teacher.logits(IMAGES, True)
    assert np.abs(by_batch - logits).max() > 1e-4
    assert all(np.array_equal(a, b.numpy()) for a, b in zip(before, teacher.variables, strict=True))
    p = tf.nn.softmax(teacher.identity_head(network(IMAGES, training=True))).numpy()
    expected = -np.log(p[np.arange(4), [0, 1, 2, 3]]).mean()
    np.testing.assert_allclose(teacher.identity_loss(IMAGES, tf.range(4)), expected, rtol=1e-4)
    assert build("dgnet", teacher=run).players()["teacher_head"] != []


def test_simpgan_refuses_a_strong_classifier_without_the_neck(tmp_path):
    method = {"name": "strong", "backbone": "small", "last_stride": 2, "bnneck": False}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"method": method}))
    with pytest.raises(ConfigError, match=r"was trained with method\.bnneck=false"):
        simpgan(str(tmp_path), last_stride=2)
