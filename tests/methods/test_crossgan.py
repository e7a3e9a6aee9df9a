"""Cross-GAN: what is shared, who is moved by which loss and by which sign; every loss against plain NumPy."""

import numpy as np
import pytest
import tensorflow as tf
from conftest import IDENTITIES, SIZE, batch_for, build, make_records, stage_of

from tf_reid.data import pipeline, samplers
from tf_reid.methods.crossgan import Latents
from tf_reid.networks import crossgan, losses
from tf_reid.pictures.page import CaptionedImages

RNG = np.random.default_rng(7)


def views(count=4):
    return [tf.constant(RNG.uniform(-1, 1, (count, *SIZE, 3)), tf.float32) for _ in range(2)]


def moved(model, stage, steps=1):
    """Players of whose trainable variables some steps move any, and the losses reported."""
    before = {player: [v.numpy() for v in model.variables_of(player)] for player in model.players()}
    model.begin(stage)
    batches = iter(tf.data.Dataset.from_tensors(batch_for("crossgan", stage)).repeat())
    for _ in range(steps):
        found = model.advance(batches)[1]
    return {
        player
        for player, old in before.items()
        if any((a != b.numpy()).any() for a, b in zip(old, model.variables_of(player), strict=True))
    }, set(found)


# ----------------------------------------------------------------- networks


def conv_and_dense(network):
    """Variables of a coupled network unit by unit: those of its units in their order."""
    return [[v.path + str(id(v)) for v in unit.trainable_variables] for unit in network.layers[1:]]


@pytest.mark.parametrize("shared", [0, 2, 4])
def test_the_first_units_of_the_generators_are_the_same_variables(shared):
    model = build("crossgan", generator_shared=shared)
    same = [a == b for a, b in zip(conv_and_dense(model.g1), conv_and_dense(model.g2), strict=True)]
    assert same == [True] * shared + [False] * (5 - shared)


@pytest.mark.parametrize("shared", [0, 1, 3, 5])
def test_the_last_units_of_the_discriminators_are_the_same_variables(shared):
    model = build("crossgan", discriminator_shared=shared)
    same = [a == b for a, b in zip(conv_and_dense(model.f1), conv_and_dense(model.f2), strict=True)]
    assert same == [False] * (5 - shared) + [True] * shared


def test_shared_units_give_the_same_maps_and_views_their_own_images():
    model = build("crossgan", generator_shared=4)
    z = tf.constant(RNG.normal(size=(2, 6)), tf.float32)
    assert (model.g1(z).numpy() != model.g2(z).numpy()).any()
    for layer in model.g1.layers[1:5]:
        assert layer in model.g2.layers


def test_full_size_units_are_those_of_the_paper_where_they_can_be_built():
    """Table 1: three convolutions of 20 channels with pooling, two dense units of 1,024; five units in a generator."""
    g, f = crossgan.coupled_generators((128, 64), 512, 100, 4), crossgan.coupled_discriminators((128, 64), 1)
    assert [unit.output_shape[1:] for unit in g.first.layers[1:]] == [
        (8, 4, 512),
        (16, 8, 256),
        (32, 16, 128),
        (64, 32, 64),
        (128, 64, 3),
    ]
    kernels = [unit.layers[0].kernel.shape[:2] for unit in f.first.layers[1:4]]
    assert kernels == [(5, 5)] * 3 and f.first.layers[3].output_shape[1:] == (16, 8, 20)
    assert [unit.layers[-1].__class__.__name__ for unit in f.first.layers[1:4]] == ["LeakyReLU"] * 3
    assert [shape[1:] for shape in f.first.output_shape] == [(1024,), (1,)]
    assert f.first.layers[4].output_shape[1:] == (1024,)


def test_encoders_are_perceptrons_and_the_alignment_is_a_dense_layer_with_tanh():
    model, x = build("crossgan"), views()[0]
    kernel, bias, *last = model.E1.get_weights()
    hidden = np.maximum(x.numpy().reshape(4, -1) @ kernel + bias, 0)
    for found, (own_kernel, own_bias) in zip(model.E1(x), (last[:2], last[2:]), strict=True):
        np.testing.assert_allclose(found, hidden @ own_kernel + own_bias, atol=1e-4)
    z = RNG.normal(size=(5, 6)).astype(np.float32)
    kernel, bias = model.align.get_weights()
    np.testing.assert_allclose(model.align(z), np.tanh(z @ kernel + bias), atol=1e-5)


