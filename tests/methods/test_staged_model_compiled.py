"""A step that XLA compiles does what a plain one does, and it uses nothing that XLA cannot reach on a GPU."""

import numpy as np
import pytest
import tensorflow as tf
from conftest import batch_for, build, eager_step

from tf_reid.methods import METHODS
from tf_reid.networks.image_pool import ImagePool

# The kinds of a stage's steps: cmGAN's players take turns; DG-Net's joint steps do more once its warm-up has ended.
NUMBERS = {("cmgan", "adversarial"): (0, 1), ("dgnet", "joint"): (1,)}
KINDS = [
    (name, stage, number)
    for name, method in METHODS.items()
    for stage in method.STAGES
    for number in NUMBERS.get((name, stage), (0,))
]
CHANGES = {  # so that what is drawn at random is compared too, and DG-Net's warm-up ends
    "identity": {"dropout": 0.5},
    "simpgan": {"dropout": 0.5},
    "dgnet": {"dropout": 0.5, "fine_dropout": 0.5, "warm_up": 2},
}
WITHOUT_DEVICE = (tf.int32, tf.string, tf.variant)  # variables of these types stay in the host's memory


def first_step_of_kind(model, number):
    """The first step of the stage's kind of steps with this number."""
    steps = {}
    for step in range(20):
        steps.setdefault(str(model.phase_of(step)), step)
    return list(steps.values())[number]


def variable_types(concrete) -> list[tf.DType]:
    """The types of all variables that a traced function reads or writes."""
    handles = [value for value in concrete.captured_inputs if value.dtype == tf.resource]
    return [type_of(handle) for handle in handles]


def type_of(handle):
    for kind in (tf.float32, tf.int64, tf.int32, tf.string, tf.bool, tf.uint32, tf.uint8):
        try:
            tf.raw_ops.ReadVariableOp(resource=handle, dtype=kind)
            return kind
        except tf.errors.InvalidArgumentError:
            continue
    raise AssertionError("a variable of another type")


@pytest.mark.parametrize(("name", "stage", "number"), KINDS)
def test_a_compiled_step_equals_a_plain_one_and_uses_no_int32_variable(name, stage, number):
    """With plain descent: Adam's first step is the gradient's sign, which rounding turns where it is about zero."""
    tf.config.experimental.enable_op_determinism()  # as in a run; XLA refuses what it cannot repeat
    model = build(name, learning_rate=1.0e-3, **CHANGES.get(name, {}))
    batch = batch_for(name, stage)
    step = first_step_of_kind(begun(model, stage), number)
    state = [*model.variables, *(pool.images for pool in vars(model).values() if isinstance(pool, ImagePool))]
    start = [variable.numpy() for variable in state]
    losses = {key: float(value) for key, value in eager_step(model, stage, batch, step).items()}
    plain = [variable.numpy() for variable in state]
    for variable, value in zip(state, start, strict=True):
        variable.assign(value)
    model.step.assign(step)

    traced = tf.function(model.compiled_step, jit_compile=True).get_concrete_function(batch)
    kinds = variable_types(traced)
    assert len(kinds) > 3 and not set(kinds) & set(WITHOUT_DEVICE)
    same_losses = {key: float(value) for key, value in traced(batch).items()}
    compiled = [variable.numpy() for variable in state]
    for key, value in losses.items():
        np.testing.assert_allclose(same_losses[key], value, rtol=1e-4, err_msg=key)
    assert any(np.any(a != before) for a, before in zip(plain, start, strict=True))
    for variable, a, b, before in zip(state, plain, compiled, start, strict=True):
        # Rounding can turn the gradient of |x| or a rectifier where its input is about zero: weights moved by 1e-7 of
        # themselves change an update of DG-Net's by up to 0.9 %. A wrong gradient changes it as a whole.
        bound = max(1e-6, 1e-2 * np.abs(a - before).max())
        np.testing.assert_allclose(a, b, atol=bound, rtol=0, err_msg=variable.name)


def begun(model, stage):
    model.begin(stage)
    return model


def test_two_replicas_whose_steps_are_compiled_equal_two_plain_ones(two_replicas):
    """With synchronised batch norm, and triplets that gather the features of both."""
    name, stage = "cmgan", "adversarial"
    tf.config.experimental.enable_op_determinism()
    with two_replicas.scope():
        plain, compiled = (build(name, learning_rate=1.0e-3) for _ in range(2))
    compiled.xla = True
    batch = tf.data.Dataset.from_tensors(batch_for(name, stage))
    start = [variable.numpy() for variable in plain.variables]
    losses = []
    for model in (plain, compiled):
        begun(model, stage)
        losses.append(model.advance(iter(two_replicas.experimental_distribute_dataset(batch)))[1])
    for key, value in losses[0].items():
        np.testing.assert_allclose(losses[1][key], value, rtol=1e-4, err_msg=key)
    for before, a, b in zip(start, plain.variables, compiled.variables, strict=True):
        bound = max(1e-6, 1e-4 * np.abs(a.numpy() - before).max())
        np.testing.assert_allclose(a.numpy(), b.numpy(), atol=bound, rtol=0, err_msg=a.path)
