"""The same gallery on a Qdrant server, for more images than one machine holds: qdrant://host:6333/collection."""

import contextlib
import os
import uuid
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import ApiException, ResponseHandlingException

from tf_reid.config import ConfigError
from tf_reid.gallery.base import ABOUT_MODEL, Gallery, check_about, checked_top
from tf_reid.gallery.records import FORMAT, Filters, Match, Record, check_same_model, checked_embeddings

WRITTEN_AT_ONCE, READ_AT_ONCE = 256, 1000  # points a request
INDEXED_FIELDS = {
    "camera": models.PayloadSchemaType.KEYWORD,
    "identity": models.PayloadSchemaType.KEYWORD,
    "time": models.PayloadSchemaType.FLOAT,
}


class QdrantGallery(Gallery):
    """A collection with one point for each path: an `add` that was cut short is completed by repeating it.

    Args:
        about: see `FaissGallery`.

    Raises:
        ConfigError: as `FaissGallery`, or the server cannot be reached.
    """

    def __init__(self, client: QdrantClient, collection: str, about: dict[str, Any] | None = None):
        self.client, self.collection = client, collection
        with _errors_of_the_server(collection):
            if not client.collection_exists(collection):
                if about is None:
                    raise ConfigError(
                        f"There is no collection {collection}; make it with python -m tf_reid.search build."
                    )
                self._create({**about, "format": FORMAT})
            self.about = client.get_collection(collection).config.metadata or {}
        if "digest" not in self.about:
            raise ConfigError(f"Qdrant's collection {collection} is no gallery of this library; name another one.")
        check_about(self.about, f"Collection {collection}")
        if about is not None:
            check_same_model(self.about, about, f"Collection {collection}")

    def _create(self, about):
        kind = models.Distance.COSINE if about["distance"] == "cosine" else models.Distance.EUCLID
        vectors = models.VectorParams(size=about["width"], distance=kind)
        self.client.create_collection(self.collection, vectors, metadata=about)
        for field, schema in INDEXED_FIELDS.items():
            self.client.create_payload_index(self.collection, field, schema)

    def close(self) -> None:
        self.client.close()

    def __len__(self):
        with _errors_of_the_server(self.collection):
            return self.client.count(self.collection).count

    def contained(self, paths: Sequence[str]) -> set[str]:
        contained = set()
        for start in range(0, len(paths), READ_AT_ONCE):
            ids = [_id(path) for path in paths[start : start + READ_AT_ONCE]]
            with _errors_of_the_server(self.collection):
                points = self.client.retrieve(self.collection, ids, with_payload=["path"])
            contained |= {_path(point) for point in points}
        return contained

    def add(self, records: Sequence[Record], embeddings) -> int:
        embeddings = checked_embeddings(embeddings, self.about["width"], len(records))
        if not all(record.path for record in records):
            raise ValueError("Every image needs a path.")
        contained = self.contained([record.path for record in records])
        points = {
            record.path: models.PointStruct(id=_id(record.path), vector=row.tolist(), payload=record._asdict())
            for record, row in zip(records, embeddings, strict=True)
            if record.path not in contained
        }
        new = list(points.values())
        for start in range(0, len(new), WRITTEN_AT_ONCE):
            with _errors_of_the_server(self.collection):
                self.client.upsert(self.collection, new[start : start + WRITTEN_AT_ONCE], wait=True)
        return len(new)

    def remove(self, paths: Sequence[str] = (), identity: str | None = None, until: float | None = None) -> int:
        before, contained = len(self), self.contained(paths)
        folders = [path for path in paths if path not in contained]
        ids = [_id(path) for path in [*contained, *self._paths_in(folders)]]
        selections: list[Any] = [ids[start : start + READ_AT_ONCE] for start in range(0, len(ids), READ_AT_ONCE)]
        if identity is not None:
            selections.append(models.Filter(must=[_is_one_of("identity", [identity])]))
        if until is not None:
            up_to = models.FieldCondition(key="time", range=models.Range(lte=until))
            selections.append(models.Filter(must=[up_to]))
        for selection in selections:
            with _errors_of_the_server(self.collection):
                self.client.delete(self.collection, selection)
        return before - len(self)

    def _paths_in(self, folders):
        """Paths of all images in these folders."""
        if not folders:
            return []
        prefixes = tuple(f"{folder}/" for folder in folders)
        paths, page = [], None
        while True:
            with _errors_of_the_server(self.collection):
                points, page = self.client.scroll(
                    self.collection, limit=READ_AT_ONCE, offset=page, with_payload=["path"]
                )
            for point in points:
                path = _path(point)
                if path.startswith(prefixes):
                    paths.append(path)
            if page is None:
                return paths

    def erase(self) -> None:
        """Nothing: removed images are in no answer, and the server clears its own files when it next optimizes them."""

    def update_index(self, always: bool = False) -> None:
        """Nothing: the server keeps its own index."""

    def mend_index(self) -> str | None:
        """None: the server checks its own index."""
        return None

    def search(
        self, embeddings, top: int = 10, filters: Filters | None = None, exact: bool = False
    ) -> list[list[Match]]:
        limit = checked_top(top, top)
        if limit > READ_AT_ONCE:  # a server may reserve room for as many; to count the images costs a request
            limit = checked_top(top, len(self))
        requests = [
            models.QueryRequest(
                query=query.tolist(),
                limit=limit,
                filter=_filter(filters or Filters()),
                params=models.SearchParams(exact=exact),
                with_payload=True,
            )
            for query in checked_embeddings(embeddings, self.about["width"])
        ]
        with _errors_of_the_server(self.collection):
            responses = self.client.query_batch_points(self.collection, requests)
        return [[self._match(point) for point in response.points] for response in responses]

    def _match(self, point):
        distance = float(1.0 - point.score if self.about["distance"] == "cosine" else point.score)
        return Match(point.id, self._record(point), distance, self.accepted(distance))

    def _record(self, point):
        try:
            return Record(**_payload(point))
        except TypeError:
            raise ConfigError(
                f"Point {point.id} of collection {self.collection} is no image of a gallery: something else has "
                "written to it. Remove the point, or build the gallery anew in a collection of its own."
            ) from None

    def identified(self, most: int) -> tuple[list[str], np.ndarray]:
        unknown = models.IsNullCondition(is_null=models.PayloadField(key="identity"))
        with _errors_of_the_server(self.collection):
            points, _ = self.client.scroll(
                self.collection, models.Filter(must_not=[unknown]), limit=most, with_vectors=True
            )
        vectors = np.array([point.vector for point in points], np.float32).reshape(len(points), self.about["width"])
        return [str(_payload(point).get("identity")) for point in points], vectors

    def write_rejection(self, rejection: dict[str, Any]) -> None:
        self.about = {**self.about, "rejection": rejection}
        with _errors_of_the_server(self.collection):
            self.client.update_collection(self.collection, metadata=self.about)

    def summary(self) -> dict[str, Any]:
        with _errors_of_the_server(self.collection):
            cameras = self.client.facet(self.collection, "camera", limit=1000).hits
        return {
            "images": len(self),
            "cameras": sorted(str(camera.value) for camera in cameras),
            "rejection": self.rejection,
        }

    def stats(self) -> dict[str, Any]:
        return {
            "images": len(self),
            "index": "Qdrant",
            **{key: self.about[key] for key in ABOUT_MODEL},
            "rejection": self.rejection,
        }