def test_a_backbone_that_encodes_is_not_trained():
    model = build("crossgan", encoder="small")
    names = [v.path for v in model.variables_of("encoders")]
    assert len(names) == 12 and not any("conv" in name for name in names)
    before = [v.numpy() for v in model.E1.weights if "conv" in v.path or "moving" in v.path]
    moved(model, "vae")
    after = [v.numpy() for v in model.E1.weights if "conv" in v.path or "moving" in v.path]
    assert before and all((a == b).all() for a, b in zip(before, after, strict=True))


def test_sizes_that_a_generator_cannot_make_are_refused():
    from tf_reid.methods import METHODS

    with pytest.raises(ValueError, match=r"data\.image_size is \[40, 16\].*multiples of 16"):
        METHODS["crossgan"]((40, 16), IDENTITIES, 0)


# ----------------------------------------------------------------- who is moved


@pytest.mark.parametrize(
    ("stage", "changes", "expected"),
    [
        ("vae", {}, {"encoders", "generators"}),
        ("alignment", {}, {"alignment"}),
        ("joint", {}, {"encoders", "generators", "alignment", "discriminators"}),
        ("joint", {"alignment_weight": 0.0, "skipped": ("alignment",)}, {"encoders", "generators", "discriminators"}),
        ("joint", {"adversarial_weight": 0.0, "matching_weight": 0.0}, {"encoders", "generators", "alignment"}),
    ],
)
def test_what_a_stage_moves(stage, changes, expected):
    assert moved(build("crossgan", **changes), stage)[0] == expected


def test_aligning_without_a_loss_is_refused():
    with pytest.raises(ValueError, match=r"stages\.alignment\.steps=0"):
        build("crossgan", alignment_weight=0.0)


def test_a_joint_step_moves_each_player_down_its_own_losses():
    """E: all but Eq. 10 for f; g: the same without the alignment, which does not reach it; Align: Eq. 11; f: Eq. 10."""
    rate = 0.05
    model, twin = (build("crossgan", learning_rate=rate) for _ in range(2))
    for each in (model, twin):
        for network in (each.f1, each.f2, each.g1, each.g2):
            for variable in network.trainable_variables:
                if variable.path.endswith("kernel"):  # as they are drawn, scores hardly depend on images
                    variable.assign(3.0 * variable)
        each.begin("joint")
    batch = batch_for("crossgan", "joint")
    views = [batch["source"][:, 0], batch["source"][:, 1]]
    with tf.GradientTape(persistent=True) as tape:
        latents = twin.latents(views)
        reconstructed = twin.reconstructions(latents)
        with tape.stop_recording():
            twin._update_discriminators(views, reconstructed)
        terms = twin.vae_losses(views, latents, reconstructed) | twin.adversarial_losses(views, reconstructed)
        aligned = twin.alignment_losses(latents)["alignment"]
        total = tf.add_n(list(terms.values()))
        with_alignment = total + aligned
    losses_of = {"encoders": with_alignment, "generators": total, "alignment": aligned}
    expected = {"discriminators": [v.numpy() for v in twin.variables_of("discriminators")]}
    for player, loss in losses_of.items():
        variables = twin.variables_of(player)
        gradients = tape.gradient(loss, variables)
        expected[player] = [v.numpy() - rate * g.numpy() for v, g in zip(variables, gradients, strict=True)]
    model.train_step(batch)
    for player, values in expected.items():
        for variable, value in zip(model.variables_of(player), values, strict=True):
            np.testing.assert_allclose(
                variable.numpy(), value, rtol=1e-3, atol=1e-5, err_msg=f"{player} {variable.path}"
            )


def test_whom_each_loss_reaches():
    model = build("crossgan")
    seen = views()
    with tf.GradientTape(persistent=True) as tape:
        latents = model.latents(seen)
        reconstructed = model.reconstructions(latents)
        for g, of_view, made in zip((model.g1, model.g2), latents, reconstructed, strict=True):
            np.testing.assert_allclose(made, g(of_view.z, training=True), atol=1e-5)  # each view by its own generator
        terms = model.vae_losses(seen, latents, reconstructed) | model.alignment_losses(latents)
        terms |= model.adversarial_losses(seen, reconstructed)
    players = ("encoders", "generators", "alignment")

    def reached(loss):
        found = {player: tape.gradient(loss, model.variables_of(player)) for player in players}
        return {p for p, gradients in found.items() if any(g is not None and np.any(g) for g in gradients)}

    assert {name: reached(loss) for name, loss in terms.items()} == {
        "divergence": {"encoders"},
        "reconstruction": {"encoders", "generators"},
        "alignment": {"encoders", "alignment"},
        "adversarial": {"encoders", "generators"},
        "feature_matching": {"encoders", "generators"},
    }


