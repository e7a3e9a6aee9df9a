"""Surfaces that run in the process of who uses them: the Python API, building data sets, searching."""

import functools
import io
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.attack import files, images, material
from benchmarks.attack.cases import ANSWER, Case
from benchmarks.attack.verdicts import Refused, WrongAnswer

CLOSE = 0.999  # the cosine of the embeddings of a picture and of its JPEG, at least


def check_embedding(case: Case, embedding: np.ndarray, references: dict[str, np.ndarray]) -> None:
    """Raise WrongAnswer where the embedding of a known picture is not that of its plain PNG."""
    if embedding.shape != (material.WIDTH,) or not np.isfinite(embedding).all():
        raise WrongAnswer(f"embedding of shape {embedding.shape}, or of numbers that are not finite")
    if case.picture is None:
        return
    cosine = float(embedding @ references[case.picture])
    if cosine < (1 - 1e-5 if case.is_exact else CLOSE):
        raise WrongAnswer(f"read as another picture: the cosine to the plain one is {cosine:.4f}")


class Api:
    """`Encoder.embed`: each image in one batch with a good one, which has to be embedded all the same."""

    senders = 2

    def __init__(self, place: Path):
        import tf_reid

        self.encoder = tf_reid.load(place / "models" / material.MODEL)
        self.references = {name: self.encoder.embed([picture])[0] for name, picture in images.pictures().items()}

    def case(self, rng: np.random.Generator) -> Case:
        return images.case(rng)

    def send(self, case: Case) -> None:
        errors: list[Any] = []
        embeddings, readable = self.encoder.embed([images.plain("rgb"), case.content], errors=errors.append)
        self._check_good(embeddings[0])
        if errors:
            raise Refused(str(errors[0]))
        if not readable.all():
            raise WrongAnswer("left out without an error")
        check_embedding(case, embeddings[1], self.references)

    def good(self) -> None:
        self._check_good(self.encoder.embed([images.plain("rgb")])[0])

    def _check_good(self, embedding):
        check_embedding(Case("good", None, ANSWER, "rgb"), embedding, self.references)


# ------------------------------------------------------------------ data sets


class Data:
    """`tfds_builders`: malformed images, tables and folders of a data set of one's own."""

    senders = 1

    def __init__(self, place: Path):
        from tfds_builders import builder

        self.images, self.place = place / "images", files.empty_folder(place / f"data-{os.getpid()}")
        self.spec = {"name": "folder", "csv": str(self.images / "table.csv")}
        self.builder = builder(self.spec, data_dir=self.place / "built")

    def case(self, rng: np.random.Generator) -> Case:
        return files.case(rng)

    def send(self, case: Case) -> None:
        if isinstance(case.content, bytes):
            self._send_image(case)
        elif isinstance(case.content, files.Table):
            with files.table_beside(self.images, case.content) as path:
                self._examine({"name": "folder", "csv": str(path)})
        else:
            with files.odd_folder(self.place, self.images, case.content) as folder:
                self._examine({"name": "folder", "root": str(folder), "pattern": files.PATTERN})

    def good(self) -> None:
        self._examine(self.spec)

    def _send_image(self, case):
        """As the builder reads and stores it."""
        from tfds_builders import DatasetError
        from tfds_builders.base import Record

        with files.image_in(self.place, case) as path:
            try:
                stored = self.builder.encoded(Record(identity=1, camera=1, file=path.name, image=path))
            except DatasetError as error:
                if path.name not in str(error):
                    raise WrongAnswer(f"the error names no file: {error}") from None
                raise Refused(str(error)) from None
        if case.picture is not None:
            pixels = np.asarray(Image.open(io.BytesIO(stored)).convert("RGB")).astype(int)
            picture = images.pictures()[case.picture]
            if pixels.shape != picture.shape or abs(pixels - picture).mean() > (0 if case.is_exact else 4):
                raise WrongAnswer(f"stored as another picture, {list(pixels.shape)}")

    def _examine(self, spec):
        from tfds_builders import DatasetError
        from tfds_builders.doctor import examine

        try:
            diagnosis = examine(spec, data_dir=self.place / "built")
        except DatasetError as error:
            raise Refused(str(error)) from None
        if diagnosis.problems:
            raise Refused(diagnosis.problems[0])


# ------------------------------------------------------------------ search


class Search:
    """`tf_reid.search`: add and query by the command's own functions, with the model kept open between them."""

    senders = 1

    def __init__(self, place: Path):
        from tf_reid.encoders import loading

        loading.load = functools.cache(loading.load)  # the commands open the model anew each time
        self.images, self.place = place / "images", files.empty_folder(place / f"search-{os.getpid()}")
        self.model = str(place / "models" / material.MODEL / "1")
        self.searched, self.grows = str(place / "gallery"), str(self.place / "gallery")
        shutil.copytree(self.searched, self.grows)
        self.pictures = place / "pictures"

    def case(self, rng: np.random.Generator) -> Case:
        return files.case(rng)

    def send(self, case: Case) -> None:
        if isinstance(case.content, files.Table):
            with files.table_beside(self.images, case.content) as path:
                self._add("--csv", str(path))
        elif isinstance(case.content, files.Folder):
            with files.odd_folder(self.place, self.images, case.content) as folder:
                self._add(str(folder))
        elif case.picture is not None:
            self._query(case)
        else:
            with files.image_in(self.place, case) as path:
                if unreadable := self._add(str(path)):
                    raise Refused(f"{path} {next(iter(unreadable.values()))}")

    def good(self) -> None:
        self._query(Case("good", images.plain("rgb"), ANSWER, "rgb"))

    def _add(self, *words):
        return self._run("add", self.grows, *words)["unreadable"]

    def _query(self, case):
        with files.image_in(self.place, case) as path:
            ((nearest, *_),) = self._run("query", self.searched, str(path))
        expected = f"{case.picture.replace(' ', '_')}.png"
        if Path(nearest.record.path).name != expected or nearest.distance > (1e-5 if case.is_exact else 1 - CLOSE):
            raise WrongAnswer(
                f"read as another picture: the nearest is {nearest.record.path} at {nearest.distance:.4f}"
            )

    def _run(self, command, gallery, *words):
        from tf_reid import search
        from tf_reid.config import ConfigError
        from tfds_builders import DatasetError

        try:
            return search.main([command, "--index", gallery, "--model", self.model, *words])
        except (ConfigError, DatasetError) as error:
            raise Refused(str(error)) from None
        except OSError as error:
            if error.errno is None:  # raised by us, with a sentence
                raise Refused(str(error)) from None
            raise
