"""The quality of the images that a run generates: distances to real images, similarity within an identity."""

import csv
import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf

from tf_reid.config import ConfigError
from tf_reid.data import pipeline, samplers
from tf_reid.data.records import Records
from tf_reid.evaluation import extraction
from tf_reid.files import write_text
from tf_reid.methods.base import ReIDModel
from tf_reid.methods.presentation import Generated
from tf_reid.metrics import image_quality
from tf_reid.metrics.protocols import Trial
from tf_reid.runs import run_folder
from tf_reid.settings import Config

MOST = 5000  # images of a title that are judged


def judge(
    model: ReIDModel, config: Config, seen: dict[str, Records], folder: Path, extractor: str = "", subsets: int = 100
) -> dict[str, dict[str, float]]:
    """Write images.json in the run's folder and print it: title -> distances and similarity.

    The real images are those of an epoch of the run's last stage, without augmentation. The generated images are made
    of them, or of as many samples of the prior: equally many of both, about `MOST` at most. Beside them stands the
    title `real`: two sets of the source's images against each other that have no image in common (DG-Net, Table 2,
    which does not say what its real images are compared with). They are as large as the largest set of generated
    images; where the source has too few images for that, they are halves of it, and a sentence says so.

    Args:
        seen: what the run was trained on.
        extractor: whose features are compared: "" for the run's own encoder, another run's folder, or InceptionV3
            ("imagenet" or the path of its weights).
        subsets: of the kernel distance.

    Raises:
        ConfigError: the method generates no images, or the extractor does not suit them.
    """
    name, features = _features(model, folder, extractor)
    made = _generate(model, config, seen)
    most = max(len(of_title.images) for of_title in made.values())
    made["real"] = _real_halves(seen["source"], config, most)
    results = {}
    for title, (images, real, identities) in made.items():
        results[title] = _distances(_in_batches(features, real), _in_batches(features, images), name, subsets)
        if identities is not None:
            results[title]["SSIM within an identity"] = image_quality.likeness_within(images, identities)
        results[title]["images"] = len(images)
    write_text(folder / "images.json", json.dumps(results, indent=2) + "\n")
    for title, values in results.items():
        print(f"{title}: " + ", ".join(f"{key} {value:.4g}" for key, value in values.items()))
    if len({values["images"] for values in results.values()}) > 1:
        print("The rows are of different numbers of images, on which FID depends: compare their KID.")
    return results


def write_images(model: ReIDModel, config: Config, seen: dict[str, Records], to: Path) -> int:
    """Write the images that `judge` would judge, and a table of whom they show: a data set for `folder`.

    `TO/TITLE/000000.png` and so on, and `TO/labels.csv` with the identities of the source, all in the split `train`, of
    the camera `generated`; of images without a certain identity the table has no row. The folder gets its name when
    all is written.

    Args:
        to: a folder that does not exist yet.

    Returns:
        how many images were written.

    Raises:
        ConfigError: the folder exists, or the method generates no images.
    """
    if to.exists():
        raise ConfigError(f"--write-images: {to} exists already; name a folder that does not.")
    made = _generate(model, config, seen)
    beside = to.with_name(f".{to.name}.unfinished")
    shutil.rmtree(beside, ignore_errors=True)  # what a killed command left
    try:
        _write_data_set(made, seen["source"], beside)
        os.rename(beside, to)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    count = sum(len(of_title.images) for of_title in made.values())
    print(f"{count} generated images are in {to}.")
    return count


def _write_data_set(made: dict[str, Generated], source: Records, to: Path) -> None:
    people, table = np.unique(source.identity).tolist(), io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(["path", "person", "camera", "split"])
    for title, (images, _, identities) in made.items():
        (to / title).mkdir(parents=True)
        for number, image in enumerate(images):
            name = f"{title}/{number:06}.png"
            (to / name).write_bytes(tf.io.encode_png(image).numpy())
            if identities is not None:
                person = people[identities[number]]
                rows.writerow([name, source.identity_labels.get(person, person), "generated", "train"])
    write_text(to / "labels.csv", table.getvalue())


def across_views(
    model: ReIDModel, config: Config, records: Records, trial: Trial, folder: Path
) -> dict[str, dict[str, float]]:
    """Write across.json in the run's folder and print it: how similar translated queries are to gallery images.

    A query is translated to the gallery's view and compared with a gallery image of its identity by another camera.
    Three references stand beside it: the query itself, the mean of those gallery images, and the gallery image of the
    next identity (Cross-GAN, Fig. 5, of whose two descriptions this follows "the corresponding image", and Fig. 6).

    Returns:
        name -> distance (Euclidean, of pixels in [0, 1], mean over queries), and the per cent of pixels all of whose
        colours agree: exactly, as printed, and within 8 of 255.

    Raises:
        ConfigError: the method translates no images between views, or no query has such a gallery image.
    """
    translators = model.presentation().across()
    if not translators:
        raise ConfigError(f"--across: {config.method['name']} translates no image to another view.")
    size = config.data.image_size
    queries, gallery = _true_matches(records, trial)
    if not len(queries):
        raise ConfigError("--across: no query has a gallery image of its identity by another camera.")
    query, truth = (pipeline.all_images(records.take(images), size) for images in (queries, gallery))
    compared = {
        "the query itself": query,
        "mean of the gallery": np.broadcast_to(truth.mean(axis=0), truth.shape),
        "another identity of the gallery": np.roll(truth, 1, axis=0),
    }
    for name, network in translators.items():
        compared[name] = extraction.extract(network, records.take(queries), size)
    results = {name: _similarity(images, truth) for name, images in compared.items()}
    write_text(folder / "across.json", json.dumps(results, indent=2) + "\n")
    print(f"{len(queries)} queries in the gallery's view, compared with a gallery image of their identity:")
    for name, values in results.items():
        print(f"{name:32}" + "   ".join(f"{key} {value:.2f}" for key, value in values.items()))
    return results


