"""A trained model -> its scores, a rank list to look at and an Embedding Projector log, in the run's folder."""

import contextlib
import json
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tf_reid.config import Config, ConfigError
from tf_reid.data import pipeline
from tf_reid.data.records import Records
from tf_reid.evaluation import extraction, pages
from tf_reid.evaluation.baselines import ColourCovariance, adaptive_batch_norm, colour_histogram, small_pixels
from tf_reid.evaluation.feature_store import Store, can_keep
from tf_reid.files import write_text
from tf_reid.methods.representation import Representation
from tf_reid.metrics import verification
from tf_reid.pictures import curves, grids
from tf_reid.runs import run_folder
from tf_reid.runs.splits import fair_trials, load_data, protocol_of, scored_domain, training_records

SHOWN = ("rank1", "rank5", "rank10", "rank20", "mAP", "mAP_trapezoid", "mINP")


class Trained(NamedTuple):
    """A run as its last checkpoint has it.

    Attributes:
        domains: every record. seen: what the run was trained on.
        averaged: makes the context in which an unfinished stage's players carry their mean weights.
        finished: whether the training came to its end.
    """

    model: object
    config: Config
    domains: dict[str, Records]
    seen: dict[str, Records]
    averaged: object
    finished: bool = True


def open_trained(folder: Path, overrides=()) -> Trained:
    """Open a run; of one that is not finished, say how far it is.

    Raises:
        ConfigError: there is no run, it has no checkpoint yet, its images changed, or a setting cannot be overridden.
    """
    if refused := [setting for setting in overrides if not re.match(r"evaluate\.|data\.(data|manual)_dir=", setting)]:
        raise ConfigError(
            f"--set {refused[0]}: a trained run can only change evaluate.*, data.data_dir, data.manual_dir."
        )
    trained, config = run_folder.load_run(folder), run_folder.load_run(folder, overrides)
    run_folder.make_deterministic(config)
    domains = load_data(config)
    seen = training_records(trained, domains)
    run_folder.check_data(folder, seen)
    model, progress = run_folder.restored(folder, config)
    finished = int(progress.stage)
    averaged = contextlib.nullcontext
    if finished < len(config.stages):
        name = list(config.stages)[finished]
        print(f"The run is not finished: stage {name} is at step {int(model.step)} of {config.stages[name].steps}.")
        model.begin(name)
        averaged = model.averaged
    return Trained(model, config, domains, seen, averaged, finished >= len(config.stages))


def scores(model, config: Config, domains: dict[str, Records], seen: dict[str, Records]) -> dict:
    """Representation -> metrics on the data set that the run is for: the target where there is one, else the source.

    Args:
        domains: every record. seen: what the run was trained on.
    """
    scored = domains[scored_domain(config)]
    trials = fair_trials(config, scored, seen)
    return {
        name: _score(comparison_of(representation, scored, trials, config), scored, trials, config)
        for name, representation in representations(model, config, scored).items()
    }


def representations(model, config: Config, scored: Records) -> dict[str, Representation]:
    """Name -> representation, of the model's representations that can be scored as configured.

    Raises:
        ConfigError: the protocol lets probes and galleries change parts, and the method has an encoder for each.
    """
    found = model.representations()
    both = protocol_of(scored, config.evaluate.protocol).get("both_directions")
    if both and any("probe" in representation.encoders for representation in found.values()):
        raise ConfigError(
            f"evaluate.protocol: {config.evaluate.protocol or scored.default_protocol} of {scored.name} also takes "
            f"gallery images as queries, but {config.method['name']} has an encoder for each side; choose another one."
        )
    if config.evaluate.rerank:  # which needs a distance
        found = {name: by_distance for name, by_distance in found.items() if by_distance.similarity is None}
    return found


