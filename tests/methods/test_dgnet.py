"""DG-Net: its networks' forms, who is moved by which loss, every loss against plain NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import IDENTITIES, SIZE, batch_for, build, convolutions, eager_step, rows_of_four

from tf_reid.evaluation.feature_store import identifier
from tf_reid.methods import dgnet
from tf_reid.methods.dgnet_swaps import Codes, SwapBatch, generated_images
from tf_reid.networks import dgnet as networks
from tf_reid.networks import losses
from tf_reid.networks.backbones import maps_of, small
from tf_reid.networks.dgnet import discriminator_adversarial_loss, generator_adversarial_loss, scores_and_penalty
from tf_reid.networks.layers import ReflectPad, frozen
from tf_reid.pictures.page import CaptionedImages

RNG = np.random.default_rng(5)
FED, UNFED = {"fed": True}, {"fed": False}


def images(count=4):
    return tf.constant(RNG.uniform(-1, 1, (count, *SIZE, 3)), tf.float32)


def codes_of(model, pair):
    """Normalised images, their codes and the swaps, which carry gradients of the codes."""
    real = networks.to_imagenet(pair)
    appearance, structure = model.E_a(pair, training=True)[0], model.E_s(real)
    other = tf.concat([structure[len(pair) // 2 :], structure[: len(pair) // 2]], axis=0)
    return real, appearance, structure, model.G([appearance, other])


FOUR_IDENTITIES = tf.constant([0, 1, 2, 3])  # x_a of 0 and 1, x_b of 2 and 3
BATCH = SwapBatch(None, None, None, FOUR_IDENTITIES)


def code_losses(model, real, appearance, structure, swapped):
    """Of four images of four identities."""
    return model.code_losses(BATCH, real, Codes(appearance, None, structure), swapped, model.seen_in(swapped)[0])


def moved(model, stage, batch, step=0):
    """Players of whose trainable variables a step moves any, and the losses reported."""
    before = {player: [v.numpy() for v in model.variables_of(player)] for player in model.players()}
    found = eager_step(model, stage, batch, step)
    players = {
        player
        for player, old in before.items()
        if any((a != b.numpy()).any() for a, b in zip(old, model.variables_of(player), strict=True))
    }
    return players, set(found)


# ----------------------------------------------------------------- networks


def test_imagenet_scale_and_back():
    pixels = images()
    scaled = networks.to_imagenet(pixels)
    expected = ((pixels.numpy() + 1) / 2 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(scaled, expected, atol=1e-5)
    np.testing.assert_allclose(networks.from_imagenet(scaled), pixels, atol=1e-5)


@pytest.mark.parametrize("stripes", [False, True])
def test_the_appearance_code_is_the_maximum_of_four_stripes(stripes):
    keras.utils.set_random_seed(0)
    encoder = networks.appearance_encoder(maps_of(small((64, 32), last_stride=1)), stripes)
    pixels = tf.constant(RNG.uniform(-1, 1, (2, 64, 32, 3)), tf.float32)
    code, pooled = encoder(pixels)
    maps = keras.Model(
        encoder.input, next(t for t in (layer.output for layer in encoder.layers) if t.shape[1:] == (8, 4, 256))
    )
    last = [layer for layer in encoder.layers if getattr(layer.output, "shape", ())[1:] == (8, 4, 256)][-1]
    maps = keras.Model(encoder.input, last.output)(pixels).numpy()
    stripe = maps.reshape(2, 4, 2, 4, 256).max(axis=(2, 3))  # [B, 4, C]
    expected = stripe if stripes else stripe.transpose(0, 2, 1)
    np.testing.assert_allclose(code, expected.reshape(2, -1), atol=1e-6)
    np.testing.assert_allclose(pooled, maps.max(axis=(1, 2)), atol=1e-6)


def test_maps_that_cannot_be_cut_into_stripes_are_refused():
    with pytest.raises(ValueError, match=r"last maps are 2 high.*method\.last_stride=1"):
        networks.appearance_encoder(maps_of(small(SIZE)), False)


def test_the_last_stride_makes_maps_larger_and_weights_no_other():
    wide, narrow = small(SIZE, last_stride=1), small(SIZE)
    assert wide.layers[-1].input.shape[1:3] == (4, 2) and narrow.layers[-1].input.shape[1:3] == (2, 1)
    assert [w.shape for w in wide.weights] == [w.shape for w in narrow.weights]


def test_each_block_of_the_decoder_receives_its_quarter_of_the_code():
    keras.utils.set_random_seed(0)
    decoder = networks.decoder((8, 4, 16), 32)
    first_layers = [
        layer for layer in decoder.layers if isinstance(layer, keras.layers.Dense) and layer.kernel.shape[0] == 8
    ]
    assert len(first_layers) == 8
    structure = tf.constant(RNG.normal(size=(1, 8, 4, 16)), tf.float32)
    for quarter in range(4):
        code = np.zeros((1, 32), np.float32)
        code[:, 8 * quarter : 8 * quarter + 8] = 1.0
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(decoder([tf.constant(code), structure]) ** 2)
        gradients = tape.gradient(loss, [layer.kernel for layer in first_layers])
        reached = [bool(np.abs(g.numpy()).max() > 0) for g in gradients]
        assert reached == [block == quarter for block in range(4) for _ in range(2)]


def test_fewer_blocks_divide_the_code_among_them():
    def count(network, of_kind):
        return sum(isinstance(layer, of_kind) for layer in network.layers)

    decoder = networks.decoder((8, 4, 16), 32, blocks=2)
    assert count(decoder, networks.AdaptiveNorm) == 4
    inputs = [layer.kernel.shape[0] for layer in decoder.layers if isinstance(layer, keras.layers.Dense)]
    assert sorted(inputs) == 4 * [16] + 8 * [512]  # scale and shift of either block get half of the code
    of_structure, of_images = (
        [count(build(blocks), networks.Conv2D) for blocks in (4, 2)]
        for build in (
            lambda blocks: networks.structure_encoder(SIZE, 4, blocks),
            lambda blocks: networks.discriminator(SIZE, 4, 2, blocks),
        )
    )
    assert np.subtract(*of_structure) == 4  # two convolutions of each block
    assert np.subtract(*of_images) == 8  # the same, at two sizes


def test_the_structure_encoder_does_not_see_colour():
    encoder = networks.structure_encoder(SIZE, 4)
    colours = images(2).numpy()
    grey = np.repeat(colours.mean(axis=-1, keepdims=True), 3, axis=-1)
    np.testing.assert_allclose(encoder(colours), encoder(grey), atol=1e-4)
    assert encoder.output_shape[1:] == (8, 4, 16)


def test_a_structure_code_is_standardised_in_each_channel():
    code = networks.structure_encoder(SIZE, 4)(images(2)).numpy()
    np.testing.assert_allclose(code.mean(axis=(1, 2)), 0, atol=1e-4)
    np.testing.assert_allclose(code.std(axis=(1, 2)), 1, atol=1e-2)


def test_full_size_shapes_are_the_papers():
    """Without ResNet-50, whose 2048 channels the code's width stands for."""
    structure = networks.structure_encoder((256, 128), 32)
    assert structure.output_shape[1:] == (64, 32, 128)
    decoder = networks.decoder((64, 32, 128), 8192)
    assert decoder.output_shape[1:] == (256, 128, 3)
    discriminator = networks.discriminator((256, 128), 32, 3)
    assert [shape[1:] for shape in discriminator.output_shape] == [(64, 32, 1), (32, 16, 1), (16, 8, 1)]
    counts = [network.count_params() for network in (structure, decoder, discriminator)]
    assert counts == [380_544, 13_000_131, 1_025_571]
    convolutions = [layer for layer in structure.layers if isinstance(layer, keras.layers.Conv2D)]
    assert [conv.dilation_rate[0] for conv in convolutions if conv.dilation_rate[0] > 1] == [3, 6, 9]
    leaky = [
        layer
        for network in (structure, decoder, discriminator)
        for layer in network.layers
        if isinstance(layer, keras.layers.LeakyReLU)
    ]
    assert {layer.negative_slope for layer in leaky} == {0.2}
    sums = [
        [type(operation).__name__ for operation in network.operations].count("Add")
        for network in (structure, decoder, discriminator)
    ]
    assert sums == [4, 4, 12]  # residual blocks


