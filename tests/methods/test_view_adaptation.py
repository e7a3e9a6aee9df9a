"""View adaptation: which loss moves whom, in which order, by which sign; every loss against plain NumPy."""

import numpy as np
import pytest
import tensorflow as tf
from conftest import IDENTITIES, SIZE, build, stage_configs

from tf_reid.config import ConfigError
from tf_reid.methods.view_adaptation import view_loss
from tf_reid.networks import losses
from tf_reid.networks.backbones import BACKBONES
from tf_reid.networks.layers import BatchNormalization
from tf_reid.settings import EarlyStop

RNG = np.random.default_rng(3)


def batch(pairs=4, seed=0):
    rng = np.random.default_rng(seed)
    identity = np.repeat(rng.permutation(IDENTITIES)[: pairs // 2], 2)
    return {
        "source": tf.constant(rng.uniform(-1, 1, (pairs, 2, *SIZE, 3)), tf.float32),
        "source_identity": tf.constant(np.stack([identity, identity], axis=1), tf.int64),
    }


def changed(model, stage, **calls):
    """Networks whose trainable variables a step of the stage moves."""
    networks = model.networks() | {"heads": model.heads[0], "other head": model.heads[1]}
    before = {name: [v.numpy() for v in network.trainable_variables] for name, network in networks.items()}
    model.begin(stage)
    losses_found = model.advance(iter(tf.data.Dataset.from_tensors(batch())))[1]
    moved = {
        name
        for name, old in before.items()
        if any((a != b.numpy()).any() for a, b in zip(old, networks[name].trainable_variables, strict=True))
    }
    return moved, losses_found


@pytest.mark.parametrize(
    ("stage", "expected"),
    [
        ("finetune", {"M_s", "M_t", "heads", "other head"}),
        ("similarity", {"M_s", "M_t", "D_s"}),
        ("adversarial", {"M_s", "M_t", "D_s", "D_d"}),
    ],
)
def test_what_a_stage_moves(stage, expected):
    assert changed(build("view_adaptation"), stage)[0] == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"literal_alg1": True}, {"M_s", "M_t", "D_d"}),
        ({"literal_alg1": True, "adaptation": "adda"}, {"M_t", "D_d"}),
        ({"adaptation": "none"}, {"M_s", "M_t", "D_s", "D_d"}),
        ({"literal_alg1": True, "adaptation": "mmd"}, {"M_s", "M_t", "D_d"}),
    ],
)
def test_what_variants_move(changes, expected):
    assert changed(build("view_adaptation", **changes), "adversarial")[0] == expected


def test_an_iteration_reports_what_it_minimised():
    _, reported = changed(build("view_adaptation"), "adversarial")
    of_mappings = {"mappings/confusion", "mappings/match", "mappings/contrastive"}
    assert set(reported) == {"view/view", "view/accuracy", "similarity/match"} | of_mappings
    _, reported = changed(build("view_adaptation", adaptation="none"), "adversarial")
    assert set(reported) == {"view/view", "view/accuracy", "similarity/match"} | of_mappings - {"mappings/confusion"}


def test_the_three_updates_come_in_their_order():
    """D_d first, confusion against D_d as it then stands, matching with the mappings as they then stand."""
    model, by_hand = build("view_adaptation"), build("view_adaptation")
    model.begin("adversarial")
    reported = model.advance(iter(tf.data.Dataset.from_tensors(batch())))[1]
    probe_is, gallery_is = (tf.argmax(by_hand.D_d(rows), axis=1) for rows in by_hand.mapped(batch()))
    right = np.concatenate([probe_is.numpy() == 1, gallery_is.numpy() == 0]).mean()
    np.testing.assert_allclose(reported["view/accuracy"], right)

    def descend(loss_of, *networks):
        variables = [v for network in networks for v in network.trainable_variables]
        with tf.GradientTape() as tape:
            loss = loss_of(*by_hand.mapped(batch()))
        for variable, gradient in zip(variables, tape.gradient(loss, variables), strict=True):
            variable.assign_sub(0.01 * gradient)

    mappings, identities = [by_hand.M_s, by_hand.M_t], batch()["source_identity"][:, 0]
    descend(lambda probe, gallery: view_loss(by_hand.D_d(probe), by_hand.D_d(gallery)), by_hand.D_d)
    descend(lambda probe, gallery: by_hand.adaptation_losses(probe, gallery)["confusion"], *mappings)
    descend(lambda p, g: sum(by_hand.matching_losses(p, g, identities).values()), *mappings, by_hand.D_s)
    for name, network in model.networks().items():
        for a, b in zip(network.trainable_variables, by_hand.networks()[name].trainable_variables, strict=True):
            np.testing.assert_allclose(a.numpy(), b.numpy(), atol=1e-5, err_msg=f"{name}: {a.path}")


