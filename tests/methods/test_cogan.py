"""CoGAN: which layers are shared, which loss moves whom, by which sign."""

import numpy as np
import pytest
import tensorflow as tf
from conftest import SIZE, build, random_batch

from tf_reid.methods.cogan import CoGAN
from tf_reid.networks.losses import identification


def values(model, player):
    return [variable.numpy() for variable in model.variables_of(player)]


def test_views_share_the_generators_first_units_and_the_discriminators_last():
    model = build("cogan", generator_shared=3, discriminator_shared=2)
    for first, second, shared in ((model.g1, model.g2, [1, 1, 1, 0, 0]), (model.f1, model.f2, [0, 0, 0, 1, 1])):
        units = zip(first.layers[1:], second.layers[1:], strict=True)
        assert [a is b for a, b in units] == [bool(one) for one in shared]
    encoders, images = model.encoders(), random_batch()["source"][:, 0]
    np.testing.assert_allclose(encoders["gallery"](images), model.f2(images)[0], atol=1e-6)
    assert encoders["probe"](images).shape == (4, 1024)


def test_a_step_moves_the_discriminators_then_the_generators_against_them(one_step):
    model, by_hand = build("cogan", identity_weight=2.0), build("cogan", identity_weight=2.0)
    for variable in (v for each in (model, by_hand) for player in each.players() for v in each.variables_of(player)):
        if variable.path.endswith("kernel"):  # as they are drawn, scores hardly depend on images
            variable.assign(3.0 * variable)
    batch = random_batch()
    z = by_hand.drawn(tf.random.stateless_uniform, 4, (by_hand.latent_width,)) * 2.0 - 1.0
    reported = one_step(model, "joint", batch)

    def descend(loss_of, *players):
        variables = [v for player in players for v in by_hand.variables_of(player)]
        with tf.GradientTape() as tape:
            loss = loss_of()
        for variable, gradient in zip(variables, tape.gradient(loss, variables), strict=True):
            if gradient is not None:
                variable.assign_sub(0.01 * gradient)
        return loss

    def entropy(logits, real):
        probability = tf.sigmoid(logits[:, 0])
        return -tf.reduce_mean(tf.math.log(probability if real else 1.0 - probability))

    real = batch["source"][:, 0], batch["source"][:, 1]
    fakes = [by_hand.g1(z, training=True), by_hand.g2(z, training=True)]
    both = by_hand.f1, by_hand.f2

    def judging():
        adversarial = sum(entropy(f(x)[1], True) for f, x in zip(both, real, strict=True))
        adversarial += sum(entropy(f(x)[1], False) for f, x in zip(both, fakes, strict=True))
        identities = batch["source_identity"][:, 0]  # the gallery's labels, which differ, are not read
        return adversarial + 2.0 * identification(by_hand.classifier(by_hand.f1(real[0])[0]), identities)

    found = reported["discriminators/adversarial"] + reported["discriminators/identity"]
    np.testing.assert_allclose(found, descend(judging, "discriminators"), rtol=1e-4)
    generators = (by_hand.g1, by_hand.g2)
    loss = descend(
        lambda: sum(entropy(f(g(z, training=True))[1], True) for f, g in zip(both, generators, strict=True)),
        "generators",
    )
    np.testing.assert_allclose(reported["generators/adversarial"], loss, rtol=1e-4)
    for player in model.players():
        for a, b in zip(values(model, player), values(by_hand, player), strict=True):
            np.testing.assert_allclose(a, b, atol=2e-5, err_msg=player)


def test_without_labels_there_is_no_classifier_to_move():
    model, batch = build("cogan", identity_weight=0.0), random_batch()
    views, before = (batch["source"][:, 0], batch["source"][:, 1]), [v.numpy() for v in model.classifier.variables]
    terms = model._update_discriminators(views, views, batch["source_identity"][:, 0])
    assert set(terms) == {"adversarial"}
    for a, b in zip(before, model.classifier.variables, strict=True):
        np.testing.assert_array_equal(a, b.numpy())


def test_a_size_that_cannot_be_generated_is_refused():
    with pytest.raises(ValueError, match=r"data\.image_size is \[40, 16\], but a generator doubles four times"):
        CoGAN((40, SIZE[1]), 5, 0)
