"""Warm-up, a rate of its own for a backbone, and backbones that rest at first."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import IDENTITIES, SIZE, random_batch, small_settings, stage_configs

from tf_reid.config import ConfigError
from tf_reid.methods import METHODS
from tf_reid.methods.optimizers import LearningRate, build_optimizer
from tf_reid.settings import Optimizer


def built(method, stage, player, /, **changes):
    """A small method, one of whose optimizers has these settings."""
    keras.utils.set_random_seed(0)
    model, settings = METHODS[method](SIZE, IDENTITIES, 0, **small_settings(method)), stage_configs(METHODS[method])
    optimizers = settings[stage].optimizers
    optimizers[player] = optimizers[player].model_copy(update=changes)
    model.compile(settings)
    model.begin(stage)
    return model


def advanced(model, steps, batch=None):
    """-> the losses of each step."""
    batches = iter(tf.data.Dataset.from_tensors(batch or random_batch()).repeat())
    losses, done = [], 0
    while done < steps:
        count, of_call = model.advance(batches, steps - done)
        losses += np.atleast_1d(of_call["classifier/identity"]).tolist()
        done += count
    return losses


def values(variables):
    return [variable.numpy() for variable in variables]


def equal(a, b):
    return [bool(np.array_equal(x, y)) for x, y in zip(a, b, strict=True)]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"warmup": 0.1, "warmup_from": 0.1}, [0.1, 0.55, 1.0, 1.0, 1.0]),
        ({"warmup": 0.1, "warmup_from": 0.0, "schedule": "drops", "drop_at": [0.5]}, [0.0, 0.5, 1.0, 1.0, 0.1]),
        ({"warmup": 0.0, "warmup_from": 0.5}, [1.0] * 5),
    ],
)
def test_a_warm_up_rises_linearly_and_multiplies_the_schedule(settings, expected):
    step = tf.Variable(0, dtype=tf.int64)
    rate = LearningRate(Optimizer(learning_rate=1.0, **settings), 100, step, tf.Variable(1.0))
    found = []
    for at in (0, 5, 10, 20, 60):
        step.assign(at)
        found.append(float(rate(0)))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_momenta_reach_the_optimizers():
    """Two steps by hand, as Keras and PyTorch count them: Nesterov's looks ahead, Adam's betas weigh both moments."""
    settings = {
        "plain": Optimizer(name="sgd", learning_rate=0.1, momentum=0.9),
        "nesterov": Optimizer(name="sgd", learning_rate=0.1, momentum=0.9, nesterov=True),
        "adam": Optimizer(name="adam", learning_rate=0.1, beta_1=0.5, beta_2=0.99),
    }
    expected = {"plain": -0.1 * (1 + 0.9 + 2), "nesterov": -0.1 * (1 + 0.9 + 2 + 0.9 * (2 + 0.9))}
    moments = [((1 - 0.5), (1 - 0.99)), (0.5 * (1 - 0.5) + 0.5 * 2, 0.99 * (1 - 0.99) + 0.01 * 4)]
    steps = enumerate(moments, start=1)
    expected["adam"] = -0.1 * sum(m / (1 - 0.5**n) / (v / (1 - 0.99**n)) ** 0.5 for n, (m, v) in steps)
    for name, config in settings.items():
        step = tf.Variable(0, dtype=tf.int64)
        optimizer = build_optimizer(config, LearningRate(config, 100, step, tf.Variable(1.0)))
        weight = keras.Variable(0.0)
        for gradient in (1.0, 2.0):
            optimizer.apply([tf.constant(gradient)], [weight])
        np.testing.assert_allclose(float(weight), expected[name], rtol=1e-5, err_msg=name)


OPTIMIZERS = [
    Optimizer(name="sgd", learning_rate=0.1),
    Optimizer(name="sgd", learning_rate=0.1, momentum=0.9, ema_momentum=0.9),
    Optimizer(name="sgd", learning_rate=0.1, momentum=0.9, nesterov=True),
    Optimizer(name="adam", learning_rate=0.1, beta_1=0.5, beta_2=0.9, schedule="linear", ema_momentum=0.5),
]


def keras_own(config, rate):
    """Keras's optimizer of these settings, which computes each step by several operations."""
    average = {"use_ema": config.ema_momentum > 0, "ema_momentum": config.ema_momentum}
    if config.name == "sgd":
        return keras.optimizers.SGD(rate, momentum=config.momentum, nesterov=config.nesterov, **average)
    return keras.optimizers.Adam(rate, beta_1=config.beta_1, beta_2=config.beta_2, **average)


