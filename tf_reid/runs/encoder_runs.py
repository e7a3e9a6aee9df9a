"""A run on other data whose features a method takes: it must know none of the people here.

It knows those of its source, and those of its target where validation identities chose weights, rates or steps.
"""

from collections.abc import Mapping
from pathlib import Path

import tfds_builders
from tf_reid.config import ConfigError, is_run
from tf_reid.data.records import Records
from tf_reid.runs import initial_weights
from tf_reid.runs.run_folder import load_run
from tf_reid.settings import Config


def check(config: Config, shown: Mapping[str, Records]) -> None:
    """Make sure that the run which `method.encoder` names was trained with labels of other people.

    Args:
        shown: what is trained on or scored, by the setting or option that names it.

    Raises:
        ConfigError: it shows people whose labels that run was trained with.
    """
    run = config.method.get("encoder")
    if not run or not is_run(run):
        return
    known = populations(load_run(Path(run)))
    for key, records in shown.items():
        if known & set(records.populations):
            raise ConfigError(
                f"method.encoder: {run} was trained with labels of people whom {records.name} ({key}) shows; name a "
                "run of another data set."
            )


def populations(config: Config) -> set[str]:
    """Which people the labels are of that a run with these settings is trained with or chosen by.

    See `Records.population`.
    """
    data_dir, specs = config.data.data_dir, config.data.sets_of("source")
    if initial_weights.chooses(config):
        specs = [*specs, *config.data.sets_of("target")[:1]]
    return {tfds_builders.builder(spec, data_dir=data_dir).population for spec in specs}