def test_heads_start_as_the_authors_do():
    head, classifier = networks.embedding_head(2048, "head"), networks.classifier_head(200, 0.5, "classifier")
    for network, deviation in ((head, (2 / 512) ** 0.5), (classifier, 0.001)):
        kernel, bias = network.layers[-1 if network is classifier else 0].get_weights()
        np.testing.assert_allclose(kernel.std(), deviation, rtol=0.02)
        assert not bias.any()


def test_half_size_is_the_mean_of_the_pixels_that_there_are():
    x = RNG.normal(size=(1, 6, 4, 2)).astype(np.float32)
    found = networks.HalfSize()(x).numpy()
    for row in range(3):
        for column in range(2):
            rows, columns = (slice(max(2 * i - 1, 0), 2 * i + 2) for i in (row, column))
            np.testing.assert_allclose(found[0, row, column], x[0, rows, columns].mean(axis=(0, 1)), atol=1e-6)


@pytest.mark.parametrize("size", [(2, 2), (4, 2), (3, 4), (5, 7)])
def test_a_doubled_convolution_equals_upsampling_padding_and_a_convolution(size):
    x = tf.random.stateless_normal((2, *size, 3), [0, 1])
    conv = networks.DoubledConv(4, bias_initializer="normal")
    plain = keras.Sequential([keras.layers.UpSampling2D(2), ReflectPad(2), keras.layers.Conv2D(4, 5)])
    conv.build(x.shape), plain.build(x.shape)
    plain.set_weights(conv.get_weights())
    found = []
    for network in (conv, plain):
        with tf.GradientTape() as tape:
            tape.watch(x)
            made = network(x)
            loss = tf.reduce_sum(made**2)
        found.append([made, *tape.gradient(loss, [x, *(weight.value for weight in network.trainable_variables)])])
    for values, expected in zip(*found, strict=True):
        np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-3)
    assert conv.compute_output_shape(x.shape) == found[0][0].shape
    assert type(conv).from_config(conv.get_config()).filters == 4


