"""The comparison of a GPU's updates with the CPU's: no difference is lost, and one beyond its bound fails."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from benchmarks import devices

NONE, ONE = np.zeros(3), np.ones(3)


def test_furthest_is_the_largest_of_all_players():
    assert devices.furthest({"a": ONE, "b": 2 * ONE}, {"a": 1.5 * ONE, "b": 2 * ONE}) == pytest.approx(0.5)


def test_furthest_keeps_nan_of_any_player():
    assert np.isnan(devices.furthest({"a": ONE, "b": ONE}, {"a": ONE, "b": np.nan * ONE}))
    assert np.isnan(devices.furthest({"a": ONE, "b": NONE}, {"a": ONE, "b": np.nan * ONE}))


def test_furthest_of_a_player_that_rests():
    assert devices.furthest({"a": ONE, "b": NONE}, {"a": ONE, "b": NONE}) == 0
    assert devices.furthest({"a": ONE, "b": NONE}, {"a": ONE, "b": 1.0e-9 * ONE}) == np.inf


@pytest.mark.parametrize(
    ("plain", "both", "status"), [(1e-4, 0.2, 0), (0.2, 0.2, 1), (1e-4, 0.7, 1), (np.nan, 0.2, 1), (1e-4, np.inf, 1)]
)
def test_devices_exit_status_says_whether_a_figure_is_beyond_its_bound(monkeypatch, plain, both, status):
    figures = [{"plain": plain, "both": both}, {"plain": 0.0, "both": 0.0}]
    monkeypatch.setattr(devices, "compared", lambda *args: iter(figures))
    monkeypatch.setattr("sys.argv", ["devices", "identity", "--variants", "plain", "both"])
    monkeypatch.setattr(tf.config.experimental, "enable_tensor_float_32_execution", lambda on: None)
    assert devices.main() == status


def test_updates_are_not_rounded_to_the_weights_precision():
    weight = keras.Variable([1.0e4])  # float32 numbers lie 1e-3 apart here
    optimizer = keras.optimizers.SGD(1.0e-3, momentum=0.9)
    optimizer.build([weight])

    def advance(batches, most):
        optimizer.apply([tf.constant([0.25])], [weight])
        return 1, {"loss": tf.constant(0.0)}

    model = SimpleNamespace(
        variables=[weight],
        optimizers_of={"stage": {"player": optimizer}},
        step=tf.Variable(0, dtype=tf.int64),
        begin=lambda stage: None,
        advance=advance,
    )
    for _ in range(2):  # the second time from the same weights, and without the first one's momentum
        update = devices.updates(model, "stage", {"source": tf.zeros(1)}, 0, devices.CPU)["player"]
        np.testing.assert_allclose(update, [-0.25e-3], rtol=1e-6)
        assert weight.numpy() == 1.0e4