def evaluate(model, config: Config, domains, seen, folder: Path, baselines=False, rates=None) -> dict:
    """Score every representation and write metrics.json, rank lists and the projector's log; print the table.

    Args:
        baselines: also score what a translation has to beat.
        rates: false-match rates to set thresholds of "the same person" at, see `verification.verify`; None: no such.
    """
    if rates is not None and config.evaluate.rerank:
        raise ConfigError(
            "A threshold needs evaluate.rerank=false: a re-ranked distance depends on the whole gallery, so no "
            "threshold on it holds for another."
        )
    results, scored = {}, domains[scored_domain(config)]
    trials = fair_trials(config, scored, seen)
    calibrating = _calibrating(config, scored, seen) if rates is not None else {}
    store = Store(folder / "evaluation" / "features")
    for name, representation in representations(model, config, scored).items():
        keeping = store if can_keep(representation.encoders) else None
        comparison = comparison_of(representation, scored, [*trials, *calibrating.values()], config, keeping)
        results[name] = _score(comparison, scored, trials, config)
        if rates is not None:
            found = [_verify(comparison, scored, trial, calibrating.get(trial.name), rates, config) for trial in trials]
            results[name]["verification"] = verification.average(found)
        looks = comparison, scored, trials[0], config.data.image_size, config.run.seed
        grids.write_png(folder / "evaluation" / f"rank_list_{name}.png", pages.rank_list(*looks))
        pages.write_projector(folder, name, *looks)
    store.remove_the_rest()
    if rates is not None:
        found = {name: result["verification"]["curve"] for name, result in results.items()}
        grids.write_png(folder / "evaluation" / "roc.png", curves.roc(found))
    if baselines:
        results |= _baselines(model, config, domains, seen)
    write_text(folder / "metrics.json", json.dumps(results, indent=2, default=_plain) + "\n")
    print(table(results, scored.name))
    print(f"Written: {folder / 'metrics.json'}, {folder / 'evaluation'}; to look at: tensorboard --logdir {folder}")
    return results


def table(results: dict, name: str) -> str:
    """The metrics as text, per cent, with the spread over trials where there are several."""
    first = next(iter(results.values()))
    lines = [
        f"{name}, protocol {first['protocol']}, {first['trials']} trial(s): "
        f"{first['queries']} queries, {first['gallery']} gallery images",
        *([first["description"]] if first["description"] else []),
        f"{'':22}" + "".join(f"{key:>15}" for key in SHOWN),
    ]
    for representation, result in results.items():
        cells = (
            f"{result[key]:.1f} ± {result['spread'][key]:.1f}" if result["trials"] > 1 else f"{result[key]:.1f}"
            for key in SHOWN
        )
        lines.append(f"{representation:22}" + "".join(f"{cell:>15}" for cell in cells))
        if result["dropped"]:
            lines.append(f"{'':22}{result['dropped']:g} queries have no match in the gallery and are left out:")
            lines += [f"{'':22}- {count:g}: {reason}" for reason, count in result["dropped_because"].items()]
    for representation, result in results.items():
        if "verification" in result:
            lines += _verified(representation, result["verification"])
    return "\n".join(lines)


def _verified(representation, found):
    """A representation's thresholds as lines of text."""
    yield (
        f"{representation}: the same person or not, {found['same_pairs']:g} and {found['different_pairs']:g} pairs; "
        f"equal error rate {found['eer']:.2f} %"
    )
    for one in found["thresholds"]:
        wanted = "equal errors" if one["set_at"] == "equal" else f"{one['set_at']:g} % false matches"
        yield (
            f"  threshold {one['threshold']:.4f}, set at {wanted} of other persons: "
            f"{one['true_match_rate']:.2f} % true matches, {one['false_match_rate']:.3f} % false"
        )


def comparison_of(representation: Representation, scored, trials, config, store=None) -> extraction.Comparison:
    """The features that the trials need, from the encoders or the store, as configured to be compared."""
    settings = config.evaluate
    options = {"batch_size": settings.batch_size, "flip": settings.flip, "store": store}
    features = extraction.extract_roles(representation.encoders, scored, trials, config.data.image_size, **options)
    return extraction.Comparison(*features, settings.distance, settings.rerank, representation.similarity)