def test_image_norm():
    x = RNG.normal(size=(2, 3, 4, 5)).astype(np.float32)
    norm = networks.ImageNorm()
    norm.build(x.shape)
    gamma, beta = RNG.uniform(size=(2, 5)).astype(np.float32)
    assert norm.gamma.numpy().min() >= 0 and norm.gamma.numpy().max() <= 1
    norm.gamma.assign(gamma), norm.beta.assign(beta)
    flat = x.reshape(2, -1)
    unit = (flat - flat.mean(1, keepdims=True)) / (flat.std(1, ddof=1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(norm(x), unit.reshape(x.shape) * gamma + beta, atol=1e-5)


def test_too_many_scales_are_refused():
    with pytest.raises(ValueError, match=r"method\.scales=3 needs 32 or more"):
        build("dgnet", scales=3)


def test_one_scale_is_scored_as_one_of_several_is():
    """Keras gives a single output without a list, whose rows must not be taken for scales."""
    model, real = build("dgnet", scales=1), networks.to_imagenet(images())
    scores, penalty = scores_and_penalty(model.D, real)
    assert [score.shape for score in scores] == [(4, 8, 4, 1)]
    with tf.GradientTape() as tape:
        tape.watch(real)
        score = model.D(real)
    by_hand = 2.0 * (tape.gradient(score, real).numpy() ** 2).sum(axis=(1, 2, 3)).mean()
    np.testing.assert_allclose(penalty, by_hand, rtol=1e-4)
    found = eager_step(model, "joint", rows_of_four(), step=5)
    # Scores are about zero as D is drawn: of real images (D - 1)^2 is about 1, of swaps D^2 about 0; both directions.
    np.testing.assert_allclose(found["discriminator/adversarial"], 2.0, atol=0.2)
    np.testing.assert_allclose(found["generator/adversarial"], 4.0, atol=0.4)


# ----------------------------------------------------------------- who is moved

ALL = {"appearance", "heads", "generator", "discriminator"}


NO_IDENTITIES = {"identity_weight": 0.0, "primary_weight": 0.0, "skipped": ("pretrain",)}


@pytest.mark.parametrize(
    ("stage", "changes", "expected"),
    [
        ("teacher", {}, {"teacher", "teacher_head"}),
        ("pretrain", {}, {"appearance", "heads"}),
        ("joint", {}, ALL),
        # Detached, E_a learns from identities alone: without Eq. 3, 8 and 9 nothing reaches it.
        ("joint", NO_IDENTITIES, {"generator", "discriminator"}),
        ("joint", {**NO_IDENTITIES, "detach_appearance": False}, ALL - {"heads"}),
    ],
)
def test_what_a_step_moves(stage, changes, expected):
    assert moved(build("dgnet", **changes), stage, batch_for("dgnet", stage, seed=0), step=5)[0] == expected


def test_before_the_warm_up_ends_nothing_is_fed_back():
    model = build("dgnet", warm_up=3)
    _, before = moved(model, "joint", rows_of_four(), step=2)
    _, after = moved(model, "joint", rows_of_four(), step=3)
    fed = {"generator/appearance_code", "generator/structure_code", "generator/cycle"}
    fed |= {f"{player}/{name}" for player in ("appearance", "heads") for name in ("primary", "fine", "fine_of_real")}
    assert after - before == fed and before < after


def test_weights_grow_from_the_end_of_the_warm_up():
    model = build("dgnet", warm_up=10, ramp=0.25)
    found = []
    for step in (10, 11, 13, 50):
        model.step.assign(step)
        found.append(float(model._ramped(1.0)))
    assert found == [0.25, 0.5, 1.0, 1.0]


def test_the_generator_is_moved_by_no_feature_learning():
    """E_s and G end where they end without Eq. 3, 8 and 9, and E_a where it ends without Eq. 1, 2, 4, 5, 6 and 7."""

    def after(**changes):
        model = build("dgnet", **changes)
        eager_step(model, "joint", rows_of_four(), step=5)
        players = ("generator", "appearance", "heads")
        return {player: [v.numpy() for v in model.variables_of(player)] for player in players}

    def check_equal(player, some, others):
        for a, b in zip(some[player], others[player], strict=True):
            np.testing.assert_allclose(a, b, atol=1e-7)

    whole = after()
    check_equal("generator", whole, after(**NO_IDENTITIES))
    images_off = {
        "cycle_weight": 0.0,
        "generated_identity_weight": 0.0,
        "adversarial_weight": 0.0,
        "image_weight": 1e-9,
    }
    images_off |= {"appearance_code_weight": 0.0, "structure_code_weight": 0.0}
    without_images = after(**images_off)
    for player in ("appearance", "heads"):
        check_equal(player, whole, without_images)


@pytest.mark.parametrize("phase", [FED, UNFED])
def test_running_statistics_see_swaps_where_features_learn_of_them(phase):
    model = build("dgnet")
    model.phase, before = phase, [v.numpy() for v in model.E_a.non_trainable_variables]
    given = codes_of(model, images())
    settled = [v.numpy() for v in model.E_a.non_trainable_variables]
    assert any((a != b).any() for a, b in zip(before, settled, strict=True))  # a call in training mode does see them
    of_head = [v.numpy() for v in model.primary.non_trainable_variables]
    code_losses(model, *given)
    same = [(a == b.numpy()).all() for a, b in zip(settled, model.E_a.non_trainable_variables, strict=True)]
    assert all(same) != phase["fed"]
    assert all((a == b.numpy()).all() for a, b in zip(of_head, model.primary.non_trainable_variables, strict=True))


def test_running_statistics_of_the_heads_see_images_as_they_are():
    model = build("dgnet")
    mean = model.fine.layers[-1].moving_mean
    before = mean.numpy()
    with tf.GradientTape() as tape:
        model.appearance_codes(images(), tape)
    assert (mean.numpy() != before).any()


def test_swaps_looked_at_once_teach_as_if_looked_at_twice(monkeypatch):
    """Detached codes leave features' losses no way through a swap into E_a: one call serves G and the heads."""

    def after(twice):
        model = build("dgnet")
        if twice:
            monkeypatch.setattr(
                model,
                "seen_in",
                lambda swapped: (
                    frozen(model.E_a, networks.from_imagenet(swapped), training=True),
                    model.E_a(networks.from_imagenet(tf.stop_gradient(swapped)), training=True)[1],
                ),
            )
        eager_step(model, "joint", rows_of_four(), step=5)
        return [v.numpy() for v in model.weights]

    for once, twice in zip(after(False), after(True), strict=True):
        np.testing.assert_allclose(once, twice, atol=1e-6)


def test_swaps_reach_e_a_apart_where_losses_of_images_train_it():
    """Not detached: G learns through a frozen E_a, and the heads' losses have no way through a swap."""
    model = build("dgnet", detach_appearance=False)
    model.phase, swapped, weights = FED, networks.to_imagenet(images()), model.variables_of("appearance")
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(swapped)
        seen, pooled = model.seen_in(swapped)
    assert np.any(tape.gradient(seen[0], swapped)) and all(g is None for g in tape.gradient(seen[0], weights))
    assert tape.gradient(pooled, swapped) is None and np.any(tape.gradient(pooled, weights[0]))


def test_three_images_of_a_structure_share_what_needs_no_appearance():
    """Images and gradients are those of three calls of the whole G."""
    model = build("dgnet")
    a, p = (tf.constant(RNG.normal(size=(4, model.G.inputs[0].shape[1])), tf.float32) for _ in range(2))
    s = tf.constant(RNG.normal(size=(4, *model.G.inputs[1].shape[1:])), tf.float32)
    results = []
    for joined in (True, False):
        with tf.GradientTape() as tape:
            tape.watch([a, p, s])
            if joined:
                made = generated_images(model.parts_of_G, Codes(appearance=a, positive_appearance=p, structure=s))
            else:
                made = model.G([a, s]), model.G([p, s]), model.G([a, tf.concat([s[2:], s[:2]], axis=0)])
            loss = sum(i * tf.reduce_mean(images**2) for i, images in enumerate(made, start=1))
        results.append([*made, *tape.gradient(loss, [a, p, s, *model.variables_of("generator")])])
    for joined, apart in zip(*results, strict=True):
        if apart is not None:  # E_s has made none of these codes
            np.testing.assert_allclose(joined, apart, atol=1e-4 * np.abs(apart).max() + 1e-6)


def test_a_step_calls_its_networks_no_more_often_than_it_must(monkeypatch):
    """Counted in convolutions of the traced step. Batch norm takes E_a's and the teacher's batches apart."""
    model, batch = build("dgnet"), rows_of_four()
    model.begin("joint")
    model.phase = FED
    monkeypatch.setattr(model, "minimize", lambda *_: None)  # tracing the gradients takes long
    found = convolutions(tf.function(model.joint_step).get_concrete_function(batch))
    calls = {model.E_a: 3, model.E_s: 2, model.G: 2, model.D: 3, model.teacher.backbone: 2}

    def once(network):
        given = [tf.TensorSpec((4, *tensor.shape[1:])) for tensor in network.inputs]
        return convolutions(
            tf.function(lambda *x: network(list(x) if len(x) > 1 else x[0])).get_concrete_function(*given)
        )

    assert found == sum(times * once(network) for network, times in calls.items())


def test_pretraining_without_identities_is_refused():
    with pytest.raises(ValueError, match=r"stages\.pretrain\.steps=0"):
        build("dgnet", identity_weight=0.0)


def test_every_loss_of_a_fed_step_is_of_the_right_images_and_identities():
    """All that a step reports, by hand: which codes meet in a swap, whose labels count, in what order players move."""
    changes = {"erasing": 0.0, "learning_rate": 0.05, "teacher_style": "appearance"}
    model, twin = (build("dgnet", **changes) for _ in range(2))
    for each in (model, twin):
        for variable in each.D.trainable_variables:
            if variable.path.endswith("kernel"):  # as it is drawn, D's scores hardly depend on images
                variable.assign(8.0 * variable)
        each.begin("joint")
        each.step.assign(5)
    batch = rows_of_four()
    x_a, x_b, x_pa, x_pb = (batch["source"][:, i] for i in range(4))
    y_a, y_b = batch["source_identity"][:, 0], batch["source_identity"][:, 1]
    twin.phase = FED
    codes = twin.E_a(tf.concat([x_a, x_b, x_pa, x_pb], axis=0), training=True)[0]
    a_a, a_b, a_pa, a_pb = tf.split(codes, 4)
    real_a, real_b = networks.to_imagenet(x_a), networks.to_imagenet(x_b)
    s_a, s_b = twin.E_s(real_a), twin.E_s(real_b)
    x_ba, x_ab = twin.G([a_a, s_b]), twin.G([a_b, s_a])

    def l1(a, b):
        return np.abs(np.asarray(a) - np.asarray(b)).mean()

    def cross_entropy(logits, identities):
        return float(tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(identities, logits)))

    def logits_of(head, classifier, pooled):
        return classifier(head(pooled, training=True), training=True)

    swaps = tf.concat([x_ba, x_ab], axis=0)
    codes_found, pooled = twin.E_a(networks.from_imagenet(swaps), training=True)
    of_ba, of_ab = tf.split(codes_found, 2)
    _, real_pooled = twin.E_a(tf.concat([x_a, x_b, x_pa, x_pb], axis=0), training=True)
    wearers, shapes = tf.concat([y_a, y_b], axis=0), tf.concat([y_b, y_a], axis=0)
    primary = logits_of(twin.primary, twin.primary_classifier, pooled)
    fine = logits_of(twin.fine, twin.fine_classifier, pooled)
    of_real = logits_of(twin.primary, twin.primary_classifier, real_pooled)
    fine_of_real = logits_of(twin.fine, twin.fine_classifier, real_pooled[: 2 * len(x_a)])
    real = tf.concat([real_a, real_b], axis=0)
    scores, made_scores = twin.D(real), twin.D(swaps)
    expected = {
        "generator/reconstruction": 5 * (l1(twin.G([a_a, s_a]), real_a) + l1(twin.G([a_b, s_b]), real_b)),
        "generator/reconstruction_by_positive": 5 * (l1(twin.G([a_pa, s_a]), real_a) + l1(twin.G([a_pb, s_b]), real_b)),
        "generator/generated_identity": 0.5 * 2 * cross_entropy(primary, wearers),
        "generator/appearance_code": l1(of_ba, a_a) + l1(of_ab, a_b),
        "generator/structure_code": l1(twin.E_s(x_ba), s_b) + l1(twin.E_s(x_ab), s_a),
        "generator/cycle": 2
        * (l1(twin.G([of_ba, twin.E_s(x_ab)]), real_a) + l1(twin.G([of_ab, twin.E_s(x_ba)]), real_b)),
        "appearance/identity": 4 * cross_entropy(of_real, tf.concat([wearers, wearers], axis=0)),
        "appearance/primary": 2 * 2 * cross_entropy(primary, wearers),  # one-hot labels have no entropy
        "appearance/fine": 2 * 0.2 * 2 * cross_entropy(fine, shapes),
        "appearance/fine_of_real": 2 * 0.2 * 2 * cross_entropy(fine_of_real, wearers),
        "discriminator/adversarial": discriminator_adversarial_loss(scores, made_scores),
        "discriminator/gradient_penalty": 0.01 * scores_and_penalty(twin.D, real)[1],
    }
    for_heads = {name.replace("appearance/", "heads/"): v for name, v in expected.items() if name.startswith("app")}
    twin._update_discriminator(real, tf.stop_gradient(swaps))
    before, expected["generator/adversarial"] = (
        float(generator_adversarial_loss(made_scores)),
        float(generator_adversarial_loss(twin.D(swaps))),
    )
    assert (
        abs(before - expected["generator/adversarial"]) > 1e-2 * before
    )  # else the order of the players would not show
    found = eager_step(model, "joint", batch, step=5)
    assert set(found) == set(expected | for_heads)
    for name, value in (expected | for_heads).items():
        np.testing.assert_allclose(found[name], value, rtol=2e-3, err_msg=name)


def test_identities_are_learned_of_erased_images_and_codes_of_whole_ones():
    whole, erased = (eager_step(build("dgnet", erasing=share), "joint", rows_of_four(), step=5) for share in (0.0, 1.0))
    np.testing.assert_allclose(whole["generator/reconstruction"], erased["generator/reconstruction"], rtol=1e-5)
    assert abs(float(whole["appearance/identity"] - erased["appearance/identity"])) > 1e-4


def test_dropout_acts_where_heads_learn_and_where_nothing_learns_it_does_not():
    """In Eq. 3, 8 and 9; not where the primary head judges swaps for G (Eq. 6), nor in what a teacher answers."""
    model = built_with_a_sure_teacher(dropout=0.5, fine_dropout=0.5, teacher_dropout=0.5)
    for head in (model.primary_classifier, model.fine_classifier):
        head.layers[-1].kernel.assign(100.0 * head.layers[-1].kernel)
    model.phase = FED
    batch = SwapBatch.of(rows_of_four())
    real, appearance, structure, swapped = codes_of(model, batch.pair)

    def terms():
        learned, pooled = model.identity_losses(batch)
        seen = model.seen_in(swapped)
        learned = learned | model.fed_losses(batch, batch.pair, seen[1], pooled)
        learned["teacher"] = model.teacher.identity_loss(batch.pair, batch.pair_identities)
        labels = model.teacher_labels(batch, batch.pair)
        judged = model.code_losses(batch, real, Codes(appearance, None, structure), swapped, seen[0])
        return learned, {"labels": labels, "generated_identity": judged["generated_identity"]}

    (learned, fixed), (learned_again, fixed_again) = terms(), terms()
    assert set(learned) == {"identity", "primary", "fine", "fine_of_real", "teacher"}
    for name, value in learned.items():
        assert abs(float(value - learned_again[name])) > 1e-3, name
    for name, value in fixed.items():
        np.testing.assert_allclose(value, fixed_again[name], atol=1e-6, err_msg=name)


@pytest.mark.parametrize(("code_gradient", "reaches"), [("paper", True), ("released", False)])
def test_eq_4_teaches_the_generator_as_the_paper_has_it_and_nobody_as_released(code_gradient, reaches):
    model = build("dgnet", code_gradient=code_gradient)
    model.phase = FED
    model.step.assign(5)
    with tf.GradientTape(persistent=True) as tape:
        found = code_losses(model, *codes_of(model, images()))["appearance_code"]
    gradients = tape.gradient(found, model.G.trainable_variables)
    assert float(found) > 0
    assert any(g is not None and np.abs(g.numpy()).max() > 0 for g in gradients) == reaches


def test_eq_6_teaches_the_generator_through_a_frozen_encoder():
    model = build("dgnet")
    model.phase = UNFED
    real, appearance, structure, swapped = codes_of(model, images())
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(swapped)
        found = code_losses(model, real, appearance, structure, swapped)["generated_identity"]
    assert np.abs(tape.gradient(found, swapped).numpy()).max() > 0
    assert all(g is None for g in tape.gradient(found, model.variables_of("appearance")))
    # The identities are those of the appearance: the loss is that of these labels and no others.
    found_by_hand = model.primary_classifier(
        model.primary(model.E_a(networks.from_imagenet(swapped), training=True)[1], training=True)
    )
    by_hand = 0.5 * 2 * losses.identification(found_by_hand, tf.constant([0, 1, 2, 3]))
    np.testing.assert_allclose(found, by_hand, rtol=1e-4)


@pytest.mark.parametrize("coin", [0.0, 1.0])
def test_eq_5_teaches_either_the_encoder_or_the_image(coin, monkeypatch):
    model = build("dgnet")
    model.phase = FED
    model.step.assign(5)
    monkeypatch.setattr(dgnet, "uniform", lambda shape, seed: tf.constant(coin))
    real, appearance, structure, swapped = codes_of(model, images())
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([swapped, appearance, structure])
        terms = code_losses(model, real, appearance, structure, swapped)
    found = terms["structure_code"]
    to_image = np.abs(tape.gradient(found, swapped).numpy()).max()
    to_encoder = max(
        np.abs(g.numpy()).max() for g in tape.gradient(found, model.E_s.trainable_variables) if g is not None
    )
    assert (to_image > 0, to_encoder > 0) == (coin == 1.0, coin == 0.0)
    # The codes that a swap is to keep are constants, and so is a swap's appearance in the cycle.
    assert tape.gradient(terms["appearance_code"], appearance) is None and tape.gradient(found, structure) is None
    cycle_to_image = tape.gradient(terms["cycle"], swapped, unconnected_gradients="zero")
    assert (np.abs(cycle_to_image).max() > 0) == (coin == 1.0)
    assert all(np.any(g) for g in tape.gradient(terms["cycle"], model.G.trainable_variables[:2]))


# ----------------------------------------------------------------- losses


def test_code_losses_equal_the_equations():
    model = build("dgnet", appearance_code_weight=3.0, structure_code_weight=4.0, cycle_weight=5.0, ramp=100.0)
    model.phase = FED
    model.step.assign(5)
    real, appearance, structure, swapped = codes_of(model, images())
    found = code_losses(model, real, appearance, structure, swapped)
    again = model.E_a(networks.from_imagenet(swapped), training=True)[0].numpy()
    np.testing.assert_allclose(found["appearance_code"], 3 * 2 * np.abs(again - appearance).mean(), rtol=1e-4)
    order = [2, 3, 0, 1]  # x_ba has the structure of x_b
    seen = model.E_s(swapped).numpy()
    np.testing.assert_allclose(
        found["structure_code"], 4 * 2 * np.abs(seen - structure.numpy()[order]).mean(), rtol=1e-4
    )
    back = model.G([again, seen[order]]).numpy()
    np.testing.assert_allclose(found["cycle"], 5 * 2 * np.abs(back - real).mean(), rtol=1e-4)
    model.ramp = 0.25  # at the sixth step 1.5
    growing = code_losses(model, real, appearance, structure, swapped)
    for name, weight in (("appearance_code", 3), ("structure_code", 4), ("cycle", 5), ("generated_identity", 1.5)):
        np.testing.assert_allclose(growing[name], 1.5 / weight * found[name], rtol=1e-4, err_msg=name)


def test_a_step_reports_the_images_losses_of_the_equations():
    model = build("dgnet", erasing=0.0, image_weight=7.0)
    batch = rows_of_four()
    pair = tf.concat([batch["source"][:, 0], batch["source"][:, 1]], axis=0)
    positive = tf.concat([batch["source"][:, 2], batch["source"][:, 3]], axis=0)
    real = networks.to_imagenet(pair)
    codes = model.E_a(tf.concat([pair, positive], axis=0), training=True)[0]
    structure = model.E_s(real)
    expected = {
        "generator/reconstruction": 7 * 2 * np.abs(model.G([codes[:4], structure]) - real).mean(),
        "generator/reconstruction_by_positive": 7 * 2 * np.abs(model.G([codes[4:], structure]) - real).mean(),
    }
    found = eager_step(model, "joint", batch)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-3)