def test_generators_keep_statistics_of_what_they_make_in_training():
    model = build("crossgan")
    before = [v.numpy() for v in model.g1.non_trainable_variables]
    moved(model, "vae")
    after = [v.numpy() for v in model.g1.non_trainable_variables]
    assert any((a != b).any() for a, b in zip(before, after, strict=True))


def test_no_identity_is_read(tmp_path):
    """The same images under shuffled identities give equal weights."""
    identity, camera = np.repeat(np.arange(1, 9), 2), np.tile([1, 2], 8)

    def weights_after(identities):
        records = make_records(identities, camera)
        model = build("crossgan")
        for number, stage in enumerate(model.STAGES):
            sampler = samplers.unpaired_views(records, stage_of(8))
            place = {"seed": 0, "stage": number, "start": 0, "steps": 2, "image_size": SIZE, "flip": True, "pad": 2}
            model.step.assign(0)
            model.begin(stage)
            batches = iter(pipeline.training_batches({"source": records}, sampler, **place))
            model.advance(batches)[1], model.advance(batches)[1]
        return [v.numpy() for network in model.networks().values() for v in network.weights]

    shuffled = np.random.default_rng(1).permutation(identity)
    assert (shuffled != identity).any()
    assert all((a == b).all() for a, b in zip(weights_after(identity), weights_after(shuffled), strict=True))


def test_views_are_drawn_apart_by_camera_alone():
    records = make_records(np.arange(1, 13), np.tile([1, 2, 2], 4))
    drawn = samplers.unpaired_views(records, stage_of(8))(np.random.default_rng(0))["source"]
    assert drawn.shape == (2, 4, 2)  # eight images of camera 2: two steps of four
    assert set(records.camera[drawn[..., 0]].ravel()) == {1}
    assert sorted(drawn[..., 1].ravel()) == sorted(np.flatnonzero(records.camera == 2))
    with pytest.raises(ValueError, match="all training images are of camera 1"):
        samplers.unpaired_views(make_records([1, 2], [1, 1]), stage_of(2))


def test_images_of_more_cameras_are_halved_at_random():
    records = make_records(np.arange(1, 41), np.tile([1, 2, 3, 4], 10))
    sampler = samplers.unpaired_views(records, stage_of(40))
    first, second = (set(sampler(np.random.default_rng(0))["source"][..., side].ravel()) for side in (0, 1))
    assert len(first) == len(second) == 20 and not first & second
    for side in (first, second):
        assert set(records.camera[list(side)]) == {1, 2, 3, 4}
    again = samplers.unpaired_views(records, stage_of(40))(np.random.default_rng(1))["source"]
    assert set(again[..., 0].ravel()) == first


# ----------------------------------------------------------------- losses


def test_vae_losses_equal_eq_5_with_its_sign_put_right():
    model = build("crossgan", reconstruction_weight=0.3)
    x = views()
    latents = model.latents(x)
    reconstructed = [model.g1(latents[0].z), model.g2(latents[1].z)]
    found = model.vae_losses(x, latents, reconstructed)
    divergence = reconstruction = 0.0
    for (mean, log_variance, _), images, made in zip(latents, x, reconstructed, strict=True):
        mean, log_variance = mean.numpy(), log_variance.numpy()
        divergence += np.mean(
            [-0.5 * (1 + v - m**2 - np.exp(v)).sum() for m, v in zip(mean, log_variance, strict=True)]
        )
        reconstruction += 0.5 * np.mean(
            [((a - b) ** 2).sum() for a, b in zip(images.numpy(), made.numpy(), strict=True)]
        )
    np.testing.assert_allclose(found["divergence"], divergence, rtol=1e-4)
    np.testing.assert_allclose(found["reconstruction"], 0.3 * reconstruction, rtol=1e-4)


def test_the_divergence_is_least_at_the_prior():
    at_prior = float(losses.normal_divergence(tf.zeros((2, 3)), tf.zeros((2, 3))))
    assert at_prior == 0.0
    for mean, log_variance in ((0.5, 0.0), (-0.5, 0.0), (0.0, 0.7), (0.0, -0.7)):
        assert float(losses.normal_divergence(tf.fill((2, 3), mean), tf.fill((2, 3), log_variance))) > 0.1


