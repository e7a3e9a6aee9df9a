"""Cross-GAN beyond the paper: pairs of mutual nearest neighbours, and features of a finished run."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
import yaml
from conftest import IDENTITIES, SIZE, batch_for, build

from tf_reid.config import ConfigError, schema_of
from tf_reid.methods import METHODS
from tf_reid.methods.crossgan import Latents, Pairs
from tf_reid.networks.crossgan import mutual_neighbours
from tf_reid.networks.siamese import SiameseClassifier
from tf_reid.networks.strong import StrongClassifier

RNG = np.random.default_rng(11)


def steps_of(batch, count):
    return iter(tf.data.Dataset.from_tensors(batch).repeat(count))


# ----------------------------------------------------------------- pairs


def test_mutual_neighbours_are_those_of_plain_numpy():
    first = RNG.normal(size=(9, 4)).astype(np.float32) + 50.0  # what a whole view has in common does not count
    second = RNG.normal(size=(9, 4)).astype(np.float32)
    nearest, mutual = mutual_neighbours(tf.constant(first), tf.constant(second))

    def cosine(a, b):
        a, b = a - first.mean(axis=0), b - second.mean(axis=0)
        return a @ b / np.linalg.norm(a) / np.linalg.norm(b)

    table = np.array([[cosine(a, b) for b in second] for a in first])
    assert nearest.numpy().tolist() == [int(row.argmax()) for row in table]
    expected = [table[:, row.argmax()].argmax() == i for i, row in enumerate(table)]
    assert mutual.numpy().tolist() == expected and 0 < sum(expected) < 9


def test_there_is_a_pair_even_where_all_are_equally_near():
    ones = tf.ones((3, 2))
    assert mutual_neighbours(ones, ones)[1].numpy().tolist() == [True, False, False]


@pytest.mark.parametrize("clip", ["whole", "dimension"])
def test_eq_7_is_the_mean_over_pairs_and_leaves_all_others_alone(clip):
    model = build("crossgan", pairing="nearest", clip=clip, threshold=0.5, alignment_weight=2.0)
    latents = [Latents(None, None, tf.Variable(RNG.normal(size=(4, 6)), dtype=tf.float32)) for _ in range(2)]
    pairs = Pairs(tf.constant([2, 0, 2, 3], tf.int64), tf.constant([1.0, 1.0, 0.0, 0.0]))
    with tf.GradientTape() as tape:
        loss = model.alignment_losses(latents, pairs)["alignment"]
    aligned = model.align(latents[1].z).numpy()
    square = [(latents[0].z.numpy()[a] - aligned[b]) ** 2 for a, b in ((0, 2), (1, 0))]
    each = [max(row.sum(), 0.5) if clip == "whole" else np.minimum(row, 0.5).sum() for row in square]
    np.testing.assert_allclose(loss, 2.0 * np.mean(each), rtol=1e-5)
    gradients = tape.gradient(loss, [of_view.z for of_view in latents])
    reached = [np.any(tf.convert_to_tensor(gradient), axis=1).tolist() for gradient in gradients]
    assert reached == [[True, True, False, False], [True, False, True, False]]


@pytest.mark.parametrize("paired_by", ["latents", "features"])
def test_pairs_come_from_the_images_alone_wherever_they_stand_in_the_batch(paired_by):
    model = build("crossgan", pairing="nearest", paired_by=paired_by)
    views = model.views(batch_for("crossgan", "alignment", images=16))
    if paired_by == "latents":
        compared = [encoder(view)[0].numpy() for encoder, view in zip((model.E1, model.E2), views, strict=True)]
    else:
        compared = [view.numpy().reshape(len(view), -1) for view in views]

    def pairs_of(order):
        shuffled = views[0], tf.gather(views[1], order)
        pairs = model.pairs(shuffled, model.latents(shuffled))
        both = zip(pairs.nearest.numpy(), pairs.mutual.numpy(), strict=True)
        return {(first, int(order[second])) for first, (second, mutual) in enumerate(both) if mutual}

    nearest, mutual = mutual_neighbours(*map(tf.constant, compared))
    expected = {(i, int(nearest[i])) for i in np.flatnonzero(mutual)}
    assert pairs_of(np.arange(8)) == pairs_of(RNG.permutation(8)) == expected
    assert build("crossgan").pairs(views, model.latents(views)) is None


def after_two_steps(stage, batch, strategy=None, **attributes):
    """The weights of a model that pairs neighbours, and the losses of its last call."""
    strategy = strategy or tf.distribute.get_strategy()
    with strategy.scope():
        model = build("crossgan", pairing="nearest", learning_rate=1e-3)
    for name, value in attributes.items():
        setattr(model, name, value)
    model.begin(stage)
    batches = iter(strategy.experimental_distribute_dataset(tf.data.Dataset.from_tensors(batch).repeat(2)))
    done = 0
    while done < 2:
        steps, losses = model.advance(batches, 2 - done)
        done += steps
    return [variable.numpy() for variable in model.trainable_variables], losses


def test_steps_with_pairs_read_no_identity_and_may_be_compiled():
    tf.config.experimental.enable_op_determinism()
    batch = batch_for("crossgan", "alignment", images=16)
    shuffled = batch | {"source_identity": tf.reverse(batch["source_identity"], [0]) + 1}
    expected, losses = after_two_steps("alignment", batch)
    assert 0 < float(losses["alignment/mutual"]) < 1
    for weights, same in zip(after_two_steps("alignment", shuffled)[0], expected, strict=True):
        np.testing.assert_array_equal(weights, same)
    compiled, losses = after_two_steps("alignment", batch, xla=True, steps_per_call=2)
    assert losses["alignment/mutual"].shape == (2,)
    for weights, same in zip(compiled, expected, strict=True):
        np.testing.assert_allclose(weights, same, atol=1e-6)


def test_two_replicas_pair_the_images_of_the_global_batch(two_replicas):
    batch = batch_for("crossgan", "joint", images=16)
    (expected, losses), (found, of_both) = (after_two_steps("joint", batch, where) for where in (None, two_replicas))
    for key, value in losses.items():
        np.testing.assert_allclose(of_both[key], value, rtol=1e-4, err_msg=key)
    for weights, same in zip(found, expected, strict=True):
        np.testing.assert_allclose(weights, same, atol=1e-5)


# ----------------------------------------------------------------- features of a run


def write_run(folder, name, network, file, **method):
    """What a finished run leaves, as far as its features need it."""
    (folder / "networks").mkdir(parents=True)
    if file:
        network.save_weights(folder / "networks" / file)
    settings = {"data": {"image_size": list(SIZE)}, "method": {"name": name, "backbone": "small", **method}}
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    (folder / "data.json").write_text(json.dumps({"source": {"identities": IDENTITIES + 2}}))
    return str(folder)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Name of the method -> its network and its run's folder."""
    folder = tmp_path_factory.mktemp("runs")
    keras.utils.set_random_seed(3)
    strong = StrongClassifier(SIZE, IDENTITIES + 2, "small", None, last_stride=2)
    strong.features(batch_for("crossgan", "vae")["source"][:, 0], training=True)  # statistics of its own
    siamese = SiameseClassifier(SIZE, IDENTITIES + 2, "small", None)
    return {
        "strong": (strong, write_run(folder / "strong", "strong", strong, "strong.weights.h5", last_stride=2)),
        "identity": (siamese, write_run(folder / "identity", "identity", siamese, "classifier.weights.h5")),
    }


