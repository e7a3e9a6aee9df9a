"""A SavedModel and what lies beside it: warm-up requests, the run's settings and scores, a model card.

```
FOLDER/NAME/<version>/saved_model.pb       endpoints serving_default (bytes), tensor (pixels), perhaps search
                      assets.extra/        tf_serving_warmup_requests, README.md (the card), model.json,
                                           config.yaml, metrics.json, data.json, environment.json of the run
```
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import keras
import numpy as np
import tensorflow as tf

from export import card
from tf_reid.config import ConfigError
from tf_reid.encoders.encoder import Encoder
from tf_reid.encoders.loading import of_networks
from tf_reid.encoders.servable import ImageServable, Servable, digest, servables
from tf_reid.evaluation.scoring import Trained
from tf_reid.files import without_pattern, write_text

OF_THE_RUN = ("config.yaml", "metrics.json", "data.json", "environment.json")
WARM_UP_BATCHES = (1, 8)
OF_INT8 = "_int8"  # how the names of quantised models end, before _ROLE


class Chosen(NamedTuple):
    """A set of encoders of a run.

    Attributes:
        representation: its name in metrics.json.
        networks: role -> Keras model.
        encoder: embeds by the Keras models, as evaluation does.
        servables: role -> what is served.
        digest: of the embeddings that are served.
        quantised: the convolutions are int8.
    """

    representation: str
    networks: Mapping[str, keras.Model]
    encoder: Encoder
    servables: dict[str, Servable]
    digest: str
    quantised: bool = False


def chosen(run: Trained, representation: str | None, folder: Path) -> Chosen:
    """The encoders of a representation, by default the method's own.

    Args:
        folder: the run's.

    Raises:
        ConfigError: the run has no such representation, or one that is compared by more than a distance.
    """
    known = run.model.representations()
    if representation is None:
        own = digest(run.model.encoders(), run.config)  # a method may make its encoders anew each time
        by_distance = {name: one.encoders for name, one in known.items() if one.similarity is None}
        representation = next(name for name, networks in by_distance.items() if digest(networks, run.config) == own)
    elif representation not in known:
        raise ConfigError(f"--representation {representation}: this run has {', '.join(known)}.")
    if known[representation].similarity is not None:
        raise ConfigError(
            f"--representation {representation} is compared by a learned network, not by a distance; choose another."
        )
    networks = known[representation].encoders
    encoder = of_networks(networks, run.config, folder)
    return Chosen(representation, networks, encoder, servables(networks, run.config), encoder.digest)


def add_search(chosen: Chosen, place: Path, top: int) -> None:
    """Let the encoder of queries search a gallery inside its graph.

    Raises:
        ConfigError: there is no such gallery, or its embeddings are another model's.
        ValueError: it is empty or too large.
    """
    from tf_reid.gallery.faiss_gallery import FaissGallery
    from tf_reid.gallery.records import check_same_model

    gallery = FaissGallery(place)
    check_same_model(gallery.about, {"digest": chosen.digest, "source": "this run"}, place)
    chosen.servables[chosen.encoder.query_role].search_in(*gallery.paths_and_embeddings(), top)


def check_finished(run: Trained, folder: Path) -> None:
    """Raise a ConfigError if a run's training has not come to its end."""
    if not run.finished:
        raise ConfigError(f"{folder} is not finished; train it to its end with --run {folder}.")


def maker_of_images(run: Trained) -> ImageServable:
    """What makes images as the run's method does.

    Raises:
        ConfigError: it makes none.
    """
    maker = run.model.presentation().image_maker()
    if maker is None:
        raise ConfigError(f"--images: {run.config.method['name']}, as it was trained, makes no image.")
    names, make = maker
    return ImageServable(names, make, run.config.data.image_size)