def test_adversarial_losses_equal_least_squares_over_scales():
    real, fake = ([RNG.normal(size=(4, s, s, 1)).astype(np.float32) for s in (4, 2)] for _ in range(2))
    both_directions = sum(((r - 1) ** 2).mean() + (f**2).mean() for r, f in zip(real, fake, strict=True)) * 2
    np.testing.assert_allclose(discriminator_adversarial_loss(real, fake), both_directions, rtol=1e-5)
    np.testing.assert_allclose(
        generator_adversarial_loss(fake), 2 * 2 * sum(((f - 1) ** 2).mean() for f in fake), rtol=1e-5
    )


def test_the_gradient_penalty_is_that_of_each_scale_alone():
    weights = [RNG.normal(size=(4, 3, 3)).astype(np.float32) for _ in range(2)]
    real = tf.constant(RNG.normal(size=(5, 4, 3, 3)), tf.float32)

    def linear(x):
        return [tf.reduce_sum(x * w, axis=(1, 2, 3)) for w in weights]

    np.testing.assert_allclose(scores_and_penalty(linear, real)[1], 2 * sum((w**2).sum() for w in weights), rtol=1e-5)


def test_the_penalty_reaches_the_discriminators_weights():
    model = build("dgnet")
    with tf.GradientTape() as tape:
        penalty = scores_and_penalty(model.D, networks.to_imagenet(images()))[1]
    gradients = tape.gradient(penalty, model.D.trainable_variables)
    kernels = [g for g, v in zip(gradients, model.D.trainable_variables, strict=True) if v.path.endswith("kernel")]
    assert all(g is not None and np.isfinite(g.numpy()).all() for g in kernels)


