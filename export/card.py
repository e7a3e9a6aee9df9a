"""A model card: what a served model is, what it was made of, how well it does, what it may be used for."""

import json
import re
from pathlib import Path

import tfds_builders
from tf_reid.encoders.servable import ImageServable, Servable
from tf_reid.evaluation import report
from tf_reid.evaluation.scoring import Trained
from tf_reid.runs import initial_weights
from tf_reid.runs.splits import scored_domain


def text(run: Trained, run_folder: Path, name: str, servable: Servable, representation: str, digest: str) -> str:
    """The card of a model that embeds. Markdown."""
    config, scored = run.config, run.domains[scored_domain(run.config)].scored_name
    metrics_file = run_folder / "metrics.json"
    metrics = json.loads(metrics_file.read_text()) if metrics_file.exists() else {}
    height, width = servable.image_size
    distance = (
        "the cosine (embeddings have unit length)" if config.evaluate.distance == "cosine" else "the Euclidean distance"
    )
    scores = "not evaluated"
    if representation in metrics:
        scores = "```\n" + report.table({representation: metrics[representation]}, scored) + "\n```"
    return f"""# {name}

Embeds images of people, so that images of one person lie near each other: {config.method["name"]}, representation
`{representation}`, {servable.width} numbers, compared by {distance}.

- Endpoints: `serving_default` (`image_bytes`: JPEG, PNG, BMP or WebP of any size, resized to {height}x{width}) and
  `tensor` (`images`: uint8, {height}x{width}, RGB). Both answer `embedding`, float32.
- Model digest: `{digest}`. Embeddings of models with other digests are not comparable.
- {servable.folded} batch normalisations are folded into the layers before them.{_quantisation(servable)}

## Trained on

{_trained_on(run, run_folder)}

Those terms also bind whoever uses the model, as far as they cover models.

## Scores

{scores}

These scores hold for that data set and protocol alone. Other cameras, light, seasons and people give others, mostly
worse ones: measure on your own images.

## Use

For research, and for finding a person again among images that you may lawfully process. Do not use it to identify a
person by name, as the only ground of a decision about a person, or where the people in view have not been informed as
the law demands. A match means similar looks, mostly similar clothes. Errors are not spread evenly over groups of
people; how they are spread was not measured here.

Code: Apache-2.0. `config.yaml`, `data.json` and `environment.json` beside this file say exactly how it was made.
"""


def of_images(run: Trained, run_folder: Path, name: str, servable: ImageServable) -> str:
    """The card of a model that makes images. Markdown."""
    height, width = servable.image_size
    inputs = " and ".join(f"`{part}_bytes`" for part in servable.names)
    return f"""# {name}

Makes an image of {" and ".join(servable.names)}, as {run.config.method["name"]} does. The person in it does not
exist: say so wherever it is shown, and never offer it as a picture of a real person.

- Endpoints: `serving_default` ({inputs}: JPEG, PNG, BMP or WebP) answers `image_bytes`, a PNG; `tensor` takes
  and answers uint8, {height}x{width}, RGB.

## Trained on

{_trained_on(run, run_folder)}

Code: Apache-2.0. `config.yaml`, `data.json` and `environment.json` beside this file say exactly how it was made.
"""


def _quantisation(servable):
    if not servable.quantised:
        return ""
    return (
        f"\n- {servable.quantised} convolutions are quantised to int8, {servable.left_in_float} are not. The scores "
        "below are those of the float32 model; the export measured that int8 loses at most half a point of rank-1. "
        "It needs TensorFlow or TensorFlow Serving for x86 with oneDNN (TF_ENABLE_ONEDNN_OPTS=0 turns oneDNN off)."
    )


def _trained_on(run, run_folder):
    lines = [
        f"- {domain}: {name}, {images} images; terms: {terms(name)}"
        for domain, records in run.seen.items()
        for name, images in records.data_sets
    ]
    for setting, history in initial_weights.of_run(run_folder).items():
        lines += [
            f"- initial weights (`method.{setting}`): {one['name']}; terms: {one['terms']}" for one in history["sets"]
        ]
    return "\n".join(lines)


def terms(data_set: str) -> str:
    """Terms of use of a data set, by its records' name."""
    name = re.match(r"\w+", data_set)[0]
    cls = tfds_builders.builder_class(name) if name in tfds_builders.DATASETS else None
    if cls is None:
        return "unknown"
    return cls.TERMS or cls.ARCHIVE.terms
