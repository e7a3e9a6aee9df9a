"""A trained model -> the scores of its representations. Nothing is written here but kept features; see `report`."""

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tf_reid.config import ConfigError
from tf_reid.data import pipeline
from tf_reid.data.records import Records
from tf_reid.evaluation import comparison, during_training, extraction
from tf_reid.evaluation.baselines import adapted_encoders, colour_histogram, small_pixels
from tf_reid.evaluation.comparison import Comparison
from tf_reid.evaluation.feature_store import Store, can_keep
from tf_reid.methods import METHODS
from tf_reid.methods.base import ReIDModel
from tf_reid.methods.representation import Representation
from tf_reid.metrics import verification
from tf_reid.metrics.protocols import Trial
from tf_reid.metrics.similarity import Similarity
from tf_reid.runs import initial_weights, reproducibility, run_folder, splits
from tf_reid.runs.splits import (
    fair_trials,
    load_data,
    scored_domain,
    training_records,
    transductive,
)
from tf_reid.runs.trials import protocol_of
from tf_reid.settings import Config

# What may be overridden: the images have to be the same, wherever they lie.
CHANGEABLE = re.compile(r"evaluate\.|data\.(data_dir|manual_dir)=|data\.(source|target)(\.\w+)?=|(source|target)=")
Metrics = dict[str, Any]  # of one representation, as in metrics.json: see `comparison.score`


class Trained(NamedTuple):
    """A run with the weights of its last checkpoint.

    Attributes:
        domains: every record. seen: those that the run was trained on.
        averaged: makes the context in which an unfinished stage's players have the running mean of their weights.
        finished: whether the training has come to its end.
    """

    model: ReIDModel
    config: Config
    domains: dict[str, Records]
    seen: dict[str, Records]
    averaged: Callable[[], contextlib.AbstractContextManager[Any]]
    finished: bool = True


@dataclass(frozen=True)
class Scored:
    """The scores of one representation, and what they were computed from."""

    name: str
    metrics: Metrics
    compared: Comparison


def open_trained(folder: Path, overrides: Sequence[str] = ()) -> Trained:
    """Open a run; if it is not finished, print how far it is.

    Raises:
        ConfigError: there is no run, it has no checkpoint yet, its images changed, or a setting cannot be overridden.
    """
    trained = run_folder.load_run(folder)
    check_overrides(trained, overrides)
    config = run_folder.load_run(folder, overrides)
    if not run_folder.same_roles(trained.data, config.data):
        raise ConfigError(
            f"--set: {folder} was trained with data.source={trained.data.source!r} and data.target="
            f"{trained.data.target!r}; name the new place of both, if they are one data set."
        )
    _check_that_folders_are_there(config)
    reproducibility.make_deterministic(config)
    domains = load_data(config)
    seen = initial_weights.known_before(training_records(trained, domains), initial_weights.of_run(folder))
    run_folder.check_data(folder, seen)
    model, progress = run_folder.restored(folder, config)
    finished = int(progress.stage)
    averaged: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext
    if finished < len(config.stages):
        name = list(config.stages)[finished]
        print(f"The run is not finished: stage {name} is at step {int(model.step)} of {config.stages[name].steps}.")
        model.begin(name)
        averaged = model.averaged
    return Trained(model, config, domains, seen, averaged, finished >= len(config.stages))


def check_overrides(trained: Config, overrides: Sequence[str]) -> None:
    """Make sure that overrides of a trained run change how it is scored, or where its images lie, and nothing else.

    Raises:
        ConfigError: one changes what was trained.
    """
    of_method = [f"method.{key}" for key in METHODS[trained.method["name"]].RESCORED]
    rescored = tuple(f"{key}=" for key in of_method)
    if refused := [one for one in overrides if not (CHANGEABLE.match(one) or one.startswith(rescored))]:
        keys = ", ".join(["evaluate.*", *of_method, "data.data_dir", "data.manual_dir"])
        raise ConfigError(
            f"--set {refused[0]}: of a trained run only {keys}, and the place of its images, data.source and "
            "data.target, can be changed."
        )


def _check_that_folders_are_there(config: Config) -> None:
    """Make sure that a user's own images lie where the run's settings say, or say how to name their new place."""
    for domain in splits.domains_of(config):
        for spec in config.data.sets_of(domain):
            for key in ("root", "csv"):
                place = spec.get(key) if isinstance(spec, dict) else None
                if place and not Path(str(place)).expanduser().exists():
                    is_list = isinstance(getattr(config.data, domain), list)
                    new = (
                        f"--set 'data.{domain}=[...]', the whole list" if is_list else f"--set data.{domain}.{key}=..."
                    )
                    raise ConfigError(
                        f"data.{domain}.{key}: there is no {place}; if the images have moved, name their place with "
                        f"{new} (without --set: start the run's training with it, which keeps it)."
                    )