def test_samples_follow_their_distribution_and_the_step():
    model = build("crossgan")
    model.E1 = lambda images: (tf.fill((2000, 6), 3.0), tf.fill((2000, 6), np.log(4.0).astype(np.float32)))
    model.E2 = lambda images: (tf.zeros((2000, 6)), tf.zeros((2000, 6)))
    x = [tf.zeros((2000, *SIZE, 3))] * 2
    (_, _, z), (_, _, other) = model.latents(x)
    np.testing.assert_allclose([z.numpy().mean(), z.numpy().std()], [3.0, 2.0], atol=0.1)
    assert abs(np.corrcoef(z.numpy().ravel(), other.numpy().ravel())[0, 1]) < 0.05
    np.testing.assert_array_equal(model.latents(x)[0].z, z)
    model.step.assign(1)
    assert (model.latents(x)[0].z.numpy() != z.numpy()).any()


@pytest.mark.parametrize("clip", ["whole", "dimension"])
def test_alignment_equals_eq_7(clip):
    model = build("crossgan", clip=clip, threshold=1.5, alignment_weight=2.0)
    latents = [Latents(None, None, tf.constant(scale * RNG.normal(size=(5, 6)), tf.float32)) for scale in (1.0, 0.1)]
    square = (latents[0].z.numpy() - model.align(latents[1].z).numpy()) ** 2
    if clip == "whole":
        expected = np.mean([max(row.sum(), 1.5) for row in square])
    else:
        expected = np.mean([sum(min(d, 1.5) for d in row) for row in square])
    np.testing.assert_allclose(model.alignment_losses(latents)["alignment"], 2 * expected, rtol=1e-5)


def test_latents_that_are_near_enough_are_left_alone():
    model = build("crossgan", threshold=1000.0)
    latents = [Latents(None, None, tf.Variable(RNG.normal(size=(5, 6)), dtype=tf.float32)) for _ in range(2)]
    with tf.GradientTape() as tape:
        loss = model.alignment_losses(latents)["alignment"]
    assert float(loss) == 1000.0 and not np.any(tape.gradient(loss, latents[0].z))


def test_adversarial_losses_equal_the_equations():
    model = build("crossgan", adversarial_weight=2.0, matching_weight=3.0)
    real, made = views(), views()
    found = model.adversarial_losses(real, made)
    adversarial = matching = 0.0
    for f, x, y in zip((model.f1, model.f2), real, made, strict=True):
        (of_real, _), (of_made, logit) = f(x), f(y)
        adversarial += -np.log(1 / (1 + np.exp(-logit.numpy()))).mean()
        matching += ((of_real.numpy().mean(axis=0) - of_made.numpy().mean(axis=0)) ** 2).sum()
    np.testing.assert_allclose(found["adversarial"], 2 * adversarial, rtol=1e-4)
    np.testing.assert_allclose(found["feature_matching"], 3 * matching, rtol=1e-3)


def test_discriminators_descend_the_negative_of_eq_10():
    model = build("crossgan")
    for variable in model.variables_of("discriminators"):
        if variable.path.endswith("kernel"):  # as they are drawn, real and fake have about one score
            variable.assign(4.0 * variable)
    model.begin("joint")
    real, made = views(), views()
    expected = 0.0
    for f, x, y in zip((model.f1, model.f2), real, made, strict=True):
        probability = [1 / (1 + np.exp(-f(images)[1].numpy())) for images in (x, y)]
        expected -= np.log(probability[0]).mean() + np.log(1 - probability[1]).mean()
    np.testing.assert_allclose(model._update_discriminators(real, made)["adversarial"], expected, rtol=1e-4)


def test_players_of_the_adversary_pull_apart():
    model = build("crossgan", learning_rate=0.1)
    model.begin("joint")
    real, made = views(), views()

    def gap():
        judged = zip((model.f1, model.f2), real, made, strict=True)
        return sum(float(tf.reduce_mean(f(x)[1]) - tf.reduce_mean(f(y)[1])) for f, x, y in judged)

    before = gap()
    for _ in range(10):
        model._update_discriminators(real, made)
    assert gap() > before
    seen = [tf.Variable(images) for images in made]
    with tf.GradientTape() as tape:
        loss = model.adversarial_losses(real, seen)["adversarial"]
    score = sum(float(tf.reduce_mean(f(x)[1])) for f, x in zip((model.f1, model.f2), seen, strict=True))
    for variable, gradient in zip(seen, tape.gradient(loss, seen), strict=True):
        variable.assign_sub(10.0 * gradient)
    assert sum(float(tf.reduce_mean(f(x)[1])) for f, x in zip((model.f1, model.f2), seen, strict=True)) > score


