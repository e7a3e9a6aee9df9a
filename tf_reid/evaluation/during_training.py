"""What is scored while a stage trains: the representations that it changes, by some of the queries where asked."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import keras
import numpy as np

from tf_reid.config import ConfigError
from tf_reid.data.records import Records
from tf_reid.methods.base import ReIDModel
from tf_reid.methods.representation import Representation
from tf_reid.metrics.protocols import Trial
from tf_reid.settings import Config


def changed(model: ReIDModel, representations: Mapping[str, Representation], stage: str) -> dict[str, Representation]:
    """The representations that a stage changes and that are whole by then.

    A representation is changed if a player of the stage moves one of its networks. It is not whole while one of its
    networks waits for a later stage to move it for the first time.
    """
    stages = list(model.STAGES)
    until_now = stages[: stages.index(stage) + 1]
    moved = _variables(model, [stage])
    waiting = _variables(model, (set(stages) - set(until_now)) & _trained(model)) - _variables(model, until_now)
    found = {}
    for name, representation in representations.items():
        own = _ids(representation.networks)
        if own & moved and not own & waiting:
            found[name] = representation
    return found


def check_watched(model: ReIDModel, config: Config, representations: Mapping[str, Representation]) -> None:
    """Make sure that every stage that watches a score changes what is scored.

    Raises:
        ConfigError: one does not.
    """
    for name, stage in config.stages.items():
        for key, watched in stage.watched.items():
            if watched != "loss" and not changed(model, representations, name):
                raise ConfigError(
                    f"stages.{name}.{key} watches the {watched} of validation identities, but stage {name} changes no "
                    "representation that is scored; set it to null."
                )


def fewer_queries(trials: Sequence[Trial], records: Records, count: int) -> list[Trial]:
    """The trials with `count` of their queries each, 0: with all.

    A hash of a file's name decides whether it is taken, so these are the same queries in every evaluation of every run.
    """
    return [_fewer(trial, records, count) if 0 < count < len(trial.query) else trial for trial in trials]


def _fewer(trial, records, count):
    digests = [hashlib.sha256(str(file).encode()).digest() for file in records.file[trial.query]]
    first = sorted(range(len(digests)), key=digests.__getitem__)[:count]
    return trial.part(np.isin(np.arange(len(digests)), first), np.ones(len(trial.gallery), bool))


def _trained(model) -> set[str]:
    """The stages that have steps."""
    return {name for name, steps in model.steps_of_stage.items() if steps}


def _variables(model, stages: Iterable[str]) -> set[int]:
    """What identifies the variables of the players that these stages move."""
    networks = model.players()
    players = {player for stage in stages for player in model.STAGES[stage].players}
    return _ids(network for player in players for network in networks[player])


def _ids(networks: Iterable[keras.Model]) -> set[int]:
    return {id(variable) for network in networks for variable in network.weights}