def test_a_step_of_the_discriminator_lowers_its_penalty():
    model = build("dgnet", adversarial_weight=0.0, penalty_weight=1.0, learning_rate=1e-4)
    for variable in model.D.trainable_variables:
        if variable.path.endswith("kernel"):
            variable.assign(8.0 * variable)
    model.begin("joint")
    real = networks.to_imagenet(images())
    before = float(scores_and_penalty(model.D, real)[1])
    model._update_discriminator(real, real)
    assert float(scores_and_penalty(model.D, real)[1]) < before


def test_players_of_the_adversary_pull_apart():
    """D's own step raises the scores of real images over those of swaps; a step of G's raises those of swaps."""
    model = build("dgnet", learning_rate=1e-4, penalty_weight=0.0)
    for variable in model.D.trainable_variables:
        if variable.path.endswith("kernel"):  # as it is drawn, D's scores hardly depend on images
            variable.assign(10.0 * variable)
    real, _, _, swapped = codes_of(model, images())

    def gap():
        pairs = zip(model.D(real), model.D(swapped), strict=True)
        return sum(float(tf.reduce_mean(r) - tf.reduce_mean(s)) for r, s in pairs)

    model.begin("joint")
    before = gap()
    for _ in range(5):
        model._update_discriminator(real, swapped)
    assert gap() > before
    seen = tf.Variable(swapped)
    with tf.GradientTape() as tape:
        loss = generator_adversarial_loss(model.D(seen))
    before = sum(float(tf.reduce_mean(s)) for s in model.D(seen))
    gradient = tape.gradient(loss, seen)
    seen.assign_sub(0.1 * gradient / tf.reduce_max(tf.abs(gradient)))
    assert sum(float(tf.reduce_mean(s)) for s in model.D(seen)) > before


