"""What is attacked: a tiny model with random weights, exported; a gallery built by it; a folder of labelled images."""

import contextlib
import io
import json
from pathlib import Path

import numpy as np

from benchmarks.attack.images import pictures, plain
from benchmarks.attack.tables import ODD_NAMES, rows_of, written

MODEL = "reid"
WIDTH = 16  # numbers in an embedding
IMAGE_SIZE = (32, 16)
FILES = (*(f"{number:02d}.png" for number in range(8)), *ODD_NAMES)


def make(place: Path) -> None:
    """Write models/reid/1, a gallery and a folder of images. It takes TensorFlow into this process."""
    _write_images(place)
    _write_model(place / "models")
    from tf_reid import search

    table = str(place / "images" / "table.csv")
    line = ["build", "--index", str(place / "gallery"), "--model", str(place / "models" / MODEL / "1")]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        search.main([*line, str(place / "pictures"), "--csv", table])


def _write_images(place):
    for name in pictures():
        path = place / "pictures" / f"{name.replace(' ', '_')}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(plain(name))
    folder = place / "images"
    folder.mkdir()
    for number, file in enumerate(FILES):
        noise = np.random.default_rng(number).integers(256, size=(30, 15, 3), dtype=np.uint8)
        (folder / file).write_bytes(_png(noise))
    (folder / "table.csv").write_text(written(rows_of(np.random.default_rng(0), FILES)))


def _png(pixels):
    from PIL import Image

    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def _write_model(folder):
    import keras
    import tensorflow as tf

    from export import deployment, saving
    from tf_reid.encoders.servable import Servable

    keras.utils.set_random_seed(0)
    images = keras.Input((*IMAGE_SIZE, 3))
    encoder = keras.Model(images, keras.layers.Dense(WIDTH)(keras.layers.Flatten()(images)))
    servable = Servable(encoder, IMAGE_SIZE, flip=False, unit=True)
    names = list(pictures())
    own = servable.from_bytes(tf.constant([plain(name) for name in names]))["embedding"].numpy()
    servable.search_in(names, own, top=2)
    version = folder / MODEL / "1"
    saving.save(servable, version)
    about = {
        "digest": "0123456789abcdef",
        "role": "image",
        "method": "none",
        "representation": "none",
        "distance": "cosine",
        "image_size": list(IMAGE_SIZE),
        "width": WIDTH,
    }
    (version / "assets.extra").mkdir()
    (version / "assets.extra" / "model.json").write_text(json.dumps(about))
    deployment.write(folder)
