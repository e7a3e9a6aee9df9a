"""The same gallery on a Qdrant server, for more images than one machine holds: qdrant://host:6333/collection."""

import contextlib
import os
import uuid
from collections.abc import Sequence
from urllib.parse import urlsplit

import numpy as np
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import ApiException, ResponseHandlingException

from tf_reid.config import ConfigError
from tf_reid.gallery.faiss_gallery import Filters, Match, Record, check_same_model, checked

WRITTEN, ASKED = 256, 1000  # points a request
INDEXED = {"camera": "keyword", "identity": "keyword", "time": "float"}


class QdrantGallery:
    """As `faiss_gallery.Gallery`; a point a path, so an `add` that was cut short is completed by repeating it.

    Args:
        client: a QdrantClient. about: see `Gallery`.

    Raises:
        ConfigError: as `Gallery`, or the server cannot be reached.
    """

    def __init__(self, client: QdrantClient, collection: str, about: dict | None = None):
        self.client, self.collection = client, collection
        with _told(collection):
            if not client.collection_exists(collection):
                if about is None:
                    raise ConfigError(
                        f"There is no collection {collection}; make it by python -m tf_reid.search build."
                    )
                self._create(about)
            self.about = client.get_collection(collection).config.metadata or {}
        if "digest" not in self.about:
            raise ConfigError(f"Qdrant's collection {collection} is no gallery of this library; name another one.")
        check_same_model(self.about, about, f"Collection {collection}")

    def _create(self, about):
        kind = models.Distance.COSINE if about["distance"] == "cosine" else models.Distance.EUCLID
        vectors = models.VectorParams(size=about["width"], distance=kind)
        self.client.create_collection(self.collection, vectors, metadata=about)
        for field, schema in INDEXED.items():
            self.client.create_payload_index(self.collection, field, schema)

    def __len__(self):
        return self.client.count(self.collection).count

    def known(self, paths: Sequence[str]) -> set[str]:
        found = set()
        for start in range(0, len(paths), ASKED):
            ids = [_id(path) for path in paths[start : start + ASKED]]
            with _told(self.collection):
                found |= {p.payload["path"] for p in self.client.retrieve(self.collection, ids, with_payload=["path"])}
        return found

    def add(self, records: Sequence[Record], embeddings) -> int:
        embeddings = checked(embeddings, self.about["width"], len(records))
        if not all(record.path for record in records):
            raise ValueError("Every image needs a path.")
        there = self.known([record.path for record in records])
        points = {
            record.path: models.PointStruct(id=_id(record.path), vector=row.tolist(), payload=record._asdict())
            for record, row in zip(records, embeddings, strict=True)
            if record.path not in there
        }
        fresh = list(points.values())
        for start in range(0, len(fresh), WRITTEN):
            with _told(self.collection):
                self.client.upsert(self.collection, fresh[start : start + WRITTEN], wait=True)
        return len(fresh)

    def remove(self, paths: Sequence[str] = (), identity: str | None = None, until: float | None = None) -> int:
        before, there = len(self), self.known(paths)
        paths = [*there, *self._beneath([path for path in paths if path not in there])]
        parts = [[_id(path) for path in paths[start : start + ASKED]] for start in range(0, len(paths), ASKED)]
        if identity is not None:
            parts.append(models.Filter(must=[_is("identity", [identity])]))
        if until is not None:
            parts.append(models.Filter(must=[models.FieldCondition(key="time", range=models.Range(lte=until))]))
        for part in parts:
            with _told(self.collection):
                self.client.delete(self.collection, part)
        return before - len(self)

    def _beneath(self, folders):
        """Paths of all images in these folders."""
        found, page = [], None
        while folders:
            with _told(self.collection):
                points, page = self.client.scroll(self.collection, limit=ASKED, offset=page, with_payload=["path"])
            found += [point.payload["path"] for point in points]
            if page is None:
                break
        return [path for path in found if path.startswith(tuple(f"{folder}/" for folder in folders))]

    def lay_out(self, always=False):
        """The server keeps its own index."""

    def search(self, embeddings, top=10, filters: Filters | None = None, exact=False) -> list[list[Match]]:
        queries = checked(embeddings, self.about["width"])
        asked = [
            models.QueryRequest(
                query=query.tolist(),
                limit=top,
                filter=_filter(filters or Filters()),
                params=models.SearchParams(exact=exact),
                with_payload=True,
            )
            for query in queries
        ]
        limit = (self.about.get("nobody") or {}).get("distance")

        def match(point):
            distance = 1.0 - point.score if self.about["distance"] == "cosine" else point.score
            within = None if limit is None else bool(distance <= limit)
            return Match(point.id, Record(**point.payload), float(distance), within)

        with _told(self.collection):
            answers = self.client.query_batch_points(self.collection, asked)
        return [[match(point) for point in found.points] for found in answers]

    def with_identities(self, most) -> tuple[list[str], np.ndarray]:
        known = models.Filter(must_not=[models.IsNullCondition(is_null=models.PayloadField(key="identity"))])
        points, _ = self.client.scroll(self.collection, known, limit=most, with_vectors=True)
        vectors = np.array([point.vector for point in points], np.float32).reshape(len(points), self.about["width"])
        return [point.payload["identity"] for point in points], vectors

    def keep_calibration(self, found: dict):
        self.about = {**self.about, "nobody": found}
        self.client.update_collection(self.collection, metadata=self.about)

    def summary(self) -> dict:
        cameras = self.client.facet(self.collection, "camera", limit=1000).hits
        names = sorted(str(hit.value) for hit in cameras)
        return {"images": len(self), "cameras": names, "nobody": self.about.get("nobody")}

    def stats(self) -> dict:
        found = {"images": len(self), "index": "Qdrant"}
        return (
            found
            | {key: self.about[key] for key in ("digest", "distance", "width", "source")}
            | {"nobody": self.about.get("nobody")}
        )


def connected(place: str, about: dict | None = None) -> QdrantGallery:
    """qdrant://host:port/collection, or qdrants:// for TLS; a key is taken from QDRANT_API_KEY."""
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
def _told(collection):
    """Inside, what the server refuses is told as people understand it."""
    try:
        yield
    except (ApiException, ResponseHandlingException) as error:
        raise ConfigError(f"Qdrant cannot be asked for {collection}: {error}") from None


def _id(path):
    return str(uuid.uuid5(uuid.NAMESPACE_URL, path))


def _is(field, values):
    return models.FieldCondition(key=field, match=models.MatchAny(any=list(values)))


def _filter(filters):
    span = models.Range(gte=filters.since, lte=filters.until)
    timed = filters.since is not None or filters.until is not None
    must = [models.FieldCondition(key="time", range=span)] if timed else []
    if filters.cameras:
        must.append(_is("camera", filters.cameras))
    must_not = [_is("camera", filters.not_cameras)] if filters.not_cameras else []
    return models.Filter(must=must or None, must_not=must_not or None)