def stepping(optimizer, config, xla=False):
    """A small network's variables, the stage's step, and a function that moves them by these gradients."""
    step = tf.Variable(0, dtype=tf.int64)
    variables = [keras.Variable([[1.0, -2.0, 0.5]]), keras.Variable(0.3)]
    built = optimizer(config, LearningRate(config, 10, step, tf.Variable(1.0)))
    built.build(variables)

    @tf.function(jit_compile=xla)
    def move(gradients):
        built.apply(gradients, variables)
        step.assign_add(1)

    return [*variables, *built.variables], move


@pytest.mark.parametrize("config", OPTIMIZERS, ids=lambda config: f"{config.name}-{config.momentum}-{config.nesterov}")
@pytest.mark.parametrize("xla", [False, True], ids=["plain", "compiled"])
def test_an_optimizer_equals_that_of_keras(config, xla):
    """Weights, moments, running means of the weights and counted steps, after five steps."""
    rng, found = np.random.default_rng(0), []
    gradients = [(rng.normal(size=(1, 3)).astype(np.float32), np.float32(rng.normal())) for _ in range(5)]
    for optimizer, compiled in ((build_optimizer, xla), (keras_own, False)):
        variables, move = stepping(optimizer, config, compiled)
        for of_step in gradients:
            move(tuple(map(tf.constant, of_step)))
        found.append(values(variables))
    assert len(found[0]) == len(found[1])
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("config", "fewer"), [(OPTIMIZERS[1], 3), (OPTIMIZERS[3], 9)], ids=["sgd", "adam"])
def test_an_optimizer_takes_few_operations_a_variable(config, fewer):
    """A GPU waits for the start of each."""
    counts = []
    for optimizer in (build_optimizer, keras_own):
        _, move = stepping(optimizer, config)
        graph = move.get_concrete_function((tf.zeros((1, 3)), tf.zeros(()))).graph
        counts.append(sum(op.type not in ("Const", "ReadVariableOp", "Placeholder") for op in graph.get_operations()))
    assert counts[0] + 2 * fewer <= counts[1]


def test_a_backbone_has_a_rate_of_its_own():
    """Plain descent: the backbone moves half as far, all else as it would."""
    changed, plain = (built("identity", "classifier", "classifier", backbone_rate=rate) for rate in (0.5, 1.0))
    before = values(plain.variables_of("classifier"))
    of_backbone = {id(variable) for variable in changed.classifier.backbone.variables}
    inside = [id(variable) in of_backbone for variable in changed.variables_of("classifier")]
    for model in (changed, plain):
        advanced(model, 1)
    assert changed.learning_rates() == pytest.approx({"classifier": 0.01, "classifier_backbone": 0.005})
    assert 0 < sum(inside) < len(inside)
    after = [values(model.variables_of("classifier")) for model in (changed, plain)]
    for start, a, b, halved in zip(before, *after, inside, strict=True):
        np.testing.assert_allclose(a - start, (b - start) * (0.5 if halved else 1.0), atol=1e-6)


@pytest.mark.parametrize(("xla", "steps_per_call"), [(False, 1), (False, 3), (True, 1)])
def test_a_backbone_rests_for_the_first_steps_and_its_moments_begin_afterwards(xla, steps_per_call):
    model = built("identity", "classifier", "classifier", freeze_steps=2, name="adam", learning_rate=0.01, l2=0.1)
    model.xla, model.steps_per_call = xla, steps_per_call
    model.begin("classifier")
    backbone, head = model.classifier.backbone, model.classifier.identity_head
    optimizer = model.optimizers_of["classifier"]["classifier_backbone"]
    resting = [*backbone.variables, *optimizer.variables]
    start, head_start = values(resting), values(head.variables)

    advanced(model, 2)
    assert all(equal(start, values(resting)))  # statistics of the batch norm, too
    assert not any(equal(head_start, values(head.variables)))

    advanced(model, 1)
    assert not any(equal(start, values(resting)))
    moved = np.abs(start[0] - backbone.variables[0].numpy()).max()
    np.testing.assert_allclose(moved, 0.01, rtol=1e-2)  # Adam's first step is its rate, whatever the others had


