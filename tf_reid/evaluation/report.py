"""The report of an evaluation: metrics.json, rank lists, Embedding Projector's log, CMC and ROC curves and a table."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tf_reid.data.records import Records
from tf_reid.evaluation import pages, scoring
from tf_reid.evaluation.feature_store import Store
from tf_reid.evaluation.scoring import Metrics
from tf_reid.files import write_text
from tf_reid.methods.base import ReIDModel
from tf_reid.pictures import curves, grids
from tf_reid.runs.splits import fair_trials, scored_domain
from tf_reid.settings import Config

SHOWN = ("rank1", "rank5", "rank10", "rank20", "mAP", "mAP_trapezoid", "mINP")


def evaluate(
    model: ReIDModel,
    config: Config,
    domains: Mapping[str, Records],
    seen: dict[str, Records],
    folder: Path,
    baselines: bool = False,
    rates: Sequence[float] | None = None,
) -> dict[str, Metrics]:
    """Score every representation; write the report into the run's folder and print the table.

    Args:
        domains: every record. seen: those that the run was trained on.
        baselines: also score what a method should beat, see `scoring.score_baselines`.
        rates: false match rates to set thresholds at, see `verification.verify`; None: no thresholds.

    Returns:
        representation -> metrics.
    """
    scored = domains[scored_domain(config)]
    trials = fair_trials(config, scored, seen)
    store = Store(folder / "evaluation" / "features")
    results = {}
    for one in scoring.score_representations(model, config, scored, trials, seen, store, rates):
        results[one.name] = one.metrics
        shown = one.compared, scored, trials[0], config.data.image_size, config.run.seed
        grids.write_png(folder / "evaluation" / f"rank_list_{one.name}.png", pages.rank_list(*shown))
        pages.write_projector(folder, one.name, *shown)
    store.remove_the_rest()
    if rates is not None:
        verified = {name: metrics["verification"]["curve"] for name, metrics in results.items()}
        grids.write_png(folder / "evaluation" / "roc.png", curves.roc(verified))
    if baselines:
        results |= scoring.score_baselines(model, config, scored, trials, seen)
    by_name = {name: metrics["cmc"] for name, metrics in results.items()}
    grids.write_png(folder / "evaluation" / "cmc.png", curves.cmc(by_name))
    write_text(folder / "metrics.json", json.dumps(results, indent=2, default=plain) + "\n")
    print(table(results, scored.scored_name))
    print(f"Written: {folder / 'metrics.json'}, {folder / 'evaluation'}; to look at: tensorboard --logdir {folder}")
    return results


def table(results: Mapping[str, Metrics], name: str) -> str:
    """Metrics by representation as text, per cent, with the spread over trials where there are several.

    Args:
        name: of the data set.
    """
    first = next(iter(results.values()))
    lines = [
        f"{name}, protocol {first['protocol']}, {first['trials']} trial(s): "
        f"{count(first['queries'])} queries, {count(first['gallery'])} gallery images",
        *([first["description"]] if first["description"] else []),
        f"{'':22}" + "".join(f"{key:>15}" for key in SHOWN),
    ]
    for representation, metrics in results.items():
        cells = [cell(metrics, key) for key in SHOWN]
        lines.append(f"{representation:22}" + "".join(f"{cell:>15}" for cell in cells))
        if metrics["dropped"]:
            lines.append(f"{'':22}{count(metrics['dropped'])} queries have no match in the gallery and are left out:")
            lines += [f"{'':22}- {count(number)}: {reason}" for reason, number in metrics["dropped_because"].items()]
    for representation, metrics in results.items():
        if "verification" in metrics:
            lines += _verification_lines(representation, metrics["verification"])
    return "\n".join(lines)


def cell(metrics: Metrics, key: str) -> str:
    """A rate, per cent, with its spread over trials where there are several."""
    return f"{metrics[key]:.1f}" + (f" ± {metrics['spread'][key]:.1f}" if metrics["trials"] > 1 else "")


def count(number: float) -> str:
    """All digits of a count; of its mean over trials one decimal."""
    return f"{number:.1f}".removesuffix(".0")


def _verification_lines(representation: str, verified: Metrics) -> Iterator[str]:
    """A representation's thresholds as lines of text."""
    yield (
        f"{representation}: verification of {count(verified['same_pairs'])} pairs of the same identity and "
        f"{count(verified['different_pairs'])} of different ones; equal error rate {verified['eer']:.2f} %"
    )
    for at in verified["thresholds"]:
        wanted = "equal errors" if at["set_at"] == "equal" else f"{at['set_at']:g} % false matches"
        yield (
            f"  threshold {at['threshold']:.4f}, set on other identities at {wanted}: "
            f"{at['true_match_rate']:.2f} % true matches, {at['false_match_rate']:.3f} % false matches"
        )


def plain(value: Any) -> Any:
    """NumPy's values as `json.dumps` takes them."""
    return value.tolist() if isinstance(value, np.ndarray) else value.item()
