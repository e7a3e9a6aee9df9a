"""cmGAN: which loss moves whom, in which turn, by which sign; every loss against plain NumPy."""

import numpy as np
import pytest
import tensorflow as tf
from conftest import IDENTITIES, SIZE, build

from tf_reid.encoders.folding import folded
from tf_reid.methods.cmgan import modality_accuracy, modality_loss
from tf_reid.networks.losses import identification


def batch(pairs=4, seed=0):
    rng = np.random.default_rng(seed)
    identity = rng.permutation(IDENTITIES)[:pairs]
    return {
        "source": tf.constant(rng.uniform(-1, 1, (pairs, 2, *SIZE, 3)), tf.float32),
        "source_identity": tf.constant(np.stack([identity, identity], axis=1), tf.int64),
    }


def values(model, player):
    return [variable.numpy() for variable in model.variables_of(player)]


def moves(model, step, stage="adversarial"):
    """The players that a step moves."""
    model.step.assign(step)
    model.begin(stage)
    before = {player: values(model, player) for player in model.players()}
    model.advance(iter(tf.data.Dataset.from_tensors(batch())))[1]
    return {
        player
        for player, old in before.items()
        if any((a != b).any() for a, b in zip(old, values(model, player), strict=True))
    }


def test_a_turn_moves_its_own_player_alone():
    model = build("cmgan")
    assert moves(model, 0, "pretrain") == moves(model, 1, "pretrain") == {"generator"}
    assert moves(model, 0) == {"discriminator"}
    assert moves(model, 1) == {"generator"}


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [("iteration", [1, 0, 0, 1, 0, 0, 1, 0]), ("after", [1, 0, 0, 0, 1, 0, 0, 0]), ("epoch", [1, 1, 0, 0, 0, 0, 1, 1])],
)
def test_schedules(schedule, expected):
    """K = 3; five identities in batches of two (eight images would be four): an epoch of two batches."""
    model = build("cmgan", schedule=schedule, turns=3)
    model.batch_size_of_stage["adversarial"] = 4
    assert model.phase_of(0) is None
    model.begin("adversarial")
    assert [model.phase_of(step)["discriminator_moves"] for step in range(8)] == expected


def features_of(model, pairs=4):
    rng = np.random.default_rng(1)
    return tf.constant(rng.normal(size=(2 * pairs, model.encoder.output_shape[-1])), tf.float32)


def probabilities(logits):
    raised = np.exp(logits - logits.max(1, keepdims=True))
    return raised / raised.sum(1, keepdims=True)


def test_every_loss_equals_a_plain_reference():
    model = build("cmgan", triplet_weight=2.0, identity_weight=3.0, adversarial_weight=0.05, margin=1.4)
    features, identities = features_of(model), np.array([3, 0, 4, 1])
    spread = np.full(features.shape[1], 0.05, np.float32)
    spread[:3] = 1.0  # few dimensions count, so that distances differ and some triplets are fulfilled
    features = features * spread
    found = model.generator_losses(features, tf.constant(identities))

    unit = features.numpy() / np.linalg.norm(features, axis=1, keepdims=True)
    rgb, infrared, terms = unit[:4], unit[4:], {"rgb": [], "infrared": []}
    for way, (anchors, others) in {"rgb": (rgb, infrared), "infrared": (infrared, rgb)}.items():
        for a in range(4):
            for n in range(4):
                if n != a:
                    near, far = ((anchors[a] - others[a]) ** 2).sum(), ((anchors[a] - others[n]) ** 2).sum()
                    terms[way].append(max(near - far + 1.4, 0))
    assert 0 in terms["rgb"] and abs(np.mean(terms["rgb"]) - np.mean(terms["infrared"])) > 0.05
    np.testing.assert_allclose(found["triplet"], 2 * (np.mean(terms["rgb"]) + np.mean(terms["infrared"])), rtol=1e-5)
    p = probabilities(model.identity_head(features).numpy())
    chosen = p[np.arange(8), np.tile(identities, 2)]
    np.testing.assert_allclose(found["identity"], 3 * -np.log(chosen).mean(), rtol=1e-5)
    modality = probabilities(model.discriminator(features).numpy())[np.arange(8), [0] * 4 + [1] * 4]
    np.testing.assert_allclose(modality_loss(model.discriminator(features)), -np.log(modality).mean(), rtol=1e-5)
    np.testing.assert_allclose(found["adversarial"], -0.05 * -np.log(modality).mean(), rtol=1e-5)