def test_fed_losses_equal_the_equations():
    model = built_with_a_sure_teacher(primary_weight=3.0, fine_ratio=0.5, ramp=100.0)
    model.step.assign(5)
    swapped = images()
    pooled = model.E_a(images(8), training=True)[1]
    seen = model.E_a(swapped, training=True)[1]
    found = model.fed_losses(BATCH, swapped, seen, pooled)

    def log_softmax(head, classifier, rows):
        logits = classifier(head(rows, training=True)).numpy()
        return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))

    q = labels_of(model, swapped)
    log_p = log_softmax(model.primary, model.primary_classifier, seen)
    divergence = (q * (np.log(np.maximum(q, 1e-30)) - log_p)).sum(axis=1).mean()
    np.testing.assert_allclose(found["primary"], 3 * 2 * divergence, rtol=1e-4)
    fine = log_softmax(model.fine, model.fine_classifier, seen)
    np.testing.assert_allclose(found["fine"], -3 * 0.5 * 2 * fine[range(4), [2, 3, 0, 1]].mean(), rtol=1e-4)
    real = log_softmax(model.fine, model.fine_classifier, pooled[:4])
    np.testing.assert_allclose(found["fine_of_real"], -3 * 0.5 * 2 * real[range(4), [0, 1, 2, 3]].mean(), rtol=1e-4)
    model.ramp = 0.25  # at the sixth step 1.5, half of the weight
    growing = model.fed_losses(BATCH, swapped, seen, pooled)
    for name, value in found.items():
        np.testing.assert_allclose(growing[name], 0.5 * value, rtol=1e-4, err_msg=name)


