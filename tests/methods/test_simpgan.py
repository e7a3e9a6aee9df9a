"""SimPGAN's losses against NumPy, and which loss moves whom."""

from functools import partial

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import build, convolutions, random_batch

from tf_reid.networks.simpgan import build_discriminator, build_generator
from tf_reid.pictures.page import CaptionedImages

NETWORKS = ("classifier", "G", "F", "D_S", "D_T")


def weights(model):
    return {name: [w.copy() for w in getattr(model, name).get_weights()] for name in NETWORKS}


def moved(before, after):
    return {n for n in NETWORKS if any(np.any(a != b) for a, b in zip(before[n], after[n], strict=True))}


@pytest.fixture(scope="module")
def model():
    return build("simpgan")


@pytest.fixture(scope="module")
def images(model):
    batch = random_batch()
    source = tf.reshape(batch["source"], (-1, *model.image_size, 3))
    target = tf.reshape(batch["target"], (-1, *model.image_size, 3))
    return batch, source, target


def gradients_of(model, images, loss_name, losses_of):
    """Network -> whether any gradient of one loss reaches it."""
    networks = {name: getattr(model, name) for name in NETWORKS}
    with tf.GradientTape() as tape:
        loss = losses_of(model, *images)[loss_name]
    flat = [v for network in networks.values() for v in network.trainable_variables]
    gradients = iter(tape.gradient(loss, flat))
    reached = set()
    for name, network in networks.items():
        own = [next(gradients) for _ in network.trainable_variables]
        if any(g is not None and np.abs(g).max() > 0 for g in own):
            reached.add(name)
    return reached


def generator_losses(model, batch, source, target):
    return model.generator_losses(batch, source, target, model.translations(source, target))


@pytest.mark.parametrize(
    ("loss", "reached"),
    [
        ("adversarial_G", {"G", "D_T"}),
        ("adversarial_F", {"F", "D_S"}),
        ("cycle", {"G", "F"}),
        ("similarity", {"G", "F", "classifier"}),
        ("identity", {"G", "F"}),
    ],
)
def test_each_generator_loss_reaches_its_networks_and_no_other(model, images, loss, reached):
    assert gradients_of(model, images, loss, generator_losses) == reached


def test_the_discriminators_losses_reach_the_discriminators_alone(model, images):
    def discriminator_losses(model, _batch, source, target):
        fake_target, fake_source = tf.stop_gradient(model.G(source)), tf.stop_gradient(model.F(target))
        return model.discriminator_losses(source, target, fake_target, fake_source)

    assert gradients_of(model, images, "adversarial_D_T", discriminator_losses) == {"D_T"}
    assert gradients_of(model, images, "adversarial_D_S", discriminator_losses) == {"D_S"}


def test_a_translation_step_moves_generators_and_discriminators_and_never_the_classifier(one_step):
    model = build("simpgan")
    before = weights(model)
    one_step(model, "translation", random_batch())
    assert moved(before, weights(model)) == {"G", "F", "D_S", "D_T"}


def test_a_classifier_step_moves_the_classifier_alone(one_step):
    model = build("simpgan")
    before = weights(model)
    one_step(model, "classifier", random_batch())
    assert moved(before, weights(model)) == {"classifier"}


def test_minimising_generator_losses_moves_no_discriminator(images):
    model = build("simpgan")
    model.begin("translation")
    before = weights(model)
    with tf.GradientTape() as tape:
        losses = generator_losses(model, *images)
    model.minimize(tape, losses, "generators")
    assert moved(before, weights(model)) == {"G", "F"}


def test_the_discriminators_rest_between_every_nth_step():
    model = build("simpgan", discriminator_every=3)
    model.begin("translation")
    batches = iter(tf.data.Dataset.from_tensors(random_batch()).repeat())
    moves = []
    for _ in range(6):
        before = weights(model)
        model.advance(batches)[1]
        moves.append("D_S" in moved(before, weights(model)))
    assert moves == [True, False, False, True, False, False]