def _score(comparison, scored, trials, config):
    name = config.evaluate.protocol or scored.default_protocol
    description = scored.protocols[name].get("description", "")  # tells official splits from drawn ones
    return extraction.score(comparison, scored, trials) | {"protocol": name, "description": description}


def _calibrating(config, scored, seen):
    """A trial's name -> the trial of its validation persons, where there are such who can set a threshold fairly.

    They cannot if they were trained on, or if no two cameras saw one of them.
    """
    protocol = protocol_of(scored, config.evaluate.protocol)
    if not protocol.get("validation_identities") or protocol.get("gallery_files"):
        return {}  # files name test persons alone
    theirs = {"test_identities": protocol["validation_identities"], "validation_identities": None, "distractors": None}
    try:
        found = fair_trials(config, scored, seen, protocol=protocol | theirs)
    except ValueError:  # none is fair, or one has no query or gallery
        return {}
    return {trial.name: trial for trial in found if _can_be_told(scored, trial)}


def _can_be_told(scored, trial):
    """Whether a trial has pairs of one person and of two, from different cameras."""
    nothing = np.zeros(len(trial.gallery), np.float32)
    blocks = _pairs(lambda block: np.broadcast_to(nothing, (block.stop - block.start, len(nothing))), scored, trial)()
    return all(np.sum([(len(same), len(different)) for same, different in blocks], axis=0))


def _verify(comparison, scored, trial, calibrating, rates, config):
    """Thresholds set on the validation persons where there are such, else on one half of a trial's persons."""
    if calibrating is not None:
        parts = calibrating, trial
    else:
        identity = scored.identity[trial.query], scored.identity[trial.gallery]
        identities = np.unique(np.concatenate(identity))
        identities = np.random.default_rng(config.run.seed).permutation(identities[identities > 0])
        halves = identities[: len(identities) // 2], identities[len(identities) // 2 :]
        parts = (trial.part(np.isin(identity[0], half), np.isin(identity[1], half)) for half in halves)
    return verification.verify(*(_pairs(comparison.distances(part), scored, part) for part in parts), rates)


def _pairs(distances, scored, trial):
    labels = extraction.labels(scored, trial.query, trial.gallery)
    return verification.pairs(distances, *labels, trial.ignored_cameras)


def _baselines(model, config, domains, seen):
    """What learns nothing, pixels and colours, and, for a target, its colours or batch statistics alone."""
    size = config.data.image_size
    scored = domains[scored_domain(config)]
    trials = fair_trials(config, scored, seen)
    needed = np.unique(np.concatenate([part for trial in trials for part in (trial.query_images, trial.gallery)]))
    plain = {"pixels": small_pixels, "colour_histogram": colour_histogram}
    parts = {name: [] for name in plain}
    for batch in pipeline.image_batches(scored.take(needed), size, 64):
        for name, features_of in plain.items():
            parts[name].append(features_of(pipeline.to_uint8(batch)))
    found = {}
    for name in plain:
        features = extraction.filled([(needed, np.concatenate(parts[name]))], len(scored))
        comparison = extraction.Comparison(features, features, config.evaluate.distance, config.evaluate.rerank)
        found[name] = _score(comparison, scored, trials, config)
    if "target" in seen:
        encoder = model.representations()["raw"].encoders["image"]
        fitted = {
            "colour_covariance": ColourCovariance(encoder, seen["source"], seen["target"], size),
            "adaptive_batch_norm": adaptive_batch_norm(encoder, seen["target"], size),
        }
        trials = fair_trials(config, scored, seen, adapted=True)  # not scored where they are fitted
        for name, encoder in fitted.items():
            comparison = comparison_of(Representation({"image": encoder}), scored, trials, config)
            found[name] = _score(comparison, scored, trials, config)
    return found


def _plain(value):
    return value.tolist() if isinstance(value, np.ndarray) else value.item()