# ----------------------------------------------------------------- retrieval


def test_latents_are_compared_after_the_alignment():
    x = views()
    for weight in (0.0, 1.0):
        model = build("crossgan", alignment_weight=weight, skipped=() if weight else ("alignment",))
        encoders, second = model.encoders(), model.E2(x[1])[0]
        np.testing.assert_allclose(encoders["probe"](x[0]), model.E1(x[0])[0], atol=1e-6)
        np.testing.assert_allclose(encoders["gallery"](x[1]), model.align(second) if weight else second, atol=1e-6)


def test_ways_to_compare():
    assert set(build("crossgan").representations()) == {"raw", "discriminator", "transformed"}
    plain = build("crossgan", adversarial_weight=0.0, matching_weight=0.0, search_steps=0)
    assert set(plain.representations()) == {"raw"}
    model = build("crossgan")
    x = views()[0]
    found = model.representations()["discriminator"].encoders
    np.testing.assert_allclose(found["gallery"](x), model.f2(x)[0], atol=1e-5)


def test_the_search_finds_the_latent_of_a_generated_image():
    from tf_reid.networks.crossgan import ViewTransform

    model = build("crossgan")
    for variable in model.g1.trainable_variables + model.g2.trainable_variables:
        if variable.path.endswith("kernel"):  # as it is drawn, a generator's images hardly depend on z
            variable.assign(5.0 * variable)
    z = tf.constant(np.random.default_rng(0).normal(size=(3, 6)), tf.float32)
    made = model.g1(z)
    start = float(tf.reduce_mean((model.g1(model.E1(made)[0]) - made) ** 2))
    search = ViewTransform(model.E1, model.g1, model.g2, 150, 0.05)
    found = search.nearest(made)
    assert float(tf.reduce_mean((model.g1(found) - made) ** 2)) < 0.2 * start
    np.testing.assert_allclose(search(made), model.g2(found), atol=1e-5)
    pair = model.representations()["transformed"].encoders
    two_steps = ViewTransform(model.E1, model.g1, model.g2, 2, model.search_rate)(made)
    np.testing.assert_allclose(pair["probe"](made), tf.reshape(two_steps, (3, -1)), atol=1e-4)
    np.testing.assert_allclose(pair["gallery"](made), tf.reshape(made, (3, -1)), atol=1e-6)


# ----------------------------------------------------------------- pages


def two_shown():
    batch = batch_for("crossgan", "vae", 4)["source"]
    return CaptionedImages(batch[:, 0], ["identity 1, camera 1", "identity 2, camera 1"]), CaptionedImages(
        batch[:, 1], ["c", "d"]
    )


def test_the_page_across_views_has_images_again_and_in_the_other_view():
    model = build("crossgan")
    first, second = two_shown()
    page = model.presentation().pages()["cross_view"](first, second)
    columns = dict(zip(page.column_titles, tf.stack(page.rows, axis=1), strict=False))
    z, other = model.E1(first.images)[0], model.E2(second.images)[0]
    np.testing.assert_allclose(columns["in view 2"], model.g2(z), atol=1e-5)
    np.testing.assert_allclose(columns["in view 1"], model.g1(model.align(other)), atol=1e-5)
    assert "in view 2, searched" in columns and page.row_titles[1] == "identity 2, camera 1\nd"


def test_the_page_of_interpolations_goes_from_one_latent_to_the_next_in_either_view():
    model = build("crossgan")
    first, second = two_shown()
    page = model.presentation().pages()["interpolation"](first, second)
    z = model.E1(first.images)[0]
    assert page.row_titles[1] == "from identity 1, camera 1\nin view 2"
    np.testing.assert_allclose(page.rows[1][1], model.g2(z)[0], atol=1e-5)
    np.testing.assert_allclose(page.rows[1][-2], model.g2(z)[1], atol=1e-5)
    np.testing.assert_allclose(page.rows[2][0], first.images[1])
    np.testing.assert_allclose(page.rows[2][-1], first.images[0])


def test_the_page_of_the_prior_shows_one_latent_in_either_view():
    model = build("crossgan")
    page = model.presentation().pages()["prior"](*two_shown())
    assert len(page.rows) == 2 and len(page.rows[0]) == len(page.column_titles) == 4
    again = model.presentation().pages()["prior"](*two_shown())
    np.testing.assert_array_equal(page.rows[0], again.rows[0])