def test_generator_losses_are_equations_6_8_10_11(model, images):
    batch, source, target = images
    fake_target, fake_source = model.G(source).numpy(), model.F(target).numpy()
    reconstructed_source, reconstructed_target = model.F(fake_target).numpy(), model.G(fake_source).numpy()
    losses = generator_losses(model, batch, source, target)

    def per_pair(values):  # the paper sums over the two images of a pair; a batch is a mean over pairs
        return np.mean([v.reshape(2, -1).mean(1).sum() for v in np.split(values, len(values) // 2)])

    np.testing.assert_allclose(losses["adversarial_G"], per_pair((model.D_T(fake_target).numpy() - 1) ** 2), rtol=1e-4)
    np.testing.assert_allclose(losses["adversarial_F"], per_pair((model.D_S(fake_source).numpy() - 1) ** 2), rtol=1e-4)
    cycle = per_pair(np.abs(reconstructed_source - source)) + per_pair(np.abs(reconstructed_target - target))
    np.testing.assert_allclose(losses["cycle"], 10 * cycle, rtol=1e-4)
    unchanged = per_pair(np.abs(model.F(source) - source)) + per_pair(np.abs(model.G(target) - target))
    np.testing.assert_allclose(losses["identity"], 5 * unchanged, rtol=1e-4)
    v = model.classifier(reconstructed_source).numpy()
    identities = batch["source_identity"].numpy()
    logit = model.classifier.same_identity_logit(v[0::2], v[1::2]).numpy()
    q_hat, q = 1 / (1 + np.exp(-logit)), identities[:, 0] == identities[:, 1]
    np.testing.assert_allclose(
        losses["similarity"], np.mean(np.where(q, -np.log(q_hat), -np.log(1 - q_hat))), rtol=1e-4
    )


def test_the_frozen_classifier_judges_pairs_without_dropout(model, images, monkeypatch):
    batch, source, _ = images
    without = model.similarity_loss(source, batch["source_identity"])
    monkeypatch.setattr(model.classifier.same_dropout, "rate", 0.9)
    np.testing.assert_allclose(model.similarity_loss(source, batch["source_identity"]), without, rtol=1e-6)


def test_discriminator_losses_are_equations_7_and_9_with_their_own_domain_as_real(model, images):
    _, source, target = images
    fake_target, fake_source = model.G(source).numpy(), model.F(target).numpy()
    losses = model.discriminator_losses(source, target, fake_target, fake_source)
    d_t, d_s = (
        (lambda x: model.D_T(x, training=True).numpy()),
        (lambda x: model.D_S(x, training=True).numpy()),
    )
    expected = 2 * (np.mean(d_t(fake_target) ** 2) + np.mean((d_t(target) - 1) ** 2))
    np.testing.assert_allclose(losses["adversarial_D_T"], expected, rtol=1e-4)
    expected = 2 * (np.mean(d_s(fake_source) ** 2) + np.mean((d_s(source) - 1) ** 2))
    np.testing.assert_allclose(losses["adversarial_D_S"], expected, rtol=1e-4)
    printed = 2 * (np.mean(d_t(fake_target) ** 2) + np.mean((d_t(source) - 1) ** 2))
    assert abs(losses["adversarial_D_T"] - printed) > 1e-4  # what Eq. 7 prints is another loss


def test_each_player_descends_its_own_losses(one_step):
    """One SGD step on a fixed batch makes the sum of the moved player's losses smaller: a flipped sign would not."""
    model = build("simpgan", learning_rate=1.0e-5)
    batch = random_batch()
    source, target = (tf.reshape(batch[d], (-1, *model.image_size, 3)) for d in ("source", "target"))

    def discriminators():
        fakes = model.G(source), model.F(target)
        return float(sum(model.discriminator_losses(source, target, *fakes).values()))

    model.begin("translation")
    with tf.GradientTape() as tape:
        losses = generator_losses(model, batch, source, target)
    before = float(sum(losses.values()))
    model.minimize(tape, losses, "generators")
    assert float(sum(generator_losses(model, batch, source, target).values())) < before

    before = discriminators()
    with tf.GradientTape() as tape:
        losses = model.discriminator_losses(source, target, model.G(source), model.F(target))
    model.minimize(tape, losses, "discriminators")
    assert discriminators() < before


def step_of_separate_calls(model, batch):
    """A translation step in which every network is called for the images of one kind at a time, and its losses."""
    source, target = model.domains(batch)
    with tf.GradientTape() as tape:
        fake_target, fake_source = model.G(source), model.F(target)
        back_in_source, back_in_target = model.F(fake_target), model.G(fake_source)
        moves_generators = {
            "adversarial_G": 2.0 * tf.reduce_mean((model.D_T(fake_target, training=True) - 1.0) ** 2),
            "adversarial_F": 2.0 * tf.reduce_mean((model.D_S(fake_source, training=True) - 1.0) ** 2),
            "cycle": 20.0
            * (tf.reduce_mean(abs(back_in_source - source)) + tf.reduce_mean(abs(back_in_target - target))),
            "similarity": model.similarity_loss(back_in_source, batch["source_identity"]),
        }
        if model.identity_weight:
            same = tf.reduce_mean(abs(model.F(source) - source)) + tf.reduce_mean(abs(model.G(target) - target))
            moves_generators["identity"] = 2.0 * model.identity_weight * same
    model.minimize(tape, moves_generators, "generators")
    moves_discriminators = {}
    with tf.GradientTape() as tape:
        for name, judge, real, fake in (
            ("adversarial_D_T", model.D_T, target, tf.stop_gradient(fake_target)),
            ("adversarial_D_S", model.D_S, source, tf.stop_gradient(fake_source)),
        ):
            of_fake, of_real = judge(fake, training=True), judge(real, training=True)
            moves_discriminators[name] = 2.0 * (tf.reduce_mean(of_fake**2) + tf.reduce_mean((of_real - 1.0) ** 2))
    if model.phase["discriminators_move"]:
        model.minimize(tape, moves_discriminators, "discriminators")
    return model.report(generators=moves_generators, discriminators=moves_discriminators)


@pytest.mark.parametrize(
    ("changes", "size", "discriminators_move"),
    [
        ({}, (32, 16), True),
        ({"identity_weight": 0.0, "generator": "residual", "discriminator_norm": False}, (32, 16), True),
        ({"generator": "colour", "discriminator": "official"}, (32, 32), True),  # batch norm in the discriminators
        ({"discriminator": "official"}, (32, 32), False),
    ],
)
def test_joined_calls_make_the_step_of_separate_calls(changes, size, discriminators_move, monkeypatch):
    """Losses, what each player learns, and running statistics."""
    monkeypatch.setattr("conftest.SIZE", size)
    model, batch = build("simpgan", learning_rate=1.0, **changes), random_batch()
    for variable in model.variables_of("generators"):  # no layer starts at zero, which would hold gradients back
        variable.assign_add(tf.random.stateless_normal(variable.shape, [0, 1], stddev=0.05))
    model.begin("translation")
    model.phase, before = {"discriminators_move": discriminators_move}, weights(model)
    results = []
    for step in (model.translation_step, partial(step_of_separate_calls, model)):
        losses, after = step(batch), weights(model)
        learned = {name: [b - a for a, b in zip(before[name], after[name], strict=True)] for name in NETWORKS}
        assert any(np.any(change) for change in learned["D_S"]) or not discriminators_move
        results.append((losses, learned))
        for name in NETWORKS:
            getattr(model, name).set_weights(before[name])
    (joined, learned), (expected, expected_to_learn) = results
    assert set(joined) == set(expected)
    for name, loss in expected.items():
        np.testing.assert_allclose(joined[name], loss, rtol=1e-5, err_msg=name)
    for name in NETWORKS:
        for change, expected_change in zip(learned[name], expected_to_learn[name], strict=True):
            tolerance = 1e-4 * np.abs(expected_change).max() + 1e-6
            np.testing.assert_allclose(change, expected_change, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("identity_weight", [0.0, 5.0])
def test_a_step_calls_each_generator_and_discriminator_twice(identity_weight, monkeypatch):
    """Counted in convolutions of the traced step: what is launched, not what is computed, takes a GPU's time."""
    model, batch = build("simpgan", identity_weight=identity_weight), random_batch()
    model.begin("translation")
    model.phase = {"discriminators_move": True}
    monkeypatch.setattr(model, "minimize", lambda *_: None)  # tracing the gradients takes long
    found = convolutions(tf.function(model.translation_step).get_concrete_function(batch))
    calls = {model.G: 2, model.F: 2, model.D_S: 2, model.D_T: 2, model.classifier.backbone: 1}
    images = tf.TensorSpec((4, *model.image_size, 3))
    once = {
        network: convolutions(tf.function(lambda x, network=network: network(x)).get_concrete_function(images))
        for network in calls
    }
    assert found == sum(times * once[network] for network, times in calls.items())


@pytest.mark.parametrize(
    ("weights_of", "names"),
    [
        ({"cycle_weight": 0.0, "similarity_weight": 0.0}, {"adversarial_G", "adversarial_F"}),  # gan
        ({"similarity_weight": 0.0}, {"adversarial_G", "adversarial_F", "cycle"}),  # cycle
        ({}, {"adversarial_G", "adversarial_F", "cycle", "similarity"}),  # full
    ],
)
def test_variants_are_weights(one_step, weights_of, names):
    model = build("simpgan", **{"identity_weight": 0.0, **weights_of})
    losses = one_step(model, "translation", random_batch())
    assert {n.removeprefix("generators/") for n in losses if n.startswith("generators/")} == names


def test_direct_transfer_has_no_translated_representation():
    model = build("simpgan")
    assert set(model.representations()) == {"raw", "translated"}
    model.steps_of_stage["translation"] = 0
    assert set(model.representations()) == {"raw"}
    assert model.encoders()["image"] is model.classifier.backbone


def test_the_translating_encoder_is_the_classifier_behind_F(model, images):
    _, _, target = images
    expected = model.classifier(model.F(target))
    np.testing.assert_allclose(model.encoders()["image"](target), expected, atol=1e-5)


def test_a_residual_generator_starts_as_the_identity_and_a_tanh_one_does_not():
    image = tf.constant(np.random.default_rng(0).uniform(-1, 1, (1, 32, 16, 3)), tf.float32)
    residual = build_generator((32, 16), width=4, blocks=1, residual=True, name="a")
    plain = build_generator((32, 16), width=4, blocks=1, residual=False, name="b")
    np.testing.assert_allclose(residual(image), 0.98 * image, atol=1e-5)
    assert np.abs(plain(image) - image).mean() > 0.1


def forms(network):
    """(channels, kernel, stride) of each convolution, in their order."""
    kinds = keras.layers.Conv2D, keras.layers.Conv2DTranspose
    convolutions = [layer for layer in network.layers if isinstance(layer, kinds)]
    return [(one.filters, one.kernel_size[0], one.strides[0]) for one in convolutions]


def test_full_size_networks_have_the_forms_of_cyclegan_and_of_the_authors_code():
    blocks = [(256, 3, 1)] * 12
    down, up = [(64, 7, 1), (128, 3, 2), (256, 3, 2)], [(128, 3, 2), (64, 3, 2), (3, 7, 1)]
    generator = build_generator((256, 256), 64, 6, False, "G")
    assert forms(generator) == down + blocks + up
    kinds = [type(operation).__name__ for operation in generator.operations]
    assert kinds.count("Add") == 6 and kinds.count("InstanceNorm") == 17 and kinds[-1] == "Tanh"
    patch, official = (build_discriminator((256, 256), 64, 3, one, True, "D") for one in (False, True))
    assert forms(patch) == [(64, 4, 2), (128, 4, 2), (256, 4, 2), (512, 4, 1), (1, 4, 1)]
    assert forms(official) == [(64, 4, 2), (128, 4, 2), (256, 4, 2), (1, 4, 1)]
    for network, slope, norms in ((patch, 0.2, "InstanceNorm"), (official, 0.05, "BatchNormalization")):
        slopes = {one.negative_slope for one in network.layers if isinstance(one, keras.layers.LeakyReLU)}
        names = [type(one).__name__ for one in network.layers]
        assert slopes == {slope} and names.count(norms) == len(forms(network)) - 2  # not the first, not the scores


def test_generators_keep_the_size_and_discriminators_score_patches():
    image = tf.zeros((1, 256, 128, 3))
    assert build_generator((256, 128), 4, 1, False, "g")(image).shape == image.shape
    assert build_discriminator((256, 256), 4, 3, False, True, "patch")(tf.zeros((1, 256, 256, 3))).shape == (
        1,
        32,
        32,
        1,
    )
    assert build_discriminator((256, 256), 4, 3, True, True, "official")(tf.zeros((1, 256, 256, 3))).shape == (
        1,
        29,
        29,
        1,
    )
    with pytest.raises(
        ValueError, match=r"discriminator=official judges patches of 32 pixels; data.image_size is \[64, 24\]"
    ):
        build_discriminator((64, 24), 4, 3, True, True, "official")
    assert build_discriminator((64, 32), 4, 3, True, True, "official")(tf.zeros((1, 64, 32, 3))).shape == (1, 5, 1, 1)
    with pytest.raises(ValueError, match="multiples of 4"):
        build_generator((30, 16), 4, 1, False, "g")


def test_a_finished_classifier_is_loaded_from_its_run(tmp_path):
    trained = build("identity", seed=1)
    (tmp_path / "networks").mkdir()
    trained.classifier.save_weights(tmp_path / "networks" / "classifier.weights.h5")
    model = build("simpgan", classifier=str(tmp_path))
    for a, b in zip(trained.classifier.get_weights(), model.classifier.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match=r"method\.classifier: .*nowhere"):
        build("simpgan", classifier=str(tmp_path / "nowhere"))


def test_the_page_of_translations_has_both_directions_and_the_way_back():
    model, batch = build("simpgan"), random_batch(4)
    first, second = (CaptionedImages(batch[domain][:, 0], ["a", "b"]) for domain in ("source", "target"))
    page = model.presentation().pages()["translation"](first, second)
    for column, expected in ((0, first.images), (1, model.G(first.images)), (5, model.G(model.F(second.images)))):
        np.testing.assert_allclose(tf.stack(page.rows, axis=1)[column], expected, atol=1e-5)
    assert page.row_titles == ["a\na", "b\nb"]