def names_of(chosen: Chosen, name: str) -> dict[str, str]:
    """Role -> name of the served model: NAME, or NAME_ROLE where there are several; NAME_int8 if it is quantised."""
    name = f"{name}{OF_INT8}" if chosen.quantised else name
    return {role: name if len(chosen.servables) == 1 else f"{name}_{role}" for role in chosen.servables}


def write(folder: Path, role: str, chosen: Chosen, run: Trained, run_folder: Path) -> None:
    """Save the encoder of a role into a folder that is not there yet, whose parent has the model's name."""
    servable = chosen.servables[role]
    about = {
        "digest": chosen.digest,
        "role": role,
        "method": run.config.method["name"],
        "representation": chosen.representation,
        "distance": run.config.evaluate.distance,
        "image_size": list(servable.image_size),
        "width": servable.width,
        "quantised": "int8" if chosen.quantised else None,
    }
    description = card.text(run, run_folder, folder.parent.name, servable, chosen.representation, chosen.digest)
    _write(folder, servable, about, description, run_folder)


def write_images(folder: Path, servable: ImageServable, run: Trained, run_folder: Path) -> None:
    """As `write`, of a model that makes images."""
    about = {
        "makes": "images",
        "of": list(servable.names),
        "method": run.config.method["name"],
        "image_size": list(servable.image_size),
    }
    _write(folder, servable, about, card.of_images(run, run_folder, folder.parent.name, servable), run_folder)


def _write(folder, servable, about, description, run_folder):
    extra = folder / "assets.extra"
    extra.mkdir(parents=True)
    save(servable, folder)
    write_warm_up(extra / "tf_serving_warmup_requests", folder.parent.name, servable)
    for file in OF_THE_RUN:
        if (run_folder / file).exists():
            shutil.copy(run_folder / file, extra / file)
    write_text(extra / "model.json", json.dumps(about, indent=2) + "\n")
    write_text(extra / "README.md", description)


def save(servable: Servable | ImageServable, folder: Path) -> None:
    """The model itself, which any server of SavedModels takes, without what surrounds an exported one."""
    folder.mkdir(parents=True, exist_ok=True)
    # Gradients of a graph's own parts cannot be saved, and no server asks for them.
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    with without_pattern(folder) as path:
        tf.saved_model.save(servable, str(path), signatures=servable.signatures(), options=options)


def write_warm_up(path: Path, name: str, servable: Servable | ImageServable) -> None:
    """Requests that a server answers before it says that it is ready: each endpoint, one image and several.

    The images are drawn, since no person's picture belongs in a model.
    """
    from tensorflow_serving.apis import model_pb2, predict_pb2, prediction_log_pb2

    with without_pattern(path.parent) as folder, tf.io.TFRecordWriter(str(folder / path.name)) as records:
        for signature, inputs in warm_up_requests(servable):
            spec = model_pb2.ModelSpec(name=name, signature_name=signature)
            request = predict_pb2.PredictRequest(model_spec=spec)
            for key, values in inputs.items():
                request.inputs[key].CopyFrom(tf.make_tensor_proto(values))
            log = prediction_log_pb2.PredictLog(request=request)
            records.write(prediction_log_pb2.PredictionLog(predict_log=log).SerializeToString())


def warm_up_requests(servable: Servable | ImageServable) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (endpoint, name of an input -> values: uint8 [B, H, W, 3] or a list of bytes)."""
    height, width = servable.image_size
    drawn = [np.full((height, width, 3), 16 + 24 * shade, np.uint8) for shade in range(max(WARM_UP_BATCHES))]
    for image in drawn:
        image[: height // 2] = 255 - image[: height // 2]
    encoded = [cv2.imencode(".jpg", image)[1].tobytes() for image in drawn]
    for signature, function in servable.signatures().items():
        for count in WARM_UP_BATCHES:
            values = {tf.string: encoded[:count], tf.uint8: np.stack(drawn[:count])}
            yield signature, {spec.name: values[spec.dtype] for spec in function.input_signature}
