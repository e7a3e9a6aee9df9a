"""DG-Net's teacher: the paper's baseline by hand, and the networks of finished runs in its place."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import IDENTITIES, SIZE, batch_for, build

from tf_reid.config import ConfigError
from tf_reid.evaluation import during_training
from tf_reid.methods.dgnet_teacher import SiameseTeacher, Teacher, build_teacher
from tf_reid.networks.siamese import SiameseClassifier
from tf_reid.runs.progress import Progress

SETTINGS = (SIZE, IDENTITIES, "small", None, 0.5)


@pytest.fixture(scope="module")
def trained():
    """A teacher that has seen images, and some of them."""
    keras.utils.set_random_seed(0)
    teacher, images = Teacher(*SETTINGS), batch_for("dgnet", "teacher")["source"]
    teacher(images, training=True)
    return teacher, images


def save(network, folder, name):
    (folder / "networks").mkdir(parents=True)
    network.save_weights(folder / "networks" / f"{name}.weights.h5")
    return str(folder)


def test_it_is_a_backbone_a_linear_layer_a_batch_norm_and_a_classifier(trained):
    teacher, images = trained
    pooled = teacher.backbone(images).numpy()  # an average over the maps
    linear, norm = teacher.embedding.layers
    kernel, bias = linear.get_weights()
    gamma, beta, mean, variance = norm.get_weights()
    feature = (pooled @ kernel + bias - mean) / np.sqrt(variance + 1e-5) * gamma + beta
    assert kernel.shape == (256, 512)
    np.testing.assert_allclose(teacher(images), feature, atol=1e-3)
    dropout, last = teacher.classifier.layers
    assert dropout.rate == 0.5
    np.testing.assert_allclose(teacher.logits(images, False), feature @ last.kernel.numpy() + last.bias, atol=1e-4)


def test_its_loss_is_the_plain_cross_entropy_of_single_images():
    model, batch = build("dgnet"), batch_for("dgnet", "teacher")
    logits = model.teacher.logits(batch["source"], batch_statistics=True).numpy().astype(np.float64)
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = -np.log(shares[np.arange(8), batch["source_identity"]]).mean()
    model.begin("teacher")
    np.testing.assert_allclose(model.train_step(batch)["teacher/identity"], expected, rtol=1e-4)


def test_it_is_scored_by_unit_features_of_image_and_mirror_image(trained):
    teacher, images = trained
    views = (teacher(view).numpy() for view in (images, images[:, :, ::-1]))
    both = sum(view / np.linalg.norm(view, axis=1, keepdims=True) for view in views)
    expected = both / np.linalg.norm(both, axis=1, keepdims=True)
    np.testing.assert_allclose(teacher.features()(images), expected, atol=1e-5)


def test_an_untrained_teacher_is_not_scored():
    """As that of a run of an earlier version, whose own teacher had another form."""
    model = build("dgnet")
    assert "teacher" in during_training.changed(model, model.representations(), "teacher")  # its stage may watch it
    model.step.assign(5)
    assert "teacher" not in model.representations()
    model.begin("teacher")
    model.train_step(batch_for("dgnet", "teacher"))
    assert "teacher" in model.representations()


def test_swaps_are_not_labelled_by_a_teacher_that_knows_nothing(tmp_path):
    run = save(SiameseClassifier(SIZE, IDENTITIES, "small"), tmp_path / "identity", "classifier")
    message = r"method\.teacher_style=soft labels swaps .* stages\.teacher\.steps is 0"
    with pytest.raises(ConfigError, match=message):
        build("dgnet", skipped=("teacher",)).check_training()
    others = ({"teacher": run}, {"teacher_style": "uniform"}, {"primary_weight": 0.0}, {"warm_up": 10})
    for settings in others:  # a given teacher, no need of one, no weight of Eq. 8, a stage that ends before it
        build("dgnet", skipped=("teacher",), **settings).check_training()
    build("dgnet").check_training()


def test_the_teacher_of_another_run_of_dgnet(tmp_path, trained):
    teacher, images = trained
    again = build_teacher(save(teacher, tmp_path / "run", "teacher"), *SETTINGS)
    np.testing.assert_allclose(again.logits(images, False), teacher.logits(images, False), atol=1e-6)


def test_the_classifier_of_a_run_of_identity(tmp_path):
    classifier = SiameseClassifier(SIZE, IDENTITIES, "small", None, dropout=0.0)
    run = save(classifier, tmp_path / "run", "classifier")
    batch = batch_for("dgnet", "teacher")
    images, identities = batch["source"], batch["source_identity"]
    model = build("dgnet", teacher=run)
    assert isinstance(model.teacher, SiameseTeacher)
    logits = classifier.identity_head(classifier.backbone(images, training=True))
    np.testing.assert_allclose(model.teacher.logits(images, True), logits, atol=1e-5)
    expected = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(identities, logits))
    np.testing.assert_allclose(model.teacher.identity_loss(images, identities), expected, rtol=1e-4)


def test_a_run_is_scored_without_the_run_of_its_teacher(tmp_path):
    """An opened run has a teacher of the usual form, whatever its checkpoint holds; a training needs the same one."""
    run = save(SiameseClassifier(SIZE, IDENTITIES, "small"), tmp_path / "identity", "classifier")
    trained, opened = build("dgnet", seed=1, teacher=run), build("dgnet", seed=2)
    Progress(tmp_path, trained).save()
    with pytest.raises(ConfigError, match="does not fit the networks of this version"):
        Progress(tmp_path, opened).restore()
    assert Progress(tmp_path, opened).restore(partially=True)
    for network in ("E_a", "primary", "fine", "G"):
        pairs = zip(getattr(trained, network).weights, getattr(opened, network).weights, strict=True)
        assert all((a.numpy() == b.numpy()).all() for a, b in pairs)


def test_runs_without_a_fitting_teacher_are_refused(tmp_path, trained):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"method\.teacher: .*empty holds neither networks/teacher\.weights\.h5"):
        build_teacher(str(tmp_path / "empty"), *SETTINGS)
    older = save(SiameseClassifier(SIZE, IDENTITIES, "small"), tmp_path / "older", "teacher")
    with pytest.raises(ConfigError, match="does not hold the weights of this teacher"):
        build_teacher(older, *SETTINGS)
    untrained = save(Teacher(*SETTINGS), tmp_path / "untrained", "teacher")
    with pytest.raises(ConfigError, match=r"teacher that was never trained: its run had stages\.teacher\.steps=0"):
        build_teacher(untrained, *SETTINGS)
