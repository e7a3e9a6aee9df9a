"""`run.precision=bfloat16`: a step's convolutions and products are in bfloat16, all else is float32, and it trains."""

import numpy as np
import pytest
import tensorflow as tf
from conftest import IDENTITIES, batch_for, build, random_batch

from tf_reid import config as configuration
from tf_reid.methods import METHODS
from tf_reid.runs import run_folder

PRODUCTS = {"Conv2D", "Conv2DBackpropInput", "Conv2DBackpropFilter", "MatMul", "BatchMatMulV2", "Einsum"}
CASTS = {"Cast", "ShapeN"}  # to and from bfloat16; the shapes of a convolution's factors, for its gradients
# Losses that an overfitted batch lowers; the others are won by one player and lost by another.
FALLING = {
    "Identity classifier": ["classifier/identity", "classifier/verification"],
    "SimPGAN classifier": ["classifier/identity", "classifier/verification"],
    "SimPGAN translation": ["generators/cycle", "generators/identity", "discriminators/adversarial_D_S"],
    "CmGAN pretrain": ["generator/identity"],
    "CmGAN adversarial": ["generator/identity", "generator/triplet"],
    "DGNet teacher": ["teacher/identity"],
    "DGNet pretrain": ["appearance/identity"],
    "DGNet joint": ["generator/reconstruction", "appearance/identity", "discriminator/adversarial"],
    "CrossGAN vae": ["encoders/reconstruction", "encoders/divergence"],
    "CrossGAN alignment": ["alignment/alignment"],
    "CrossGAN joint": ["discriminators/adversarial"],
    "Strong classifier": ["classifier/identity", "classifier/center"],
    "CoGAN joint": ["discriminators/identity", "discriminators/adversarial"],
    "ViewAdaptation finetune": ["mappings/identity_probe", "mappings/identity_gallery"],
    "ViewAdaptation similarity": ["mappings/match", "mappings/contrastive"],
    "ViewAdaptation adversarial": ["mappings/match", "mappings/contrastive"],
}


def traced(model, batch, step):
    """The model's training step of this phase, traced."""
    model.phase = model.phase_of(step)
    return tf.function(model.train_step).get_concrete_function(batch)


def stays_float32(operation):
    """Whether a product is one of those that a step computes in float32."""
    of_a_loss = operation.name.removeprefix("gradient_tape/").startswith("MatMul")  # distances, outside of all layers
    sums_of_taps = "doubled_conv" in operation.name and operation.type in ("Einsum", "BatchMatMulV2")
    return of_a_loss or sums_of_taps


def check_types(graph, penalty):
    """Products have bfloat16 factors, and nothing else has; `penalty`: what it differentiates is float32."""
    low = {operation.type for operation in graph.get_operations() if _uses_bfloat16(operation)}
    high = [op for op in graph.get_operations() if op.type in PRODUCTS and not _uses_bfloat16(op)]
    high = [operation for operation in high if not stays_float32(operation)]
    assert low & PRODUCTS and low <= PRODUCTS | CASTS
    if penalty:
        of_discriminator = [operation for operation in high if "/D_" in f"/{operation.name}"]
        assert of_discriminator == high != []
    else:
        assert high == []


def _uses_bfloat16(operation):
    return any(tensor.dtype.base_dtype == tf.bfloat16 for tensor in [*operation.inputs, *operation.outputs])


@pytest.mark.parametrize("name", METHODS)
def test_every_stage_trains_in_bfloat16(name):
    model = build(name, optimizer="adam", learning_rate=1e-3, l2=1e-5)
    model.precision = "bfloat16"
    start, images = model.get_weights(), random_batch()["source"][:1, 0]
    features = [encoder(images).numpy() for encoder in model.encoders().values()]
    for stage in model.STAGES:
        model.set_weights(start)
        model.begin(stage)
        train(model, batch_for(name, stage), features, images)
    assert {tf.as_dtype(variable.dtype) for variable in model.weights} == {tf.float32}


def train(model, batch, features, images):
    """Fifty steps of the present stage on one batch, its types, its losses and the players that it moves."""
    before = {player: [v.numpy() for v in model.variables_of(player)] for player in model.players()}
    steps, losses = {}, []
    for number in range(50):
        phase = str(model.phase_of(number))
        if phase not in steps:
            steps[phase] = traced(model, batch, number)
            check_types(steps[phase].graph, penalty=model.stage == "joint" and isinstance(model, METHODS["dgnet"]))
        if not number:  # what is evaluated has the same bits as before the step was traced
            for encoder, expected in zip(model.encoders().values(), features, strict=True):
                np.testing.assert_array_equal(encoder(images), expected)
        losses.append(steps[phase](batch))
    model.step.assign(0)  # the first step's draws once more, for the loss before and after
    losses.append(steps[str(model.phase_of(0))](batch))
    model.step.assign(0)

    assert all(np.isfinite(value) for each in losses for value in each.values())
    for key in FALLING[f"{type(model).__name__} {model.stage}"]:
        assert losses[-1][key] < 0.99 * losses[0][key], key
    changed = {
        player
        for player, values in before.items()
        if any(np.any(a != b.numpy()) for a, b in zip(values, model.variables_of(player), strict=True))
    }
    assert changed == set(model.STAGES[model.stage].players)


def test_replicas_and_xla_change_only_the_rounding(one_step, two_replicas):
    with two_replicas.scope():
        shared = build("crossgan")
    alone, compiled, exact = (build("crossgan") for _ in range(3))
    for model in (alone, compiled, shared):
        model.precision = "bfloat16"
    compiled.xla = True
    start, batch = alone.get_weights(), random_batch()
    for model in (alone, compiled, exact):
        one_step(model, "vae", batch)
    shared.begin("vae")
    shared.advance(iter(two_replicas.experimental_distribute_dataset(tf.data.Dataset.from_tensors(batch))))[1]

    def changes(model):
        return np.concatenate([(a - b).ravel() for a, b in zip(model.get_weights(), start, strict=True)])

    def difference(model):
        """Of a step's changes, relative to them."""
        return np.linalg.norm(changes(model) - changes(alone)) / np.linalg.norm(changes(alone))

    assert difference(shared) < 0.02 and difference(compiled) < 0.02
    assert 1e-3 < difference(exact) < 0.02


def test_the_setting_reaches_the_model():
    config = configuration.load("crossgan", ["run.precision=bfloat16"], METHODS)
    assert run_folder.build_model(config, IDENTITIES).precision == "bfloat16"
