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


class Shared(StagedModel):
    """Adds up the losses of all replicas; two steps count once, the next two twice."""

    def __init__(self):
        super().__init__("sums")
        kinds = {"synchronization": tf.VariableSynchronization.ON_READ, "aggregation": tf.VariableAggregation.SUM}
        self.own = tf.Variable(0.0, trainable=False, **kinds)  # each replica's, as a pool of images is

    def phase_of(self, step):
        return {"doubled": step % 4 > 1}

    def sums_step(self, batch):
        context = tf.distribute.get_replica_context()
        everything = context.all_reduce("sum", tf.reduce_sum(batch) * (2.0 if self.phase["doubled"] else 1.0))
        self.own.assign_add(everything * tf.cast(context.replica_id_in_sync_group + 1, tf.float32))
        return {"sums/own": self.own.read_value()}


@pytest.mark.parametrize("xla", [False, True])
def test_two_replicas_take_several_steps_a_call(xla, two_replicas):
    losses = []
    for steps_per_call in (1, 4):
        with two_replicas.scope():
            model = Shared()
        model.xla, model.steps_per_call = xla, steps_per_call
        model.begin("sums")
        batches = tf.data.Dataset.range(12, output_type=tf.float32).batch(2)
        batches, done, of_model = iter(two_replicas.experimental_distribute_dataset(batches)), 0, []
        while done < 6:
            steps, values = model.advance(batches, 6 - done)
            of_model.append(np.atleast_1d(values["sums/own"]))
            done += steps
        losses.append(np.concatenate(of_model))
    sums = np.array([1, 5, 2 * 9, 2 * 13, 17, 21])  # of the batches, as phases count them
    for found in losses:
        np.testing.assert_array_equal(found, np.cumsum(sums) * 1.5)  # a mean of one time and two times


def test_what_follows_a_compiled_step_of_several_replicas_is_not_compiled(two_replicas):
    with two_replicas.scope():
        model = Shared()
    model.xla = True
    model.begin("sums")
    batch = tf.data.Dataset.from_tensors([1.0, 2.0])
    traced = model._one_step.get_concrete_function(
        iter(two_replicas.experimental_distribute_dataset(batch)), (("doubled", False),), ()
    )
    marked = ["_XlaCompile" in operation.node_def.attr for operation in traced.graph.get_operations()]
    assert any(marked) and not marked[-1]