def _true_matches(records, trial):
    """Queries that have a gallery image of their identity by another camera, and the first such image of each."""
    queries, matches = [], []
    identity, camera = records.identity[trial.gallery], records.camera[trial.gallery]
    for query in trial.query:
        same = (identity == records.identity[query]) & (camera != records.camera[query])
        if same.any():
            queries.append(query)
            matches.append(trial.gallery[same][0])
    return np.array(queries), np.array(matches)


def _similarity(images, truth):
    distance = np.linalg.norm((images - truth).reshape(len(truth), -1) / 2.0, axis=1)
    levels = np.abs(pipeline.to_uint8(images).astype(int) - pipeline.to_uint8(truth)).max(axis=-1)
    return {
        "distance": float(distance.mean()),
        "agree exactly, %": 100.0 * float((levels == 0).mean()),
        "agree within 8, %": 100.0 * float((levels <= 8).mean()),
    }


def _features(model, folder, extractor) -> tuple[str, Callable]:
    """The name of the features, and a function from images in [-1, 1] to them."""
    if extractor and not Path(extractor).is_dir():
        return "Keras InceptionV3", image_quality.inception(extractor)
    if extractor:
        model = _other_model(model, folder, Path(extractor))
    encoders = model.representations()["raw"].encoders
    if "image" not in encoders:
        raise ConfigError(
            f"--images: {extractor or folder} has an encoder for each view or modality; name the folder of a run of "
            "`identity`, or InceptionV3's weights."
        )
    return f"encoder of {Path(extractor or folder).name}", encoders["image"]


def _other_model(model, folder, other_folder):
    """The model of another run, which must take images of this model's size."""
    other, _ = run_folder.restored(other_folder, run_folder.load_run(other_folder))
    if other.image_size != model.image_size:
        raise ConfigError(
            f"--images: {other_folder} takes images of {other.image_size}, {folder} makes images of "
            f"{model.image_size}; name a run with the same data.image_size."
        )
    return other


def _generate(model, config, seen) -> dict[str, Generated]:
    """Title -> generated images, their real ones, as uint8 [N, H, W, 3], and identities [N] or None."""
    name = list(config.stages)[-1]
    kind, stage = model.STAGES[name], config.stages[name]
    sampler = samplers.of_stage(kind, stage, seen)
    steps = len(next(iter(sampler(np.random.default_rng(0)).values())))
    place = {"seed": config.run.seed, "stage": len(config.stages), "image_size": config.data.image_size}
    batches = pipeline.training_batches(seen, sampler, start=0, steps=steps, flip=False, pad=0, grey=0.0, **place)
    model.stage = name
    generate = tf.function(model.presentation().generated)
    parts: dict[str, list[Generated]] = {}
    images = 0
    for number, batch in enumerate(batches):
        model.step.assign(number)  # samples of the prior depend on it
        of_batch = generate(batch)
        if not of_batch:
            raise ConfigError(f"{config.method['name']} generates no images: leave out --images and --write-images.")
        for title, generated in of_batch.items():
            parts.setdefault(title, []).append(generated)
        images += len(next(iter(of_batch.values())).images)
        if images >= MOST:
            break
    return {title: _joined(of_title) for title, of_title in parts.items()}


def _real_halves(records: Records, config: Config, most: int) -> Generated:
    """Random records, in the place of generated images, and as many others; both uint8 [n, H, W, 3].

    n is `most`, or half of the records where these are fewer than twice as many.
    """
    half = min(most, len(records) // 2)
    drawn = np.random.default_rng(config.run.seed).permutation(len(records))[: 2 * half]
    size = config.data.image_size
    one, other = (_shown(records.take(part), size) for part in (drawn[:half], drawn[half:]))
    identities = records.identity[drawn[:half]]
    twice = len(np.unique(identities)) < len(identities)  # some identity has two images, so that they can be compared
    return Generated(one, other, identities if twice else None)


def _shown(records: Records, size) -> np.ndarray:
    """All images as people see them, uint8 [N, H, W, 3]."""
    return np.concatenate([pipeline.to_uint8(batch) for batch in pipeline.image_batches(records, size, 64)])


def _distances(of_real, of_generated, name, subsets):
    # A subset of all images would always be the same; of few images it is half of them, so that the spread is one.
    half = max(2, min(1000, len(of_generated) // 2, len(of_real) // 2))
    mean, spread = image_quality.kernel_distance(of_real, of_generated, subsets, half)
    return {
        f"FID ({name})": image_quality.frechet_distance(of_real, of_generated),
        f"KID x 1000 ({name})": 1000.0 * mean,
        "KID spread x 1000": 1000.0 * spread,
    }


def _joined(parts: list[Generated]) -> Generated:
    identities = None
    if parts[0].identities is not None:
        identities = np.concatenate([part.identities for part in parts])
    images = pipeline.to_uint8(np.concatenate([part.images for part in parts]))
    return Generated(images, pipeline.to_uint8(np.concatenate([part.real for part in parts])), identities)


def _in_batches(features, images):
    """Features of uint8 images, float32 [N, D]."""
    batches = (images[start : start + 64] for start in range(0, len(images), 64))
    return np.concatenate([features(pipeline.as_seen(batch)) for batch in batches])