@pytest.mark.parametrize("name", ["strong", "identity"])
def test_a_runs_features_are_the_encoders_input_and_are_not_trained(runs, name):
    network, run = runs[name]
    with pytest.warns(UserWarning, match="not unsupervised"):
        model = build("crossgan", encoder=run, pairing="nearest", paired_by="features", optimizer="adam")
    batch = batch_for("crossgan", "joint")
    images = batch["source"][:, 0]
    expected = network.encoder(images)
    model.begin("joint")
    model.advance(steps_of(batch, 1))
    direct = model.representations()["direct"].encoders
    assert set(direct) == {"image"}
    np.testing.assert_allclose(direct["image"](images), expected, atol=1e-5)
    for encoder in (model.E1, model.E2):
        np.testing.assert_allclose(encoder.layers[1](images), expected, atol=1e-5)
        assert len(encoder.trainable_variables) == 6
    assert "direct" not in build("crossgan").representations()


def test_runs_whose_features_cannot_be_taken_are_named(runs, tmp_path):
    network, run = runs["strong"]

    def refused(message, run=run, **changes):
        with pytest.raises(ConfigError, match=message):
            build("crossgan", encoder=run, **changes)

    refused(r"set method\.encoder_weights=null", encoder_weights="imagenet")
    other = write_run(tmp_path / "dgnet", "dgnet", network, "strong.weights.h5")
    refused(r"method\.encoder: .*dgnet is a run of dgnet; name one of identity or strong", other)
    unfinished = write_run(tmp_path / "half", "strong", network, None)
    refused(r"method\.encoder: .*half is not finished; train it to its end", unfinished)
    with pytest.raises(
        ConfigError, match=r"strong was trained at data\.image_size=\[32, 16\], but this run has \[64, 3"
    ):
        METHODS["crossgan"]((64, 32), IDENTITIES, 0, encoder=run)
    refused(r"method\.encoder: there is no run in .*missing; train one with --run", str(tmp_path / "missing"))
    schema = schema_of(METHODS["crossgan"])
    for folder in (run, "runs/to_come"):  # the settings of a run may be read before the other run is trained
        assert schema.model_validate({"encoder": folder}).encoder == folder
    with pytest.raises(ValueError, match=r"ResNet50.*, or the folder of a finished run"):
        schema.model_validate({"encoder": "resnet5"})