def test_mappings_learn_in_training_mode_and_validate_in_inference():
    model = build("view_adaptation")
    views = batch()["source"][:, 0], batch()["source"][:, 1]

    def statistics():
        return [v.numpy() for m in (model.M_s, model.M_t) for v in m.non_trainable_variables]

    def same(before):
        return all((a == b).all() for a, b in zip(before, statistics(), strict=True))

    before = statistics()
    found = model.mapped(batch())
    assert not same(before)
    for network, images, features in zip((model.M_s, model.M_t), views, found, strict=True):
        np.testing.assert_allclose(features, network(images, training=True), atol=1e-5)
    before = statistics()
    features = model.M_s(views[0]), model.M_t(views[1])
    expected = sum(model.matching_losses(*features, batch()["source_identity"][:, 0]).values())
    np.testing.assert_allclose(model.validation_loss(batch()), expected, rtol=1e-5)
    assert same(before)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_view_losses_equal_the_equations():
    probe, gallery = RNG.normal(size=(2, 5, 2)).astype(np.float32)
    d_probe, d_gallery = (sigmoid(logits[:, 1] - logits[:, 0]) for logits in (probe, gallery))
    eq_1 = -np.log(d_probe).mean() - np.log(1 - d_gallery).mean()
    np.testing.assert_allclose(view_loss(tf.constant(probe), tf.constant(gallery)), eq_1, rtol=1e-5)
    model = build("view_adaptation", adaptation_weight=2.0)
    monkey = {"probe": tf.constant(probe), "gallery": tf.constant(gallery)}
    model.D_d = lambda rows: rows
    eq_3 = sum(-0.5 * np.log(d).mean() - 0.5 * np.log(1 - d).mean() for d in (d_probe, d_gallery))
    np.testing.assert_allclose(model.adaptation_losses(**monkey)["confusion"], 2 * eq_3, rtol=1e-5)
    model.adaptation = "adda"
    np.testing.assert_allclose(model.adaptation_losses(**monkey)["adda"], -2 * np.log(d_gallery).mean(), rtol=1e-5)


def test_confusion_leads_the_mappings_away_from_what_tells_views_apart():
    """Descending Eq. 3 raises Eq. 1, D_d held."""
    model = build("view_adaptation")
    features = [tf.Variable(tf.constant(RNG.normal(size=(6, model.M_s.output_shape[-1])), tf.float32)) for _ in "ab"]
    for _ in range(30):  # a D_d that has learned these features
        with tf.GradientTape() as tape:
            loss = view_loss(model.D_d(features[0]), model.D_d(features[1]))
        for variable, gradient in zip(
            model.D_d.trainable_variables, tape.gradient(loss, model.D_d.trainable_variables), strict=True
        ):
            variable.assign_sub(0.1 * gradient)
    before = float(view_loss(model.D_d(features[0]), model.D_d(features[1])))
    with tf.GradientTape() as tape:
        confusion = model.adaptation_losses(*features)["confusion"]
    for variable, gradient in zip(features, tape.gradient(confusion, features), strict=True):
        variable.assign_sub(0.5 * gradient)
    assert float(view_loss(model.D_d(features[0]), model.D_d(features[1]))) > before


