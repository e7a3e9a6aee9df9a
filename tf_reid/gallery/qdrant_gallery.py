"""The same gallery on a Qdrant server or cluster, which several programs share: qdrant://HOST:PORT/COLLECTION."""

import os
import time
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import UnexpectedResponse

from tf_reid.config import ConfigError
from tf_reid.gallery.base import ABOUT_MODEL, Gallery, check_about, checked_top
from tf_reid.gallery.qdrant_server import Layout, Unavailable, errors_of_the_server, layout_of, place_of
from tf_reid.gallery.records import FORMAT, Filters, Match, Record, check_paths, checked_embeddings, plain_records

WRITTEN_AT_ONCE, READ_AT_ONCE = 256, 1000  # points a request
PAUSES = (1.0, 2.0, 4.0, 8.0)  # seconds before a write is tried again, such as while a node starts anew
MOST_CAMERAS = 10_000
EXISTS = 409  # the status of an answer
INDEXED_FIELDS = {
    "camera": models.PayloadSchemaType.KEYWORD,
    "identity": models.PayloadSchemaType.KEYWORD,
    "time": models.PayloadSchemaType.FLOAT,
}


class QdrantGallery(Gallery):
    """A collection with one point for each path: an `add` that was cut short is completed by repeating it.

    Args:
        about: see `FaissGallery`.
        layout: of a collection that is created; an existing one must have it.
        place: names the gallery in messages.

    Raises:
        ConfigError: as `FaissGallery`, or the server cannot be reached.
    """

    def __init__(
        self,
        client: QdrantClient,
        collection: str,
        about: dict[str, Any] | None = None,
        layout: Layout | None = None,
        place: str | None = None,
    ):
        self.client, self.collection, self.place = client, collection, place or f"Collection {collection}"
        with errors_of_the_server(collection):
            if not client.collection_exists(collection):
                if about is None:
                    raise ConfigError(
                        f"There is no collection {collection}; make it with python -m tf_reid.search build."
                    )
                self._create({**about, "format": FORMAT}, layout or Layout())
            self._refresh()
        if "digest" not in self.about:
            raise ConfigError(f"Qdrant's collection {collection} is no gallery of this library; name another one.")
        check_about(self.about, self.place, about)
        self._check_layout(layout or Layout())
        if about is not None:  # also where whoever created the collection was killed before it made them
            with errors_of_the_server(collection):
                for field, schema in INDEXED_FIELDS.items():
                    client.create_payload_index(collection, field, schema)

    def _create(self, about, layout):
        kind = models.Distance.COSINE if about["distance"] == "cosine" else models.Distance.EUCLID
        vectors = models.VectorParams(size=about["width"], distance=kind)
        try:
            self.client.create_collection(
                self.collection,
                vectors,
                shard_number=layout.shards,
                replication_factor=layout.replication,
                write_consistency_factor=layout.write_consistency,
                metadata=about,
            )
        except UnexpectedResponse as error:
            if error.status_code != EXISTS:  # where it does, another process has just created it
                raise

    def _check_layout(self, layout):
        params = self._collection.config.params
        there = Layout(params.shard_number, params.replication_factor, params.write_consistency_factor)
        for name, wanted, kept in zip(Layout._fields, layout, there, strict=True):
            if wanted is not None and kept is not None and wanted != kept:
                raise ConfigError(
                    f"{self.place} was created with {name}={kept}, not {wanted}: leave {name} out of the address, or "
                    "copy the gallery to a new collection with python -m tf_reid.search copy."
                )

    def _refresh(self):
        """Read anew what this or another process wrote since the last time."""
        self._collection = self.client.get_collection(self.collection)
        self.about = self._collection.config.metadata or {}

    def close(self) -> None:
        self.client.close()

    def __len__(self):
        with errors_of_the_server(self.collection):
            return self.client.count(self.collection).count

    def contained(self, paths: Sequence[str]) -> set[str]:
        contained = set()
        for start in range(0, len(paths), READ_AT_ONCE):
            ids = [_id(path) for path in paths[start : start + READ_AT_ONCE]]
            with errors_of_the_server(self.collection):
                points = self.client.retrieve(self.collection, ids, with_payload=["path"])
            contained |= {_path(point) for point in points}
        return contained

    def paths(self) -> Iterator[list[str]]:
        page = None
        while True:
            with errors_of_the_server(self.collection):
                points, page = self.client.scroll(
                    self.collection, limit=READ_AT_ONCE, offset=page, with_payload=["path"]
                )
            yield [path for path in map(_path, points) if path]
            if page is None:
                return

    def read(self, paths: Sequence[str]) -> tuple[list[Record], np.ndarray]:
        """As `Gallery.read`; where cosines are compared, Qdrant keeps embeddings of length 1."""
        points: dict[Any, Any] = {}
        for start in range(0, len(paths), READ_AT_ONCE):
            ids = [_id(path) for path in paths[start : start + READ_AT_ONCE]]
            with errors_of_the_server(self.collection):
                answer = self.client.retrieve(self.collection, ids, with_payload=True, with_vectors=True)
            points |= {point.id: point for point in answer}
        there = [points[_id(path)] for path in paths if _id(path) in points]
        return [self._record(point) for point in there], self._embeddings(there)

    def _embeddings(self, points):
        embeddings = [point.vector for point in points]
        return np.array(embeddings, np.float32).reshape(len(points), self.about["width"])

    def add(self, records: Sequence[Record], embeddings) -> int:
        records = plain_records(records)
        embeddings = checked_embeddings(embeddings, self.about["width"], len(records))
        contained = self.contained([record.path for record in records])
        points = {
            record.path: models.PointStruct(id=_id(record.path), vector=row.tolist(), payload=record._asdict())
            for record, row in zip(records, embeddings, strict=True)
            if record.path not in contained
        }
        new = list(points.values())
        for start in range(0, len(new), WRITTEN_AT_ONCE):
            self._upsert(new[start : start + WRITTEN_AT_ONCE])
        return len(new)

    def _upsert(self, points):
        """Write points, and try again for some seconds where the server or a node of it does not answer."""
        for pause in (*PAUSES, None):
            try:
                with errors_of_the_server(self.collection):
                    self.client.upsert(self.collection, points, wait=True)
                return
            except Unavailable:
                if pause is None:
                    raise
                time.sleep(pause)

    def remove(self, paths: Sequence[str] = (), identity: str | None = None, until: float | None = None) -> int:
        check_paths(paths)
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
            with errors_of_the_server(self.collection):
                self.client.delete(self.collection, selection)
        return before - len(self)

    def _paths_in(self, folders):
        """Paths of all images in these folders."""
        if not folders:
            return []
        prefixes = tuple(f"{folder}/" for folder in folders)
        return [path for page in self.paths() for path in page if path.startswith(prefixes)]

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
        with errors_of_the_server(self.collection):
            self._refresh()
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
        with errors_of_the_server(self.collection):
            points, _ = self.client.scroll(
                self.collection, models.Filter(must_not=[unknown]), limit=most, with_vectors=True
            )
        return [str(_payload(point).get("identity")) for point in points], self._embeddings(points)

    def write_about(self, values: dict[str, Any]) -> None:
        with errors_of_the_server(self.collection):
            self.client.update_collection(self.collection, metadata=values)
            self._refresh()

    def summary(self) -> dict[str, Any]:
        with errors_of_the_server(self.collection):
            self._refresh()
            cameras = self.client.facet(self.collection, "camera", limit=MOST_CAMERAS, exact=True).hits
        return {
            "images": len(self),
            "cameras": sorted(str(camera.value) for camera in cameras),
            "rejection": self.rejection,
        }

    def stats(self) -> dict[str, Any]:
        with errors_of_the_server(self.collection):
            self._refresh()
        params = self._collection.config.params
        return {
            "images": len(self),
            "index": "Qdrant",
            "shards": params.shard_number,
            "replication": params.replication_factor,
            "write_consistency": params.write_consistency_factor,
            **{key: self.about[key] for key in ABOUT_MODEL},
            "rejection": self.rejection,
        }

    def snapshot(self) -> str:
        """Let the server write all that the collection holds into one file. Returns the file's name on the server."""
        with errors_of_the_server(self.collection):
            snapshot = self.client.create_snapshot(self.collection, wait=True)
        if snapshot is None:
            raise ConfigError(f"Qdrant made no snapshot of {self.place}.")
        return snapshot.name


def connect(address: str, about: dict[str, Any] | None = None) -> QdrantGallery:
    """Open qdrant://HOST:PORT/COLLECTION, or qdrants:// for TLS; a key is taken from QDRANT_API_KEY.

    The fields of `Layout` may follow, as in ?shards=6&replication=2&write_consistency=2.

    Raises:
        ConfigError: the address has another form; as `QdrantGallery`.
    """
    scheme, host, collection = place_of(address)
    url = f"{'https' if scheme == 'qdrants' else 'http'}://{host}"
    client = QdrantClient(url=url, api_key=os.environ.get("QDRANT_API_KEY"), timeout=60)
    return QdrantGallery(client, collection, about, layout_of(address), f"{scheme}://{host}/{collection}")


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
