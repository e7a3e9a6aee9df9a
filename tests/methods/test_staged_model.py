"""Several steps are one call: the same results, and never two phases in one."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_reid.methods.staged_model import StagedModel


class Summing(StagedModel):
    """Adds up its batches; three steps count once, the next three twice, and so on."""

    def __init__(self):
        super().__init__("sums")
        self.total = tf.Variable(0.0)
        self.doubles = keras.random.SeedGenerator(0)

    def phase_of(self, step):
        return {"doubled": step // 3 % 2 == 1}

    def sums_step(self, batch):
        added = batch * (2.0 if self.phase["doubled"] else 1.0)
        self.total.assign_add(added + keras.random.uniform((), seed=self.doubles))
        return {"sums/total": self.total.read_value(), "sums/added": added}


def carried_out(steps_per_call, steps=11):
    """-> steps of each call, and name -> the losses of all steps."""
    model = Summing()
    model.steps_per_call = steps_per_call
    model.begin("sums")
    batches = iter(tf.data.Dataset.range(1, 20, output_type=tf.float32))
    calls, losses = [], {"sums/total": [], "sums/added": []}
    while sum(calls) < steps:
        done, of_call = model.advance(batches, steps - sum(calls))
        calls.append(done)
        for name, values in of_call.items():
            losses[name].append(np.atleast_1d(values))
    assert int(model.step) == steps
    return calls, {name: np.concatenate(values) for name, values in losses.items()}


@pytest.mark.parametrize(
    ("steps_per_call", "expected"), [(2, [2, 1, 2, 1, 2, 1, 2]), (3, [3, 3, 3, 2]), (100, [3, 3, 3, 2])]
)
def test_a_call_ends_where_the_phase_changes_and_the_losses_are_those_of_single_steps(steps_per_call, expected):
    singles, alone = carried_out(1)
    assert singles == [1] * 11
    calls, together = carried_out(steps_per_call)
    assert calls == expected
    np.testing.assert_array_equal(together["sums/added"], [1, 2, 3, 8, 10, 12, 7, 8, 9, 20, 22])
    for name, values in alone.items():
        np.testing.assert_array_equal(together[name], values)