def matching_reference(model, probe, gallery, identities, weighting, gamma, margin=2.0):
    strangers = [2, 3, 0, 1]
    logits = {
        "same": model.D_s(np.concatenate([probe, gallery], 1)).numpy()[:, 0],
        "other": model.D_s(np.concatenate([probe, gallery[strangers]], 1)).numpy()[:, 0],
    }
    match = -np.log(sigmoid(logits["same"])).mean() - np.log(1 - sigmoid(logits["other"])).mean()
    probe, gallery = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (probe, gallery))
    distance = np.linalg.norm(probe[:, None] - gallery, axis=2)
    if weighting == "uniform":
        terms = [distance[i, i] ** 2 for i in range(4)]
        terms += [max(margin - distance[i, strangers[i]], 0) ** 2 for i in range(4)]
        return match, gamma * 2 * np.mean(terms)
    total = 0
    for i in range(4):
        d_p, d_n = distance[i, identities == identities[i]], distance[i, identities != identities[i]]
        w_p, w_n = np.exp(d_p) / np.exp(d_p).sum(), np.exp(-d_n) / np.exp(-d_n).sum()
        total += (w_p * d_p**2).sum() + (w_n * np.maximum(margin - d_n, 0) ** 2).sum()
    return match, gamma * total / 4


@pytest.mark.parametrize("weighting", ["uniform", "outside"])
def test_matching_equals_a_plain_reference(weighting):
    model = build("view_adaptation", weighting=weighting, contrastive_weight=2.5)
    probe, gallery = RNG.normal(size=(2, 4, model.M_s.output_shape[-1])).astype(np.float32)
    identities = np.array([2, 2, 0, 0])
    found = model.matching_losses(tf.constant(probe), tf.constant(gallery), tf.constant(identities))
    match, contrastive = matching_reference(model, probe, gallery, identities, weighting, 2.5)
    np.testing.assert_allclose(found["match"], match, rtol=1e-5)
    np.testing.assert_allclose(found["contrastive"], contrastive, rtol=1e-4)