def built_with_a_sure_teacher(**changes):
    """As it is drawn, a teacher's labels are nearly uniform."""
    model = build("dgnet", **changes)
    kernel = model.teacher.classifier.layers[-1].kernel
    kernel.assign(100.0 * kernel)
    return model


def labels_of(model, swapped):
    return model.teacher_labels(BATCH, swapped).numpy()


def test_teacher_labels():
    swapped, model = images(), built_with_a_sure_teacher()
    teacher, soft = model.teacher, labels_of(model, swapped)

    def labels_by(style):
        model.teacher_style = style
        return labels_of(model, swapped)

    def logits(view):
        return teacher.classifier(teacher.embedding(teacher.backbone(view, training=True), training=True))

    by_hand = sum(tf.nn.softmax(logits(view)).numpy() for view in (swapped, swapped[:, :, ::-1])) / 2
    np.testing.assert_allclose(soft, by_hand, atol=1e-5)
    np.testing.assert_allclose(soft.sum(axis=1), 1, atol=1e-5)
    assert build("dgnet", teacher_style="hard").teacher_style == "hard"
    found = {style: labels_by(style) for style in ("hard", "appearance", "uniform", "both")}
    one_hot = np.eye(IDENTITIES)
    np.testing.assert_array_equal(found["hard"], one_hot[soft.argmax(axis=1)])
    np.testing.assert_array_equal(found["appearance"], one_hot[[0, 1, 2, 3]])
    np.testing.assert_allclose(found["uniform"], np.full((4, IDENTITIES), 1 / IDENTITIES), atol=1e-7)
    between = soft * (one_hot[[0, 1, 2, 3]] + one_hot[[2, 3, 0, 1]])
    np.testing.assert_allclose(found["both"], between / between.sum(axis=1, keepdims=True), atol=1e-5)