def test_the_encoder_is_pretrained_on_identification_alone():
    model = build("cmgan", triplet_weight=2.0, identity_weight=0.0, learning_rate=0.1)
    images = tf.concat([batch()["source"][:, 0], batch()["source"][:, 1]], axis=0)
    identities = np.tile(batch()["source_identity"][:, 0], 2)
    kernel = model.encoder.trainable_variables[0]
    with tf.GradientTape() as tape:
        loss = identification(model.identity_head(model.encoder(images, training=True)), identities)
    expected = kernel.numpy() - 0.1 * tape.gradient(loss, kernel).numpy()
    moves(model, 0, "pretrain")
    np.testing.assert_allclose(kernel.numpy(), expected, atol=1e-6)


def test_an_untrained_discriminator_is_at_ln_2():
    """The mean over all images, as Figure 4's plateau has it, not the sum over modalities."""
    model = build("cmgan")
    for variable in model.discriminator.variables:
        variable.assign(tf.zeros_like(variable))
    np.testing.assert_allclose(modality_loss(model.discriminator(features_of(model))), np.log(2), rtol=1e-6)


def test_the_raw_option_takes_features_as_they_are():
    model = build("cmgan", normalise=False)
    features, identities = features_of(model), tf.range(4)
    tripled = model.triplet_loss(3.0 * features, identities)
    assert abs(tripled - model.triplet_loss(features, identities)) > 0.1
    unit = build("cmgan")
    np.testing.assert_allclose(
        unit.triplet_loss(3.0 * features, identities), unit.triplet_loss(features, identities), rtol=1e-5
    )


def test_the_generator_climbs_the_modality_loss_that_the_discriminator_descends():
    model = build("cmgan", triplet_weight=1e-9, identity_weight=1e-9, learning_rate=1e-3)
    images = tf.reshape(tf.transpose(batch()["source"], (1, 0, 2, 3, 4)), (-1, *SIZE, 3))

    def loss_now():
        return float(modality_loss(model.discriminator(model.encoder(images, training=True))))

    before = loss_now()
    moves(model, 0)
    after_discriminator = loss_now()
    moves(model, 1)
    assert after_discriminator < before
    assert loss_now() > after_discriminator


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"identity_weight": 0.0}, {"triplet", "adversarial"}),
        ({"triplet_weight": 0.0}, {"identity", "adversarial"}),
        ({"adversarial_weight": 0.0}, {"triplet", "identity"}),
    ],
)
def test_variants_leave_their_loss_out(changes, expected):
    model = build("cmgan", **changes)
    assert set(model.generator_losses(features_of(model), tf.range(4))) == expected


def test_without_an_adversary_the_discriminator_still_watches():
    model = build("cmgan", adversarial_weight=0.0)
    assert moves(model, 0) == {"discriminator"}


@pytest.mark.parametrize(("adversarial_weight", "expected"), [(0.05, 0.05), (0.0, 1.0)])
def test_the_discriminator_descends_its_part_of_the_game(adversarial_weight, expected):
    """Eq. 8: gamma times the modality loss, by plain descent; 1 where there is no game."""
    model = build("cmgan", adversarial_weight=adversarial_weight, learning_rate=0.1)
    images = tf.concat([batch()["source"][:, 0], batch()["source"][:, 1]], axis=0)
    before, bias = values(model, "discriminator"), model.discriminator.trainable_variables[-1]
    with tf.GradientTape() as tape:
        loss = modality_loss(model.discriminator(model.encoder(images, training=True)))
    gradient = tape.gradient(loss, bias)
    moves(model, 0)
    np.testing.assert_allclose(bias.numpy(), before[-1] - 0.1 * expected * gradient.numpy(), atol=1e-6)


def test_no_loss_that_learns_identities_is_refused():
    with pytest.raises(ValueError, match=r"method\.triplet_weight and method\.identity_weight are both 0"):
        build("cmgan", triplet_weight=0.0, identity_weight=0.0)