def test_a_resting_backbone_is_seen_with_the_statistics_it_has():
    """The step's losses are those of a backbone in inference."""
    model = built("identity", "classifier", "classifier", freeze_steps=5)
    batch = random_batch()
    both = tf.concat([batch["source"][:, 0], batch["source"][:, 1]], axis=0)
    logits = model.classifier.identity_head(model.classifier.backbone(both)).numpy()
    identity = batch["source_identity"].numpy().T.ravel()
    expected = 2.0 * np.mean(np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(8), identity])
    np.testing.assert_allclose(advanced(model, 1), [expected], rtol=1e-5)


def test_two_replicas_whose_backbone_rests_equal_one(two_replicas):
    alone = built("identity", "classifier", "classifier", freeze_steps=1)
    with two_replicas.scope():
        shared = built("identity", "classifier", "classifier", freeze_steps=1)
    start = values(alone.classifier.variables)
    advanced(alone, 1)
    batch = tf.data.Dataset.from_tensors(random_batch())
    shared.advance(iter(two_replicas.experimental_distribute_dataset(batch)))
    resting = {id(variable) for variable in alone.classifier.backbone.variables}
    for before, a, b in zip(start, alone.classifier.variables, shared.classifier.variables, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), atol=1e-6)
        assert np.array_equal(before, b.numpy()) == (id(a) in resting or "seed" in a.path), a.path


def test_a_resting_backbone_and_the_phases_of_a_method_combine():
    """SimPGAN's own phases stay, and a stage whose player rests has twice as many kinds of steps at most."""
    model = built("simpgan", "classifier", "classifier", freeze_steps=2)
    assert [model.frozen_at(step) for step in range(3)] == [("classifier",), ("classifier",), ()]
    model.begin("translation")
    assert model.frozen_at(0) == () and model.phase_of(0) == {"discriminators_move": True}


@pytest.mark.parametrize(
    ("name", "stage", "player", "networks"),
    [
        ("cmgan", "pretrain", "generator", lambda model: [model.network]),
        ("view_adaptation", "finetune", "mappings", lambda model: [model.M_s, model.M_t]),
        ("dgnet", "pretrain", "appearance", lambda model: [model.E_a]),
    ],
)
def test_every_method_with_a_backbone_knows_it(name, stage, player, networks):
    model = built(name, stage, player, freeze_steps=1)
    count = sum(len(network.trainable_variables) for network in networks(model))
    of_backbone = model.parts_of(stage, player)[f"{player}_backbone"]
    assert len(of_backbone) == count > 0
    with model.resting((player,)):
        assert not any(network.trainable_variables for network in networks(model))
    assert sum(len(network.trainable_variables) for network in networks(model)) == count


def test_a_backbone_that_would_rest_in_every_step_is_refused():
    with pytest.raises(ConfigError, match=r"freeze_steps is 1000000, and the stage has \d+ steps"):
        built("identity", "classifier", "classifier", freeze_steps=1_000_000)


@pytest.mark.parametrize(("setting", "value", "default"), [("backbone_rate", 0.1, 1), ("freeze_steps", 3, 0)])
def test_a_player_without_a_backbone_is_refused_these_settings(setting, value, default):
    message = (
        rf"stages\.translation\.optimizers\.generators\.{setting}: the player generators holds no backbone; "
        f"set it to {default}"
    )
    with pytest.raises(ConfigError, match=message):
        built("simpgan", "translation", "generators", **{setting: value})


def test_a_player_that_is_a_backbone_alone_may_rest():
    model = built("view_adaptation", "adversarial", "mappings", freeze_steps=1)
    start = values(model.M_t.trainable_variables)
    model.advance(iter(tf.data.Dataset.from_tensors(random_batch()).repeat()))
    assert all(equal(start, values(model.M_t.trainable_variables)))