def scores(
    model: ReIDModel,
    config: Config,
    domains: Mapping[str, Records],
    seen: dict[str, Records],
    during: str | None = None,
) -> dict[str, Metrics]:
    """Representation -> metrics on the data set that the run is for: the target where there is one, else the source.

    Args:
        domains: every record. seen: those that the run was trained on.
        during: the stage that is being trained. Then only what it changes is scored, by `run.evaluate_queries` queries
            of each trial, as the description says.
    """
    scored = domains[scored_domain(config)]
    trials, by_name = fair_trials(config, scored, seen), representations(model, config, scored)
    described = ""
    if during is not None:
        by_name = during_training.changed(model, by_name, during)
        if count := config.run.evaluate_queries:
            trials = during_training.fewer_queries(trials, scored, count)
            described = f"At most {count} queries of each trial, the same in every evaluation."
    metrics = {}
    for name, compared in comparisons(by_name, scored, trials, config):
        metrics[name] = _score(compared, scored, trials, config)
        metrics[name]["description"] = f"{metrics[name]['description']} {described}".strip()
    return metrics


def score_representations(
    model: ReIDModel,
    config: Config,
    scored: Records,
    trials: Sequence[Trial],
    seen: dict[str, Records],
    store: Store,
    rates: Sequence[float] | None = None,
) -> Iterator[Scored]:
    """Score every representation, one after the other, with features that are kept in `store`.

    Args:
        scored: the records of the scored data set. trials: its fair trials.
        seen: the records that the run was trained on.
        rates: false match rates to set thresholds at, see `verification.verify`; None: no thresholds.

    Raises:
        ConfigError: thresholds are wanted of re-ranked distances.
        ValueError: a rate is too small for the number of pairs.
    """
    if rates is not None and config.evaluate.rerank:
        raise ConfigError(
            "A threshold needs evaluate.rerank=false: a re-ranked distance depends on the whole gallery, so its "
            "thresholds do not hold for another gallery."
        )
    calibrating = _calibrating(config, scored, seen) if rates is not None else {}
    by_name, needed = representations(model, config, scored), [*trials, *calibrating.values()]
    for name, compared in comparisons(by_name, scored, needed, config, store):
        metrics = _score(compared, scored, trials, config)
        if rates is not None:
            verified = [_verify(compared, scored, t, calibrating.get(t.name), rates, config) for t in trials]
            metrics["verification"] = verification.average(verified)
        yield Scored(name, metrics, compared)


def representations(model: ReIDModel, config: Config, scored: Records) -> dict[str, Representation]:
    """Name -> representation, of the model's representations that can be scored as configured.

    Raises:
        ConfigError: the protocol exchanges queries and gallery, and the method has an encoder for each.
    """
    by_name = dict(model.representations())
    both = protocol_of(scored, config.evaluate.protocol).get("both_directions")
    if both and any("probe" in representation.encoders for representation in by_name.values()):
        raise ConfigError(
            f"evaluate.protocol: {config.evaluate.protocol or scored.default_protocol} of {scored.scored_name} also "
            f"takes gallery images as queries, but {config.method['name']} has an encoder for each side; choose "
            "another protocol."
        )
    if config.evaluate.rerank:  # which needs a distance
        by_name = {name: one for name, one in by_name.items() if one.similarity is None}
    return by_name


def comparisons(
    representations: Mapping[str, Representation],
    scored: Records,
    trials: Sequence[Trial],
    config: Config,
    store: Store | None = None,
) -> Iterator[tuple[str, Comparison]]:
    """Each representation's name and the features that the trials need, compared as configured.

    The features are from the encoders or the store. Representations that share a trunk are extracted together, once the
    first of them is wanted.
    """
    settings = config.evaluate
    extracted: dict[str, extraction.Sides] = {}  # of representations that are still to come
    for name, representation in representations.items():
        if name not in extracted:
            trunk = extraction.trunk(representation.encoders)
            alike = {other: one.encoders for other, one in representations.items()}
            extracted |= extraction.extract_together(
                {other: encoders for other, encoders in alike.items() if extraction.trunk(encoders) == trunk},
                scored,
                trials,
                config.data.image_size,
                batch_size=settings.batch_size,
                flip=settings.flip,
                store=store if can_keep(representation.encoders) else None,
            )
        sides = extracted.pop(name)
        yield name, Comparison(*sides, settings.distance, settings.rerank, representation.similarity)


def comparison_of(
    representation: Representation, scored: Records, trials: Sequence[Trial], config: Config
) -> Comparison:
    """As `comparisons`, of one representation."""
    return next(comparisons({"": representation}, scored, trials, config))[1]