def test_learning_rates_rise_once_and_for_good_when_the_triplets_have_converged():
    model = build("cmgan", raise_below=6.0, raise_by=10.0, learning_rate=0.01, triplet_weight=20.0)  # of Eq. 4 itself
    moves(model, 0)
    assert model.learning_rates() == pytest.approx({"generator": 0.01, "discriminator": 0.01})
    moves(model, 1)
    assert model.learning_rates() == pytest.approx({"generator": 0.1, "discriminator": 0.1})
    model.raise_below = 1e-9
    moves(model, 2)
    assert model.learning_rates()["generator"] == pytest.approx(0.1)


def test_both_modalities_are_mapped_by_one_encoder():
    model = build("cmgan")
    assert model.encoders() == {"rgb": model.encoder, "ir": model.encoder}


def test_a_standardised_encoder_does_not_see_how_dark_an_image_is():
    images = batch()["source"][:, 0]
    plain, standardised = build("cmgan").encoder, build("cmgan", standardise=True).encoder
    np.testing.assert_allclose(standardised(0.3 * images - 0.6), standardised(images), atol=1e-4)
    assert np.abs(plain(0.3 * images - 0.6) - plain(images)).max() > 1e-2


def test_accuracy_is_the_fraction_of_images_whose_modality_is_recognised():
    model = build("cmgan")
    features = features_of(model)
    logits = model.discriminator(features).numpy()
    expected = np.mean(logits.argmax(1) == [0] * 4 + [1] * 4)
    np.testing.assert_allclose(modality_accuracy(model.discriminator(features)), expected)
    assert identification(tf.constant(logits), [0] * 4 + [1] * 4) == modality_loss(model.discriminator(features))


@pytest.mark.parametrize("adversarial_weight", [0.05, 0.0])
def test_the_discriminators_loss_is_logged_without_its_weight(adversarial_weight, one_step):
    """As Fig. 4 plots it: ln 2 where the discriminator knows nothing."""
    model = build("cmgan", adversarial_weight=adversarial_weight)
    for variable in model.discriminator.variables:
        variable.assign(tf.zeros_like(variable))
    reported = one_step(model, "adversarial", batch())
    np.testing.assert_allclose(reported["discriminator/modality"], np.log(2), rtol=1e-6)


def grey(images):
    return tf.repeat(tf.image.rgb_to_grayscale(images), 3, axis=-1)


def test_the_one_stream_network_sees_no_colours():
    model, plain = build("cmgan", channels="grey"), build("cmgan")
    images = batch()["source"][:, 0]
    np.testing.assert_allclose(model.encoder(images), plain.encoder(grey(images)), atol=1e-5)
    assert model.encoders()["rgb"] is model.encoders()["ir"]


@pytest.mark.parametrize("standardise", [False, True])
def test_zero_padding_gives_each_modality_a_channel_of_its_own(standardise):
    model = build("cmgan", channels="zero_padding", standardise=standardise)
    images, zeros = batch()["source"][:, 0], np.zeros((4, *SIZE, 1), np.float32)
    seen = grey(images)[..., :1].numpy()
    if standardise:
        seen = (seen - seen.mean((1, 2, 3), keepdims=True)) / seen.std((1, 2, 3), keepdims=True)
    for role, channels in {"rgb": [seen, zeros, zeros], "ir": [zeros, seen, zeros]}.items():
        expected = model.network(np.concatenate(channels, axis=-1))
        encoder = model.encoders()[role]
        np.testing.assert_allclose(encoder(images), expected, atol=1e-4)
        np.testing.assert_allclose(folded(encoder)[0](images), expected, atol=1e-4)  # as it is served


def test_both_channels_of_zero_padding_train_one_network():
    """Infrared images alone move the weights of the encoder of RGB images, but for those of the RGB channel."""
    model = build("cmgan", channels="zero_padding", learning_rate=0.1)
    kernel, before = model.encoder.trainable_variables[0], model.encoder.trainable_variables[0].numpy()
    images = tf.concat([tf.zeros((4, *SIZE, 3)), batch()["source"][:, 1]], axis=0)
    statistics = [v.numpy() for v in model.network.non_trainable_variables]
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.square(model.features(images)))
    assert any((a != b.numpy()).any() for a, b in zip(statistics, model.network.non_trainable_variables, strict=True))
    gradient = tape.gradient(loss, kernel).numpy()
    assert np.abs(gradient[:, :, 1]).max() > 0 and not gradient[:, :, [0, 2]].any()
    assert moves(model, 1) == {"generator"} and (kernel.numpy() != before).any()
    assert model.infrared_encoder.trainable_variables[0] is kernel
