"""What a method or its settings lack is named when it is compiled, before anything trains."""

from typing import ClassVar

import keras
import pytest
from conftest import IDENTITIES, SIZE, build, stage_configs

from tf_reid.config import ConfigError
from tf_reid.methods.base import ReIDModel, Stage


class TwoStages(ReIDModel):
    """A method with two stages, the name of one being the beginning of the other's."""

    STAGES: ClassVar = {
        "a": Stage(players=("encoder",), sampler="pairs"),
        "a_b": Stage(players=("encoder", "head"), sampler="pairs", weight="head_weight"),
    }

    def __init__(self, head_weight=1.0):
        super().__init__(SIZE, IDENTITIES, 0)
        self.encoder, self.head = (keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]) for _ in range(2))
        self.head_weight = head_weight

    def players(self):
        return {"encoder": [self.encoder], "head": [self.head]}

    def a_step(self, batch):
        return {}

    def a_b_step(self, batch):
        return {}


def compiled(method, settings=None):
    method.compile(settings or stage_configs(type(method)))
    return method


def with_stage(**stage):
    """TwoStages whose stage `a` is another one."""

    class Changed(TwoStages):
        STAGES: ClassVar = TwoStages.STAGES | {"a": Stage(**{"players": ("encoder",), "sampler": "pairs"} | stage)}

    return Changed


def test_optimizers_belong_to_their_stage_and_player():
    method = compiled(TwoStages())
    assert {stage: set(players) for stage, players in method.optimizers_of.items()} == {
        "a": {"encoder"},
        "a_b": {"encoder", "head"},
    }
    assert method.optimizers_of["a"]["encoder"] is not method.optimizers_of["a_b"]["encoder"]
    assert set(method.learning_rates()) == {"encoder"}
    method.begin("a_b")
    assert set(method.learning_rates()) == {"encoder", "head"}


def test_a_stage_without_its_step_method():
    class Unwritten(TwoStages):
        STAGES: ClassVar = TwoStages.STAGES | {"c": Stage(players=("encoder",), sampler="pairs")}

    with pytest.raises(ValueError, match=r"Unwritten has a stage 'c' and no method c_step\(batch\)"):
        compiled(Unwritten())


def test_a_stage_whose_step_would_replace_one_of_keras():
    class Train(TwoStages):
        STAGES: ClassVar = {"train": Stage(players=("encoder",), sampler="pairs")}

    with pytest.raises(ValueError, match=r"Train: a stage cannot be called 'train'"):
        compiled(Train())


def test_a_sampler_that_is_not_there():
    with pytest.raises(ValueError, match=r"stage 'a' names the sampler 'triples'; the samplers are: pairs, "):
        compiled(with_stage(sampler="triples")())


def test_a_player_that_is_not_there():
    with pytest.raises(ValueError, match=r"stage 'a' moves the player 'decoder', which players\(\) does not return"):
        compiled(with_stage(players=("encoder", "decoder"))())


def test_settings_of_a_stage_that_is_not_there():
    settings = stage_configs(TwoStages)
    with pytest.raises(ConfigError, match=r"stages\.c: TwoStages has no such stage; its stages are: a, a_b"):
        compiled(TwoStages(), settings | {"c": settings["a"]})


def test_a_stage_without_settings():
    with pytest.raises(ConfigError, match=r"stages\.a_b is missing; the stages of TwoStages are: a, a_b"):
        compiled(TwoStages(), {"a": stage_configs(TwoStages)["a"]})


def test_a_player_without_optimizer():
    settings = stage_configs(TwoStages)
    with pytest.raises(ConfigError, match=r"stages\.a_b\.optimizers\.head is missing"):
        compiled(TwoStages(), settings | {"a_b": settings["a"]})


def test_an_optimizer_of_a_player_that_the_stage_does_not_train():
    settings = stage_configs(TwoStages)
    with pytest.raises(ConfigError, match=r"stages\.a\.optimizers\.head: stage a does not train head; it trains: enc"):
        compiled(TwoStages(), settings | {"a": settings["a_b"]})


def test_a_stage_whose_only_loss_has_no_weight():
    with pytest.raises(ConfigError, match=r"method\.head_weight is 0, .* set stages\.a_b\.steps=0"):
        compiled(TwoStages(head_weight=0.0))
    compiled(TwoStages(head_weight=0.0), stage_configs(TwoStages, skipped=("a_b",)))


def test_no_running_mean_beside_batch_statistics():
    with pytest.raises(ConfigError, match=r"stages\.classifier\.optimizers\.classifier\.ema_momentum: the batch norm"):
        build("identity", ema_momentum={"classifier": 0.9})


def test_a_step_names_only_players_of_its_stage():
    model = build("identity")
    model.begin("classifier")
    with pytest.raises(
        ValueError, match=r"minimize names the player 'encoders', which stage 'classifier' does not have"
    ):
        model.minimize(None, {}, "encoders")
