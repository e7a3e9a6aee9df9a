"""The images that a run generates, judged: distances to the real ones, likeness within an identity."""

import json
from pathlib import Path

import numpy as np
import tensorflow as tf

from tf_reid.config import Config, ConfigError
from tf_reid.data import pipeline, samplers
from tf_reid.data.records import Records
from tf_reid.evaluation import extraction
from tf_reid.files import write_text
from tf_reid.metrics import image_quality
from tf_reid.runs import run_folder

MOST = 5000  # images of a kind that are judged


def judge(model, config: Config, seen: dict[str, Records], folder: Path, extractor="", subsets=100) -> dict:
    """Write images.json in the run's folder and print it: title -> distances and likeness.

    The real images are those that an epoch of the run's last stage draws of the training images, unaugmented, and the
    generated ones are made of them, or of as many draws of the prior: as many of either, `MOST` at most.

    Args:
        extractor: whose features: "" the run's own encoder, another run's folder, or InceptionV3 ("imagenet" or the
            path of its weights).

    Raises:
        ConfigError: the method generates no images.
    """
    found = {}
    name, features = _features(model, folder, extractor)
    for title, (made, real, identities) in _made(model, config, seen).items():
        of_real, of_made = (_all(features, images) for images in (real, made))
        # Subsets of all images would be one and the same: where they are few, half of them, so that the spread is one.
        half = max(2, min(1000, len(of_made) // 2, len(of_real) // 2))
        mean, spread = image_quality.kernel_distance(of_real, of_made, subsets, half)
        found[title] = {
            f"FID ({name})": image_quality.frechet_distance(of_real, of_made),
            f"KID x 1000 ({name})": 1000.0 * mean,
            "KID spread x 1000": 1000.0 * spread,
        }
        if identities is not None:
            found[title]["SSIM within an identity"] = image_quality.likeness_within(made, identities)
        found[title]["images"] = len(made)
    write_text(folder / "images.json", json.dumps(found, indent=2) + "\n")
    for title, values in found.items():
        print(f"{title}: " + ", ".join(f"{key} {value:.4g}" for key, value in values.items()))
    return found


def across_views(model, config: Config, records: Records, trial, folder: Path) -> dict:
    """Write across.json in the run's folder and print it: how near the truth queries come, put in the gallery's view.

    The truth is a gallery image of the query's person by another camera. Beside what the method makes of a query stand
    the query as it is, the mean of those gallery images, and the gallery image of the next person. (Cross-GAN, Fig. 5,
    of whose two descriptions this is the one that asks for "the corresponding image", and Fig. 6.)

    Returns:
        name -> distance (Euclidean, of pixels in [0, 1], mean over queries), and in per cent the pixels all of whose
        colours agree: exactly, as printed, and within 8 of 255.

    Raises:
        ConfigError: the method makes no such images.
    """
    across = model.across()
    if not across:
        raise ConfigError(f"--across: {config.method['name']} puts no image in another view.")
    size, identity, camera = config.data.image_size, records.identity, records.camera
    of_query = {}
    for image in trial.query:
        theirs = trial.gallery[(identity[trial.gallery] == identity[image]) & (camera[trial.gallery] != camera[image])]
        if len(theirs):
            of_query[image] = theirs[0]
    queries, gallery = np.array(list(of_query.items())).T
    query, truth = (pipeline.all_images(records.take(images), size) for images in (queries, gallery))
    made = {
        "the query itself": query,
        "mean of the gallery": np.broadcast_to(truth.mean(axis=0), truth.shape),
        "another person of the gallery": np.roll(truth, 1, axis=0),
    }
    made |= {name: extraction.extract(network, records.take(queries), size) for name, network in across.items()}
    found = {name: _nearness(images, truth) for name, images in made.items()}
    write_text(folder / "across.json", json.dumps(found, indent=2) + "\n")
    print(f"{len(queries)} queries in the gallery's view, beside a gallery image of their person:")
    for name, values in found.items():
        print(f"{name:32}" + "   ".join(f"{key} {value:.2f}" for key, value in values.items()))
    return found


def _nearness(images, truth):
    apart = np.linalg.norm((images - truth).reshape(len(truth), -1) / 2.0, axis=1)
    levels = np.abs(pipeline.to_uint8(images).astype(int) - pipeline.to_uint8(truth)).max(axis=-1)
    return {
        "distance": float(apart.mean()),
        "agree exactly, %": 100.0 * float((levels == 0).mean()),
        "agree within 8, %": 100.0 * float((levels <= 8).mean()),
    }


def _features(model, folder, extractor):
    """What the features are called, and a function from images in [-1, 1] to them."""
    if not extractor or Path(extractor).is_dir():
        if extractor:
            own_size, model = (
                model.image_size,
                run_folder.restored(Path(extractor), run_folder.load_run(Path(extractor)))[0],
            )
            if model.image_size != own_size:
                raise ConfigError(
                    f"--images: {extractor} sees images of {model.image_size}, {folder} makes images of {own_size}; "
                    "name a run at the same data.image_size."
                )
        encoders = model.representations()["raw"].encoders
        if "image" not in encoders:
            raise ConfigError(
                f"--images: {extractor or folder} has an encoder a view or modality; name the folder of a run of "
                "`identity`, or InceptionV3's weights."
            )
        return f"encoder of {Path(extractor or folder).name}", encoders["image"]
    return "Keras InceptionV3", image_quality.inception(extractor)


def _made(model, config, seen):
    """Title -> generated images and real ones, uint8 [N, H, W, 3], and whom the generated ones show, or None."""
    name = list(config.stages)[-1]
    kind, stage = model.STAGES[name], config.stages[name]
    sampler = samplers.of_stage(kind, stage, seen)
    steps = len(next(iter(sampler(np.random.default_rng(0)).values())))
    place = {"seed": config.run.seed, "stage": len(config.stages), "image_size": config.data.image_size}
    batches = pipeline.training_batches(seen, sampler, start=0, steps=steps, flip=False, pad=0, grey=0.0, **place)
    model.stage = name
    generated = tf.function(model.generated)
    collected = {}
    for number, batch in enumerate(batches):
        model.step.assign(number)  # of which draws of the prior are a function
        for title, parts in generated(batch).items():
            collected.setdefault(title, []).append(parts)
        if not collected:
            raise ConfigError(f"--images: {config.method['name']} generates no images.")
        first = next(iter(collected.values()))
        if sum(len(made) for made, _, _ in first) >= MOST:
            break
    return {title: [_joined(parts) for parts in zip(*found, strict=True)] for title, found in collected.items()}


def _joined(parts):
    if parts[0] is None:
        return None
    whole = np.concatenate([np.asarray(part) for part in parts])
    return pipeline.to_uint8(whole) if whole.ndim == 4 else whole


def _all(features, images):
    batches = (images[start : start + 64] for start in range(0, len(images), 64))
    return np.concatenate([features(pipeline.as_seen(batch)) for batch in batches])
