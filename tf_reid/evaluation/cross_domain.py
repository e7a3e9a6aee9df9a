"""A trained run on other data sets: how much of what it learned holds for other people, cameras and places."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import yaml

from tf_reid.config import ConfigError
from tf_reid.data.records import Records, load_records
from tf_reid.evaluation import comparison, report, scoring
from tf_reid.evaluation.feature_store import Store
from tf_reid.evaluation.scoring import Metrics, Trained
from tf_reid.files import write_text
from tf_reid.metrics.protocols import Trial
from tf_reid.runs import encoder_runs, splits
from tf_reid.runs.trials import protocol_of
from tf_reid.settings import Config, DataSet

FEATURES, WRITTEN = "evaluation/cross_domain_features", "evaluation/cross_domain"
SHOWN = {"rank1": "rank-1", "rank5": "rank-5", "rank10": "rank-10", "mAP": "mAP"}


class Other(NamedTuple):
    """A data set to score a run on; its name as the user wrote it, the run's settings with its protocol."""

    name: str
    records: Records
    trials: list[Trial]
    config: Config


def evaluate(run: Trained, names: Sequence[str], folder: Path) -> dict[str, dict[str, Metrics]]:
    """Score every representation on each of these data sets; write a table into the run's folder and print it.

    Args:
        names: a data set each, as `parsed` reads it. All are looked at before the first is scored.
        folder: the run's.

    Returns:
        name -> representation -> metrics.

    Raises:
        ConfigError: a name is no data set, or is there twice; a data set shows identities that were trained on; the
            method cannot be scored by its protocol.
        DatasetError: a data set is not at hand.
    """
    if twice := [name for name in names if list(names).count(name) > 1]:
        raise ConfigError(f"--on names {twice[0]} twice.")
    others = [_opened(run, name) for name in names]
    store = Store(folder / FEATURES)
    results: dict[str, dict[str, Metrics]] = {}
    for name, records, trials, config in others:
        by_name = scoring.representations(run.model, config, records)
        scores = {}
        for representation, compared in scoring.comparisons(by_name, records, trials, config, store):
            scores[representation] = comparison.score(compared, records, trials) | _about(config, records)
        results[name] = scores
        print(f"Scored on {name}.")
    store.remove_the_rest()
    write_text(folder / f"{WRITTEN}.json", json.dumps(results, indent=2, default=report.plain) + "\n")
    write_text(folder / f"{WRITTEN}.md", table(results))
    print(table(results))
    print(f"Written: {folder / WRITTEN}.json, {folder / WRITTEN}.md")
    return results


def parsed(name: str) -> tuple[DataSet, str | None]:
    """A data set and one of its protocols, None for its default.

    Args:
        name: "viper", "viper:random_316_both", "synthetic_pedestrians/street", or a mapping as YAML: "{name: folder,
            root: FOLDER, pattern: PATTERN, protocol: same_camera}".

    Raises:
        ConfigError: the mapping is not readable.
    """
    if not name.lstrip().startswith("{"):
        spec, _, protocol = name.partition(":")
        return spec, protocol or None
    try:
        mapping = dict(yaml.safe_load(name))
    except (yaml.YAMLError, TypeError, ValueError):
        raise ConfigError(
            f"--on {name!r} is not readable as YAML; write it in quotes, such as '{{name: folder, csv: FILE}}'."
        ) from None
    protocol = mapping.pop("protocol", None)
    return mapping, protocol


def table(results: Mapping[str, Mapping[str, Metrics]]) -> str:
    """A row for each data set and representation, as Markdown; per cent, with the spread over several trials."""
    lines = [
        f"| data set | protocol | trials | queries | gallery | representation | {' | '.join(SHOWN.values())} |",
        "|---" * (6 + len(SHOWN)) + "|",
    ]
    for name, scores in results.items():
        for representation, metrics in scores.items():
            cells = [
                name.replace("|", "\\|"),
                metrics["protocol"],
                *(report.count(metrics[key]) for key in ("trials", "queries", "gallery")),
            ]
            cells += [representation, *(report.cell(metrics, key) for key in SHOWN)]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _opened(run: Trained, name: str) -> Other:
    spec, protocol = parsed(name)
    evaluate = run.config.evaluate.model_copy(update={"protocol": protocol})
    config = run.config.model_copy(update={"evaluate": evaluate})
    records = load_records(splits.built(spec, config))
    trials = splits.fair_trials_elsewhere(config, records, run.seen, protocol_of(records, protocol))
    try:
        comparison.check_matches(records, trials, "The protocol ")
    except ValueError as error:
        raise ConfigError(f"--on {name!r}: {error}") from None
    encoder_runs.check(config, {"--on": records})
    scoring.representations(run.model, config, records)
    return Other(name, records, trials, config)


def _about(config: Config, records: Records) -> Metrics:
    protocol = config.evaluate.protocol or records.default_protocol
    return {"protocol": protocol, "description": records.protocols[protocol].get("description", "")}
