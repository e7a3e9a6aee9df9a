"""What must agree before a method trains: its `STAGES`, its step methods, its players, and the settings of a run."""

from tf_reid.config import ConfigError
from tf_reid.data.samplers import SAMPLERS
from tf_reid.methods.staged_model import StagedModel
from tf_reid.settings import StageSettings


def check_method(method):
    """Every stage of a method has its step method, a known sampler and players that exist.

    Args:
        method: a `ReIDModel`.

    Raises:
        ValueError: one is missing; the message names the stage and what it lacks.
    """
    name, players = type(method).__name__, method.players()
    for stage, about in method.STAGES.items():
        if hasattr(StagedModel, f"{stage}_step"):
            raise ValueError(f"{name}: a stage cannot be called {stage!r}: {stage}_step is a method of Keras.")
        if not callable(getattr(method, f"{stage}_step", None)):
            raise ValueError(f"{name} has a stage {stage!r} and no method {stage}_step(batch); write it.")
        if about.sampler not in SAMPLERS:
            raise ValueError(
                f"{name}: stage {stage!r} names the sampler {about.sampler!r}; the samplers are: {', '.join(SAMPLERS)}."
            )
        if missing := [player for player in about.players if player not in players]:
            raise ValueError(
                f"{name}: stage {stage!r} moves the player {missing[0]!r}, which players() does not return; it "
                f"returns: {', '.join(players)}."
            )


def check_settings(method, settings: dict[str, StageSettings]):
    """The settings have every stage of the method, an optimizer for each of its players, and a loss to minimise.

    Args:
        method: a `ReIDModel`. settings: stage -> its settings.

    Raises:
        ConfigError: they differ; the message names the setting.
    """
    name, stages = type(method).__name__, ", ".join(method.STAGES)
    for stage in settings:
        if stage not in method.STAGES:
            raise ConfigError(f"stages.{stage}: {name} has no such stage; its stages are: {stages}.")
    for stage, about in method.STAGES.items():
        if stage not in settings:
            raise ConfigError(f"stages.{stage} is missing; the stages of {name} are: {stages}.")
        optimizers = settings[stage].optimizers
        for player in about.players:
            if player not in optimizers:
                raise ConfigError(f"stages.{stage}.optimizers.{player} is missing: stage {stage} trains {player}.")
        for player in optimizers:
            if player not in about.players:
                raise ConfigError(
                    f"stages.{stage}.optimizers.{player}: stage {stage} does not train {player}; it trains: "
                    f"{', '.join(about.players)}."
                )
            key = f"stages.{stage}.optimizers.{player}"
            _check_backbone(method, key, player, optimizers[player], settings[stage].steps)
            if optimizers[player].ema_momentum and _keeps_batch_statistics(method, player):
                raise ConfigError(
                    f"stages.{stage}.optimizers.{player}.ema_momentum: the batch normalisation of {player} keeps "
                    "statistics that do not fit averaged weights; set it to 0."
                )
        for key, watched in settings[stage].watched.items():
            if watched == "loss" and not about.validated:
                raise ConfigError(
                    f"stages.{stage}.{key}: the loss of stage {stage} needs identities that it is trained on, so it "
                    "cannot be computed for validation identities; watch rank1 or mAP, or set it to null."
                )
        if settings[stage].steps and about.weight and not getattr(method, about.weight):
            raise ConfigError(
                f"method.{about.weight} is 0, which leaves stage {stage} nothing to learn; set stages.{stage}.steps=0."
            )


def _check_backbone(method, key, player, optimizer, steps):
    if player in method.backbones():
        if 0 < steps <= optimizer.freeze_steps:
            raise ConfigError(
                f"{key}.freeze_steps is {optimizer.freeze_steps}, but the stage has {steps} steps, so the backbone "
                "would never move; set fewer."
            )
        return
    for name, default in (("backbone_rate", 1.0), ("freeze_steps", 0)):
        if getattr(optimizer, name) != default:
            raise ConfigError(f"{key}.{name}: the player {player} holds no backbone; set it to {default:g}.")


def _keeps_batch_statistics(method, player):
    return any("moving_mean" in variable.path for network in method.players()[player] for variable in network.weights)