def score_baselines(
    model: ReIDModel, config: Config, scored: Records, trials: Sequence[Trial], seen: dict[str, Records]
) -> dict[str, Metrics]:
    """Name -> metrics of what a method should beat.

    These are pixels and colour histograms, which learn nothing. Where there is a target and the method has one encoder,
    it is also the raw encoder after two simple adaptations: to the target's colours, or to its batch statistics.
    """
    size = config.data.image_size
    plain: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "pixels": small_pixels,
        "colour_histogram": colour_histogram,
    }
    needed = np.unique(np.concatenate([part for trial in trials for part in (trial.query_images, trial.gallery)]))
    batches: dict[str, list[np.ndarray]] = {name: [] for name in plain}
    for batch in pipeline.image_batches(scored.take(needed), size, 64):
        for name, features_of in plain.items():
            batches[name].append(features_of(pipeline.to_uint8(batch)))
    metrics = {}
    for name in plain:
        features = extraction.filled([(needed, np.concatenate(batches[name]))], len(scored))
        compared = Comparison(features, features, config.evaluate.distance, config.evaluate.rerank)
        metrics[name] = _score(compared, scored, trials, config)
    encoder = model.representations()["raw"].encoders.get("image")
    if "target" in seen and encoder is None:
        print("colour_covariance and adaptive_batch_norm are left out: they adapt one encoder, this method has two.")
    elif "target" in seen:
        adapted = adapted_encoders(encoder, seen["source"], seen["target"], size)
        trials = fair_trials(config, scored, seen, adapted=True)  # without the images that they were adapted to
        for name, encoder in adapted.items():
            compared = comparison_of(Representation({"image": encoder}), scored, trials, config)
            metrics[name] = _score(compared, scored, trials, config)
    return metrics


def _score(compared: Comparison, scored: Records, trials: Sequence[Trial], config: Config) -> Metrics:
    name = config.evaluate.protocol or scored.default_protocol
    description = scored.protocols[name].get("description", "")  # tells official splits from drawn ones
    if config.evaluate.identities == "validation":
        name, description = f"{name}, validation identities", ""
    elif transductive(config):
        description = f"{description} Transductive: the training saw the scored images, without their labels.".strip()
    return comparison.score(compared, scored, trials) | {"protocol": name, "description": description}


def _calibrating(config: Config, scored: Records, seen: dict[str, Records]) -> dict[str, Trial]:
    """A trial's name -> the trial of its validation identities, where a threshold can be set on them fairly.

    It cannot if the run was trained on them or is scored on them, or if none of them was seen by two cameras.
    """
    protocol = protocol_of(scored, config.evaluate.protocol)
    validation = protocol.get("validation_identities")
    if not validation or protocol.get("gallery_files") or config.evaluate.identities == "validation":
        return {}  # files name test identities alone
    of_validation = {"test_identities": validation, "validation_identities": None, "distractors": None}
    try:
        trials = fair_trials(config, scored, seen, protocol=protocol | of_validation)
    except ValueError:  # none is fair, or one has no query or gallery
        return {}
    return {trial.name: trial for trial in trials if _has_both_kinds_of_pairs(scored, trial)}


def _has_both_kinds_of_pairs(scored: Records, trial: Trial) -> bool:
    """Whether a trial has pairs of the same identity and of different ones, from different cameras."""
    zeros = np.zeros(len(trial.gallery), np.float32)

    def no_distances(block: slice) -> np.ndarray:
        return np.broadcast_to(zeros, (block.stop - block.start, len(zeros)))

    blocks = _pairs(no_distances, scored, trial)()
    return all(np.sum([(len(same), len(different)) for same, different in blocks], axis=0))


def _verify(
    compared: Comparison,
    scored: Records,
    trial: Trial,
    calibrating: Trial | None,
    rates: Sequence[float],
    config: Config,
) -> Metrics:
    """Thresholds set on the validation identities where there are any, else on one half of a trial's identities."""
    if calibrating is not None:
        parts = [calibrating, trial]
    else:
        identity = scored.identity[trial.query], scored.identity[trial.gallery]
        identities = np.unique(np.concatenate(identity))
        identities = np.random.default_rng(config.run.seed).permutation(identities[identities > 0])
        halves = identities[: len(identities) // 2], identities[len(identities) // 2 :]
        parts = [trial.part(np.isin(identity[0], half), np.isin(identity[1], half)) for half in halves]
    calibration, held_out = (_pairs(compared.distances(part), scored, part) for part in parts)
    return verification.verify(calibration, held_out, rates)


def _pairs(distances: Similarity, scored: Records, trial: Trial) -> verification.Pairs:
    labels = comparison.labels(scored, trial.query, trial.gallery)
    return verification.pairs(distances, *labels, trial.ignored_cameras)
