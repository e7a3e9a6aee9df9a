"""A new encoder learns from the swaps of a finished run."""

import numpy as np
import pytest
from conftest import build, rows_of_four

from tf_reid.config import ConfigError
from tf_reid.methods.dgnet_offline import check_pretraining
from tf_reid.methods.dgnet_swaps import SwapBatch


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run's folder with the networks that make swaps, and its model."""
    folder, model = tmp_path_factory.mktemp("finished"), build("dgnet", seed=3)
    (folder / "networks").mkdir()
    for name in ("E_a", "E_s", "G"):
        model.networks()[name].save_weights(folder / "networks" / f"{name}.weights.h5")
    return str(folder), model


def one_step(model, step):
    model.step.assign(step)
    model.begin("pretrain")
    model.phase = model.phase_of(step)
    return model.train_step(rows_of_four())


def test_offline_the_swaps_are_those_of_the_finished_run_as_files_keep_them(finished):
    run, maker = finished
    model = build("dgnet", feed="offline", swaps_from=run)
    pair = SwapBatch.of(rows_of_four()).pair
    half = len(pair) // 2
    of_structure = np.concatenate([pair[half:], pair[:half]])
    found, plain = model.finished.swaps(pair).numpy(), maker.presentation().composed(pair, of_structure).numpy()
    np.testing.assert_allclose(found, plain, atol=1.01 / 255)
    levels = (found + 1.0) * 127.5
    np.testing.assert_allclose(levels, np.round(levels), atol=1e-3)

    before = {name: network.get_weights() for name, network in model.networks().items()}
    made_by = [network.get_weights() for network in (model.finished.E_a, model.finished.E_s, model.finished.G)]
    losses = one_step(model, 5)
    fed = {f"{player}/{name}" for player in ("appearance", "heads") for name in ("primary", "fine", "fine_of_real")}
    assert fed < set(losses)
    moved = {
        name
        for name, network in model.networks().items()
        if any((a != b).any() for a, b in zip(before[name], network.get_weights(), strict=True))
    }
    assert moved == {"E_a", "primary", "fine", "primary_classifier", "fine_classifier"}
    for old, network in zip(made_by, (model.finished.E_a, model.finished.E_s, model.finished.G), strict=True):
        assert all((a == b).all() for a, b in zip(old, network.get_weights(), strict=True))
    assert model.phase_of(0) == {"fed": True}
    model.stage = "joint"
    assert model.phase_of(10) == {"fed": False}
    with pytest.raises(ConfigError, match=r"feeds no swap in stage joint .* set stages\.joint\.steps=0"):
        model.check_training()

    model.identity_weight = 0.0  # Eq. 8 and 9 remain
    check_pretraining(model)
    assert set(one_step(model, 5)) == fed
    model.warm_up = 3
    with pytest.raises(ConfigError, match=r"the first 3 steps of stage pretrain .* set method\.warm_up=0"):
        check_pretraining(model)


def test_offline_begins_after_the_warm_up_and_both_heads_are_scored(finished):
    model = build("dgnet", feed="offline", swaps_from=finished[0], warm_up=3, skipped=("joint",))
    assert set(one_step(model, 2)) == {"appearance/identity", "heads/identity"}
    assert model.encoders()["image"] is model.features["both"]
    assert not {id(v) for v in model.finished.G.variables} & {id(v) for v in model.variables}
    shown = model.presentation()  # its own generator is not trained
    assert not shown.has_pictures and not shown.pages() and shown.image_maker() is None and "image" in shown.maps()
    opened = build("dgnet", feed="offline", warm_up=3, skipped=("joint",))  # as evaluation opens it, without the run
    assert opened.encoders()["image"] is opened.features["both"]
    with pytest.raises(ConfigError, match=r"method\.feed=offline needs .*method\.swaps_from=RUN"):
        opened.check_training()

    model.check_training()
    model.warm_up = model.steps_of_stage["pretrain"]
    with pytest.raises(ConfigError, match=r"feeds no swap: stage pretrain ends after 10 steps, before .*warm_up=10"):
        model.check_training()


def test_a_run_without_fitting_networks_is_refused(finished, tmp_path):
    with pytest.raises(
        ConfigError, match=r"method\.swaps_from: .*E_a\.weights\.h5 does not hold the weights of this E_a"
    ):
        build("dgnet", swaps_from=str(tmp_path))
    with pytest.raises(ConfigError, match=r"does not hold the weights of this E_s; .* width"):
        build("dgnet", swaps_from=finished[0], width=8)