def test_the_teacher_is_moved_in_its_stage_alone():
    model = build("dgnet")
    before = [v.numpy() for v in model.teacher.weights]
    moved(model, "joint", rows_of_four(), step=5)
    assert all((a == b.numpy()).all() for a, b in zip(before, model.teacher.weights, strict=True))


# ----------------------------------------------------------------- what is scored


def test_the_representation_is_both_features_of_image_and_mirror_image():
    model = build("dgnet", fine_at_test=0.25)
    pixels = images()

    def unit(rows):
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def feature(head):
        return unit(sum(unit(head(model.E_a(view)[1]).numpy()) for view in (pixels, pixels[:, :, ::-1])))

    other = build("dgnet", fine_at_test=0.5).encoders()["image"]  # features are kept by what identifies an encoder
    assert identifier(model.encoders()["image"]) != identifier(other)
    expected = np.concatenate([feature(model.primary), 0.5 * feature(model.fine)], axis=1)
    found = model.encoders()["image"](pixels).numpy()
    assert found.shape == (4, 1024)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    # A product of two such rows is cos of the primary ones and a quarter of that of the fine-grained ones.
    np.testing.assert_allclose(
        found @ found.T,
        feature(model.primary) @ feature(model.primary).T + 0.25 * feature(model.fine) @ feature(model.fine).T,
        atol=1e-5,
    )


def built_with_a_trained_teacher(**changes):
    model = build("dgnet", **changes)
    model.teacher.embedding(tf.ones((2, 256)), training=True)  # its batch norm has seen images
    return model


def test_without_fed_images_only_the_primary_feature_is_scored():
    assert set(built_with_a_trained_teacher().representations()) == {"raw", "primary", "fine", "teacher"}
    for changes in ({"primary_weight": 0.0}, {"warm_up": 10}, {"skipped": ("teacher", "joint")}):
        model = built_with_a_trained_teacher(**changes)
        assert set(model.representations()) == {"raw", "teacher"} - set(changes.get("skipped", ()))
        assert model.encoders()["image"].output_shape == (None, 512)


def test_what_is_scored_is_built_once():
    """A model that is built anew is traced anew at every evaluation."""
    model = built_with_a_trained_teacher()
    first, again = ({name: one.encoders["image"] for name, one in model.representations().items()} for _ in range(2))
    assert list(first) == ["raw", "primary", "fine", "teacher"]
    assert all(again[name] is encoder for name, encoder in first.items())


def test_training_overfits_one_batch():
    model = build("dgnet", optimizer="adam", learning_rate=0.002, warm_up=1000)
    model.begin("joint")
    batch = rows_of_four()
    plain = tf.image.resize(tf.reshape(batch["source"], (-1, *SIZE, 3))[:, :4, :2], SIZE, "nearest")  # no noise
    batch["source"] = tf.reshape(plain, batch["source"].shape)
    batches = iter(tf.data.Dataset.from_tensors(batch).repeat())
    first = model.advance(batches)[1]
    for _ in range(180):
        last = model.advance(batches)[1]
    assert float(last["generator/reconstruction"]) < 0.7 * float(first["generator/reconstruction"])
    assert float(last["appearance/identity"]) < 0.3 * float(first["appearance/identity"])


# ----------------------------------------------------------------- pages


def test_the_page_of_swaps_has_a_row_an_appearance_and_a_column_a_structure():
    model = build("dgnet")
    first, second = (CaptionedImages(images(2), [f"identity {i}, camera 1" for i in who]) for who in ((1, 2), (3, 4)))
    page = model.presentation().pages()["swaps"](first, second)
    for row in range(2):
        np.testing.assert_allclose(page.rows[row + 1][0], first.images[row])
        for column in range(2):
            np.testing.assert_allclose(page.rows[0][column + 1], second.images[column])
            one = model.presentation().composed(first.images[row : row + 1], second.images[column : column + 1])[0]
            np.testing.assert_allclose(page.rows[row + 1][column + 1], one, atol=1e-4)
    assert "identity 2" in page.row_titles[2] and "identity 3" in page.column_titles[1]


def test_the_page_of_interpolations_goes_from_one_appearance_to_the_other():
    model = build("dgnet")
    first, second = (CaptionedImages(images(2), ["", ""]) for _ in range(2))
    page = model.presentation().pages()["interpolation"](first, second)
    np.testing.assert_allclose(page.rows[0][1], model.presentation().composed(first.images, first.images)[0], atol=1e-4)
    np.testing.assert_allclose(
        page.rows[0][-2], model.presentation().composed(second.images, first.images)[0], atol=1e-4
    )
    assert len(page.column_titles) == len(page.rows[0])