@pytest.mark.parametrize("through_weights", [False, True])
def test_the_weights_of_eq_6_carry_a_gradient_where_it_is_asked_for_alone(through_weights):
    model = build("view_adaptation", weights_carry_gradient=through_weights)
    probe, gallery = (tf.constant(rows, tf.float32) for rows in RNG.normal(size=(2, 4, model.M_s.output_shape[-1])))
    positive = np.array([1, 1, 0, 0])[:, None] == [1, 1, 0, 0]
    gradients = []
    for by_hand in (False, True):
        with tf.GradientTape() as tape:
            tape.watch(probe)
            if by_hand:
                unit = [tf.math.l2_normalize(rows, axis=1) for rows in (probe, gallery)]
                distance = losses.distances(*unit)
                loss = 2.5 * losses.adaptive_contrastive(distance, positive, ~positive, 2.0, "outside", through_weights)
            else:
                loss = model.matching_losses(probe, gallery, tf.constant([1, 1, 0, 0]))["contrastive"]
        gradients.append(tape.gradient(loss, probe))
    np.testing.assert_allclose(*gradients, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("weighting", ["uniform", "outside", "inside", "pooled"])
def test_matching_brings_an_identity_together_and_drives_two_apart(weighting):
    """With either sign of Eq. 2 or 5 as printed, this would go the other way."""
    model = build("view_adaptation", weighting=weighting)
    rng = np.random.default_rng(0)
    rows = [tf.Variable(tf.constant(rng.normal(size=(4, model.M_s.output_shape[-1])), tf.float32)) for _ in "ab"]
    identities = tf.constant([0, 1, 2, 3])

    def mean_distances():
        unit = [r.numpy() / np.linalg.norm(r, axis=1, keepdims=True) for r in rows]
        distance = np.linalg.norm(unit[0][:, None] - unit[1], axis=2)
        return np.diag(distance).mean(), distance[~np.eye(4, dtype=bool)].mean()

    same, other = mean_distances()
    for _ in range(20):
        with tf.GradientTape() as tape:
            loss = model.matching_losses(*rows, identities)["contrastive"]
        for variable, gradient in zip(rows, tape.gradient(loss, rows), strict=True):
            variable.assign_sub(5.0 * gradient)
    assert mean_distances()[0] < same - 0.2
    assert mean_distances()[1] > other + 0.01


def test_d_s_learns_to_say_no_as_well():
    """With Eq. 2's cross-entropy as printed, without its second half, D_s = 1 would be its minimum."""
    model = build("view_adaptation", contrastive_weight=0.0)
    probe, gallery = RNG.normal(size=(2, 4, model.M_s.output_shape[-1])).astype(np.float32)
    for variable in model.D_s.trainable_variables:
        variable.assign(tf.zeros_like(variable))
    model.D_s.trainable_variables[-1].assign([8.0])  # "the same" to everything
    surely_yes = model.matching_losses(probe, gallery, tf.range(4))
    assert set(surely_yes) == {"match"} and surely_yes["match"] > 3


@pytest.mark.parametrize(("identities", "expected"), [([0, 1, 2], [1, 2, 0]), ([0, 0, 1, 1], [2, 3, 0, 1])])
def test_the_stranger_is_of_the_next_identity_and_each_image_is_one_once(identities, expected):
    model = build("view_adaptation", contrastive_weight=0.0)
    seen = []
    model.D_s = lambda pairs: seen.append(pairs.numpy()) or tf.zeros((len(pairs), 1))
    gallery = np.arange(len(identities), dtype=np.float32)[:, None] * np.ones((1, 4), np.float32)
    model.matching_losses(tf.constant(-gallery), tf.constant(gallery), tf.constant(identities))
    beside = seen[0][:, -1]
    np.testing.assert_array_equal(beside, [*range(len(identities)), *expected])


def test_shared_weights_are_one_mapping():
    model = build("view_adaptation", shared=True)
    assert model.M_t is model.M_s and len(model.players()["mappings"]) == 1
    assert changed(model, "adversarial")[0] == {"M_s", "M_t", "D_s", "D_d"}


def test_mappings_of_two_widths_are_refused():
    with pytest.raises(ValueError, match=r"method\.probe_backbone=small gives 256 .*=resnet50 gives 2048"):
        build("view_adaptation", gallery_backbone="resnet50")
    with pytest.raises(ValueError, match="moves no mapping"):
        build("view_adaptation", literal_alg1=True, adaptation="none")


def test_learned_similarity_is_d_s_of_every_pair():
    model = build("view_adaptation")
    probe, gallery = RNG.normal(size=(2, model.M_s.output_shape[-1])), RNG.normal(size=(3, model.M_s.output_shape[-1]))
    probe, gallery = tf.constant(probe, tf.float32), tf.constant(gallery, tf.float32)
    found = model.similarity(probe, gallery)
    assert found.shape == (2, 3)
    for i in range(2):
        for j in range(3):
            pair = tf.concat([probe[i], gallery[j]], axis=0)[None]
            np.testing.assert_allclose(found[i, j], model.D_s(pair)[0, 0], rtol=1e-4)


def test_each_view_has_its_encoder():
    model = build("view_adaptation")
    assert model.encoders() == {"probe": model.M_s, "gallery": model.M_t} and model.M_s is not model.M_t


def test_unit_length_is_an_option():
    probe, gallery = RNG.normal(size=(2, 4, 256)).astype(np.float32)
    raw = build("view_adaptation", normalise=False, weighting="uniform")
    found = raw.matching_losses(tf.constant(probe), tf.constant(gallery), tf.range(4))["contrastive"]
    distance = np.linalg.norm(probe - gallery, axis=1)
    other = np.linalg.norm(probe - np.roll(gallery, -1, axis=0), axis=1)
    expected = 2.5 * 2 * np.mean(np.concatenate([distance**2, np.maximum(2 - other, 0) ** 2]))
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert float(losses.distances(probe[:1], gallery[:1])[0, 0]) > 2


# --------------------------------------------------------------------- baselines of Table VII, pairs of Table VI


NO_DAN_STAGES = ("similarity", "adversarial")


def test_dan_makes_two_layers_of_both_views_alike_and_reads_the_probes_labels():
    model = build("view_adaptation", baseline="dan", adaptation_weight=3.0, skipped=NO_DAN_STAGES)
    assert model.M_t is model.M_s
    images, identities = batch()["source"], batch()["source_identity"][:, 0]
    probe, gallery = (model.M_s(images[:, view], training=True) for view in (0, 1))
    scores = [model.heads[0](rows) for rows in (probe, gallery)]
    discrepancy = losses.maximum_mean_discrepancy(probe, gallery) + losses.maximum_mean_discrepancy(*scores)
    identity = losses.identification(scores[0], identities)

    head, before = model.heads[0].trainable_variables[0], model.heads[0].trainable_variables[0].numpy()
    with tf.GradientTape() as tape:
        scores = [model.heads[0](rows) for rows in (probe, gallery)]
        loss = losses.identification(scores[0], identities) + 3.0 * losses.maximum_mean_discrepancy(*scores)
    gradient = tape.gradient(loss, head).numpy()
    model.begin("finetune")
    reported = model.advance(iter(tf.data.Dataset.from_tensors(batch())))[1]
    np.testing.assert_allclose(reported["mappings/dan"], 3.0 * discrepancy, rtol=1e-3)
    np.testing.assert_allclose(reported["mappings/identity_probe"], identity, rtol=1e-3)
    np.testing.assert_allclose(head.numpy(), before - 0.01 * gradient, atol=1e-5)
    moved, _ = changed(model, "finetune")
    assert moved == {"M_s", "M_t", "heads"}  # M_t is M_s; not the gallery's head


def test_adda_adapts_the_gallerys_mapping_to_a_fixed_one():
    model = build("view_adaptation", baseline="adda", skipped=("similarity",), learning_rate=0.05)
    moved, reported = changed(model, "finetune")
    assert moved == {"M_s", "heads"} and "mappings/identity_gallery" not in reported

    with model.averaged():  # as evaluations during `finetune` see it
        for a, b in zip(model.M_s.variables, model.M_t.variables, strict=True):
            np.testing.assert_array_equal(a.numpy(), b.numpy())
    model.M_t.trainable_variables[0].assign_add(tf.ones_like(model.M_t.trainable_variables[0]))
    model.finish()  # as the training does at a stage's end
    model.step.assign(0)
    model.begin("adversarial")
    for a, b in zip(model.M_s.variables, model.M_t.variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    fixed = [v.numpy() for v in model.M_s.variables]  # its statistics, too
    features = [model.M_s(batch()["source"][:, 0], training=True), model.M_t(batch()["source"][:, 1], training=True)]
    for variable, value in zip(model.M_s.variables, fixed, strict=True):
        variable.assign(value)
    by_batch_statistics = view_loss(*map(model.D_d, features))
    moved, reported = changed(model, "adversarial")
    np.testing.assert_allclose(reported["view/view"], by_batch_statistics, rtol=1e-4)
    assert moved == {"M_t", "D_d"} and set(reported) == {"view/view", "view/accuracy", "mappings/adda"}
    assert set(model.representations()) == {"raw"}  # D_s is not trained
    assert {stage.sampler for stage in model.STAGES.values()} == {"unmatched_views"}
    for a, b in zip(fixed, model.M_s.variables, strict=True):
        np.testing.assert_array_equal(a, b.numpy())

    adapted = model.M_t.trainable_variables[0].numpy()
    model.begin("adversarial")  # a resumed stage does not start from M_s again
    np.testing.assert_array_equal(model.M_t.trainable_variables[0].numpy(), adapted)


def test_adda_leads_the_gallerys_features_to_the_label_of_the_probes():
    model = build("view_adaptation", baseline="adda", skipped=("similarity",))
    features = tf.Variable(tf.constant(RNG.normal(size=(6, 256)), tf.float32))
    with tf.GradientTape() as tape:
        loss = model.adaptation_losses(features, features)["adda"]
    features.assign_sub(tape.gradient(loss, features))
    assert model.adaptation_losses(features, features)["adda"] < loss


@pytest.mark.parametrize(("baseline", "stage"), [("dan", "adversarial"), ("adda", "similarity")])
def test_a_baseline_refuses_the_stages_that_it_does_not_have(baseline, stage):
    skipped = {"similarity", "adversarial"} - {stage}
    with pytest.raises(ConfigError, match=rf"method\.baseline={baseline} has no stage {stage}; set stages\.{stage}"):
        build("view_adaptation", baseline=baseline, skipped=skipped)


def test_a_baseline_refuses_an_early_stop_of_stages_with_steps_alone():
    model = build("view_adaptation", baseline="adda", skipped=("similarity",))
    stages = stage_configs(type(model), skipped=("similarity",))
    stages["similarity"].early_stop = EarlyStop(check_every=2, patience=2)
    model.compile(stages)
    stages["adversarial"].early_stop = stages["similarity"].early_stop
    with pytest.raises(ConfigError, match=r"set stages\.adversarial\.early_stop=null"):
        model.compile(stages)


@pytest.mark.parametrize(("baseline", "stage"), [("dan", "finetune"), ("adda", "adversarial")])
def test_a_baseline_on_two_replicas_takes_the_step_of_one(baseline, stage, two_replicas, monkeypatch):
    def tiny(image_size, weights, last_stride):
        images = tf.keras.Input((*image_size, 3))
        features = tf.keras.layers.Conv2D(4, SIZE, activation="relu")(images)[:, 0, 0]
        return tf.keras.Model(images, BatchNormalization()(features))

    monkeypatch.setitem(BACKBONES, "small", tiny)
    settings = {"baseline": baseline, "skipped": NO_DAN_STAGES if baseline == "dan" else ("similarity",)}
    alone = build("view_adaptation", **settings)
    with two_replicas.scope():
        shared = build("view_adaptation", **settings)
    before, batches = [v.numpy() for v in alone.variables], tf.data.Dataset.from_tensors(batch())
    losses_found = []
    for model, own in ((alone, batches), (shared, two_replicas.experimental_distribute_dataset(batches))):
        model.begin(stage)
        losses_found.append(model.advance(iter(own))[1])
    for name, value in losses_found[0].items():
        np.testing.assert_allclose(losses_found[1][name], value, rtol=1e-4, err_msg=name)
    for old, a, b in zip(before, alone.variables, shared.variables, strict=True):
        bound = max(1e-6, 1e-4 * np.abs(a.numpy() - old).max())
        np.testing.assert_allclose(a.numpy(), b.numpy(), atol=bound, err_msg=a.path)


@pytest.mark.parametrize(("probe", "gallery"), [("vgg_m", "VGG16"), ("VGG16", "vgg_m")])
def test_the_papers_pairs_exchange_views_by_their_names_alone(probe, gallery, tmp_path, monkeypatch):
    """`imagenet` beside vgg_m is a file, on either side."""
    file, built = str(tmp_path / "imagenet-vgg-m.mat"), []
    (tmp_path / "imagenet-vgg-m.mat").write_bytes(b"")

    def backbone(name):
        def make(image_size, weights, last_stride):
            built.append((name, weights))
            images = tf.keras.Input((*image_size, 3))
            return tf.keras.Model(images, tf.keras.layers.Dense(4)(tf.keras.layers.GlobalAveragePooling2D()(images)))

        return make

    for name in ("vgg_m", "VGG16"):
        monkeypatch.setitem(BACKBONES, name, backbone(name))
    weights = {"probe_weights": "imagenet", "gallery_weights": "imagenet", "vgg_m_weights": file}
    build("view_adaptation", probe_backbone=probe, gallery_backbone=gallery, **weights)
    assert built == [(name, file if name == "vgg_m" else "imagenet") for name in (probe, gallery)]
