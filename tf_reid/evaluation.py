"""A trained model -> its scores, a rank list to look at and an Embedding Projector log, in the run's folder."""

import json
from pathlib import Path

import numpy as np

from tf_reid import data, metrics, pictures, scoring
from tf_reid.baselines import ColourCovariance, adaptive_batch_norm
from tf_reid.config import Config
from tf_reid.runs import write_text
from tf_reid.splits import fair_trials, scored_domain

SHOWN = ("rank1", "rank5", "rank10", "rank20", "mAP", "mAP_trapezoid", "mINP")


def scores(model, config: Config, domains: dict[str, data.Records], seen: dict[str, data.Records]) -> dict:
    """Representation -> metrics on the data set that the run is for: the target where there is one, else the source.

    Args:
        domains: every record. seen: what the run was trained on.
    """
    return {name: result for name, (result, _) in _representations(model, config, domains, seen).items()}


def evaluate(model, config: Config, domains, seen, folder: Path, baselines=False) -> dict:
    """Score every representation and write metrics.json, rank lists and the projector's log; print the table."""
    results, scored = {}, domains[scored_domain(config)]
    for name, (result, features) in _representations(model, config, domains, seen).items():
        results[name] = result
        _look_at(name, features, scored, seen, config, folder)
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
            lines.append(f"{'':22}{result['dropped']} queries have no match in the gallery and are left out")
    return "\n".join(lines)


def _representations(model, config, domains, seen):
    scored = domains[scored_domain(config)]
    found = {}
    for name, encoders in model.representations().items():
        options = {"batch_size": config.evaluate.batch_size, "flip": config.evaluate.flip}
        features = scoring.extract_roles(encoders, scored, config.data.image_size, **options)
        found[name] = (_score(features, scored, seen, config), features)
    return found


def _score(features, scored, seen, config, adapted=None):
    trials = fair_trials(config, scored, seen, adapted)
    result = scoring.score(*features, scored, trials, config.evaluate.distance)
    name = config.evaluate.protocol or scored.default_protocol
    description = scored.protocols[name].get("description", "")  # tells official splits from drawn ones
    return result | {"protocol": name, "description": description}


def _baselines(model, config, domains, seen):
    """The raw encoder behind a colour map, the same with the target's batch statistics, and a colour histogram."""
    size = config.data.image_size
    encoder = model.representations()["raw"]["image"]
    scored = domains[scored_domain(config)]
    options = {"batch_size": config.evaluate.batch_size, "flip": config.evaluate.flip}
    histograms = [metrics.colour_histogram(data.to_uint8(batch)) for batch in data.image_batches(scored, size, 64)]
    features = {"colour_histogram": np.concatenate(histograms)}
    if "target" in seen:
        matched = ColourCovariance(encoder, seen["source"], seen["target"], size)
        features["colour_covariance"] = scoring.extract(matched, scored, size, **options)
        adapted = adaptive_batch_norm(encoder, seen["target"], size)
        features["adaptive_batch_norm"] = scoring.extract(adapted, scored, size, **options)
    fitted = {"colour_covariance", "adaptive_batch_norm"}  # to the target's training images: not scored where these are
    return {
        name: _score((values, values), scored, seen, config, adapted=True if name in fitted else None)
        for name, values in features.items()
    }


def _look_at(name, features, scored, seen, config, folder, queries=8, ranks=10, points=2000):
    """The rank lists of some queries of the first trial, and the projector's log of its gallery and queries."""
    trial = fair_trials(config, scored, seen)[0]
    rng = np.random.default_rng(config.run.seed)
    chosen = np.sort(rng.choice(trial.query, min(queries, len(trial.query)), replace=False))
    distances = metrics.pairwise_distance(features[0][chosen], features[1][trial.gallery], config.evaluate.distance)
    same_person = scored.person[chosen][:, None] == scored.person[trial.gallery]
    ignored = np.broadcast_to(scored.person[trial.gallery] < 0, same_person.shape)
    if trial.same_camera_ignored:
        ignored = ignored | same_person & (scored.camera[chosen][:, None] == scored.camera[trial.gallery])
    distances = np.where(ignored, np.inf, distances)
    ranks = min(ranks, int((~ignored).sum(axis=1).min()))
    order = np.argsort(distances, axis=1, kind="stable")[:, :ranks]

    def pixels(indices):
        batches = data.image_batches(scored.take(indices), config.data.image_size, 64)
        return np.concatenate([data.to_uint8(batch) for batch in batches])

    def caption(index):
        return f"person {scored.person[index]}\ncamera {scored.camera[index]}"

    shown = np.unique(order)
    picture = pictures.rank_list(
        pixels(chosen),
        pixels(trial.gallery[shown]),
        np.searchsorted(shown, order),
        np.take_along_axis(same_person, order, axis=1),
        [caption(i) for i in chosen],
        [
            [f"{caption(trial.gallery[g])}\n{row[g]:.3f}" for g in found]
            for row, found in zip(distances, order, strict=True)
        ],
    )
    pictures.write_png(folder / "evaluation" / f"rank_list_{name}.png", picture)
    query, gallery = (part[: points // 2] for part in (rng.permutation(trial.query), rng.permutation(trial.gallery)))
    both = np.concatenate([query, gallery])
    roles = np.repeat(["query", "gallery"], [len(query), len(gallery)])
    embedded = np.concatenate([features[0][query], features[1][gallery]])
    labels = {
        "person": scored.person[both],
        "camera": scored.camera[both],
        "role": roles,
        "file": scored.file[both],
    }
    pictures.write_projector(folder / "tensorboard" / "embeddings" / name, embedded, labels, pixels(both))


def _plain(value):
    return value.tolist() if isinstance(value, np.ndarray) else value.item()