def connect(place: str, about: dict[str, Any] | None = None) -> QdrantGallery:
    """Open qdrant://host:port/collection, or qdrants:// for TLS; a key is taken from QDRANT_API_KEY.

    Raises:
        ConfigError: the place has another form; as `QdrantGallery`.
    """
    parts = urlsplit(place)
    collection = parts.path.strip("/")
    if not parts.hostname or not collection:
        raise ConfigError(f"{place} must be qdrant://HOST:PORT/COLLECTION.")
    scheme = "https" if parts.scheme == "qdrants" else "http"
    client = QdrantClient(
        url=f"{scheme}://{parts.hostname}:{parts.port or 6333}", api_key=os.environ.get("QDRANT_API_KEY"), timeout=60
    )
    return QdrantGallery(client, collection, about)


@contextlib.contextmanager
def _errors_of_the_server(collection) -> Iterator[None]:
    """Inside, what the server refuses becomes a ConfigError."""
    try:
        yield
    except (ApiException, ResponseHandlingException) as error:
        raise ConfigError(f"Qdrant does not answer for collection {collection}: {error}") from None


def _id(path):
    return str(uuid.uuid5(uuid.NAMESPACE_URL, path))


def _payload(point) -> dict[str, Any]:
    """What is known of the image; each point that a gallery has written has it."""
    return point.payload or {}


def _path(point) -> str:
    """An image's path; empty where something else has written the point."""
    return str(_payload(point).get("path") or "")


def _is_one_of(field, values):
    return models.FieldCondition(key=field, match=models.MatchAny(any=list(values)))


def _filter(filters):
    must, must_not = [], []
    if filters.since is not None or filters.until is not None:
        must.append(models.FieldCondition(key="time", range=models.Range(gte=filters.since, lte=filters.until)))
    if filters.cameras:
        must.append(_is_one_of("camera", filters.cameras))
    if filters.not_cameras:
        must_not.append(_is_one_of("camera", filters.not_cameras))
    return models.Filter(must=must or None, must_not=must_not or None)
