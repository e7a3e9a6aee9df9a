"""What holds for every method and every player."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from conftest import batch_for, build, eager_step, random_batch, stage_configs

from tf_reid.methods import METHODS
from tf_reid.methods.optimizers import LearningRate
from tf_reid.settings import Optimizer

STAGES = [(name, stage) for name, method in METHODS.items() for stage in method.STAGES]


def one_step_of_each_phase(model, stage):
    """The first step of each kind where a stage alternates, else step 0."""
    model.begin(stage)
    phases = {}
    for step in range(10):
        phases.setdefault(str(model.phase_of(step)), step)
    return phases.values()


@pytest.mark.parametrize(("name", "stage"), STAGES)
def test_a_batch_of_8_on_one_replica_equals_two_of_4(name, stage, two_replicas):
    """Equal weights of every player after a step, and the reported losses are those of the global batch.

    Each is reported under its player, and finite.

    In some batches two places of a map are so alike that rounding, which differs from one processor to another, decides
    where a maximum's gradient goes. Such a batch compares nothing, so DG-Net's stages may take another one.
    """
    seeds = (1, 6, 5) if METHODS[name].STAGES[stage].sampler == "swaps" else (None,)
    for seed in seeds:
        try:
            compare_one_replica_with_two(name, stage, batch_for(name, stage, seed=seed), two_replicas)
            return
        except AssertionError:
            if seed == seeds[-1]:
                raise


def compare_one_replica_with_two(name, stage, batch, two_replicas):
    moved, start = set(), build(name)
    for step in one_step_of_each_phase(start, stage):
        alone = build(name)
        expected = eager_step(alone, stage, batch, step)
        check_report(expected, METHODS[name].STAGES[stage].players)

        with two_replicas.scope():
            shared = build(name)
        shared.step.assign(step)
        shared.begin(stage)
        halves = tf.data.Dataset.from_tensors(batch)
        losses = shared.advance(iter(two_replicas.experimental_distribute_dataset(halves)))[1]

        for player in alone.STAGES[stage].players:
            variables = [m.variables_of(player) for m in (alone, shared, start)]
            for a, b, before in zip(*variables, strict=True):
                # Rounding alone may amount to a ten-thousandth of what a step changes, where norms divide by little.
                bound = max(1e-6, 1e-4 * np.abs(a.numpy() - before.numpy()).max())
                np.testing.assert_allclose(a.numpy(), b.numpy(), atol=bound, err_msg=f"step {step}, {player}: {a.path}")
                if np.any(a.numpy() != before.numpy()):
                    moved.add(player)
        for key, value in expected.items():
            np.testing.assert_allclose(losses[key], value, rtol=1e-4, err_msg=f"step {step}, {key}")
    assert two_replicas.num_replicas_in_sync == 2
    assert moved == set(start.STAGES[stage].players)


def check_report(losses, players):
    """Every loss that is minimised is reported, under its player."""
    assert {key.split("/")[0] for key in losses} == set(players)
    assert all(np.isfinite(float(value)) for value in losses.values())


@pytest.fixture(scope="module")
def untrained():
    """Name -> a small method that no test trains."""
    return functools.cache(build)


@pytest.mark.parametrize("name", METHODS)
def test_players_share_no_variable_and_optimizers_are_built_early(name, untrained):
    model = untrained(name)
    paths = [id(v) for player in model.players() for v in model.variables_of(player)]
    assert len(paths) == len(set(paths))
    for stage, settings in stage_configs(METHODS[name]).items():
        for player in settings.optimizers:
            assert model.optimizers_of[stage][player].built


@pytest.mark.parametrize("name", METHODS)
def test_encoders_give_one_finite_vector_an_image(name, untrained):
    model = untrained(name)
    images = random_batch()["source"][:, 0]
    for encoder in model.encoders().values():
        features = encoder(images).numpy()
        assert features.shape[0] == len(images) and features.ndim == 2 and np.isfinite(features).all()


@pytest.mark.parametrize("name", METHODS)
def test_pictures_are_columns_of_images_in_range(name, untrained):
    model = untrained(name)
    stage = list(METHODS[name].STAGES)[-1]
    model.begin(stage)
    for titles, columns in model.presentation().pictures(batch_for(name, stage)).values():
        assert len(titles) == len(columns)
        assert all(np.abs(column).max() <= 1 and column.shape == columns[0].shape for column in columns)


@pytest.mark.parametrize("name", METHODS)
def test_a_presentation_fits_its_method(name, untrained):
    model, stage = untrained(name), list(METHODS[name].STAGES)[-1]
    model.begin(stage)
    presentation, images = model.presentation(), random_batch()["source"][:, 0]
    assert set(presentation.maps()) <= set(model.encoders())
    assert all(network(images).shape[0] == len(images) for network in presentation.maps().values())
    assert all(network(images).shape == images.shape for network in presentation.across().values())
    for generated in presentation.generated(batch_for(name, stage)).values():
        assert generated.images.shape[1:] == generated.real.shape[1:] == images.shape[1:]
        assert generated.identities is None or len(generated.identities) == len(generated.images)
    if maker := presentation.image_maker():
        made = maker.make(*[images] * len(maker.inputs))
        assert made.shape == images.shape and np.abs(made).max() <= 1


def test_training_overfits_one_batch():
    model = build("identity", optimizer="adam")
    model.begin("classifier")
    batches = iter(tf.data.Dataset.from_tensors(random_batch()).repeat())
    sums = [sum(float(v) for v in model.advance(batches)[1].values()) for _ in range(40)]
    assert sums[-1] < 0.2 * sums[0]


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_running_mean_of_the_weights_is_seen_inside_averaged_and_kept_at_the_end(replicas, two_replicas):
    def values():
        return [variable.numpy() for variable in model.variables_of("generators")]

    strategy = two_replicas if replicas == 2 else tf.distribute.get_strategy()
    with strategy.scope():
        model = build("simpgan", learning_rate=0.05, ema_momentum={"generators": 0.9})
    model.begin("translation")
    first = values()
    with model.averaged():  # nothing to average yet: the weights stay what they are
        assert all(np.array_equal(a, b) for a, b in zip(first, values(), strict=True))
    batches = tf.data.Dataset.from_tensors(random_batch()).repeat()
    batches = iter(strategy.experimental_distribute_dataset(batches))
    mean = None
    for _ in range(3):
        model.advance(batches)[1]
        mean = values() if mean is None else [0.9 * m + 0.1 * v for m, v in zip(mean, values(), strict=True)]
    own = values()
    with model.averaged():
        for expected, found in zip(mean, values(), strict=True):
            np.testing.assert_allclose(found, expected, atol=1e-6)
    assert all(np.array_equal(a, b) for a, b in zip(own, values(), strict=True))
    assert any(np.abs(a - b).max() > 1e-4 for a, b in zip(own, mean, strict=True))
    model.finish()
    for expected, variable in zip(mean, model.variables_of("generators"), strict=True):
        for copy in strategy.experimental_local_results(variable.value):
            np.testing.assert_allclose(copy.numpy(), expected, atol=1e-6)


def test_without_ema_momentum_the_last_weights_are_kept(one_step):
    model = build("identity", learning_rate=0.05)
    one_step(model, "classifier", random_batch())
    own = [variable.numpy() for variable in model.variables_of("classifier")]
    model.finish()
    assert all(np.array_equal(a, b.numpy()) for a, b in zip(own, model.variables_of("classifier"), strict=True))


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [1.0, 1.0, 1.0, 1.0]),
        ("linear", [1.0, 1.0, 0.5, 0.0]),
        ("cosine", [1.0, 1.0, 0.5, 0.0]),
        ("drops", [1.0, 0.1, 0.01, 0.01]),
    ],
)
def test_learning_rate_follows_the_stages_step(schedule, expected):
    step = tf.Variable(0, dtype=tf.int64)
    rate = LearningRate(
        Optimizer(learning_rate=1.0, schedule=schedule, decay_from=0.5, drop_at=[0.5, 0.75]),
        100,
        step,
        tf.Variable(1.0),
    )
    found = []
    for at in (0, 50, 75, 100):
        step.assign(at)
        found.append(float(rate(0)))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_l2_adds_half_the_weights_squared_sum_to_the_loss(one_step):
    batch, decay, rate = random_batch(), 0.1, 0.05
    plain, decayed = (build("identity", learning_rate=rate, l2=l2) for l2 in (0.0, decay))
    before = [v.numpy() for v in plain.variables_of("classifier")]
    one_step(plain, "classifier", batch), one_step(decayed, "classifier", batch)
    for start, a, b in zip(before, plain.variables_of("classifier"), decayed.variables_of("classifier"), strict=True):
        np.testing.assert_allclose(b, a - rate * decay * start, atol=1e-6)
