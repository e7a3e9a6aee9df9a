"""A gallery on Qdrant: its layout, what it refuses, servers that do not answer. See test_stores.py for the rest."""

import contextlib
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from people import ABOUT, people
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from tf_reid.config import ConfigError
from tf_reid.gallery import qdrant_gallery
from tf_reid.gallery.qdrant_gallery import QdrantGallery, connect
from tf_reid.gallery.qdrant_server import layout_of
from tf_reid.gallery.records import Record


@pytest.fixture
def client():
    return QdrantClient(":memory:")


def test_a_folder_is_removed_from_all_pages(client, monkeypatch):
    monkeypatch.setattr(qdrant_gallery, "READ_AT_ONCE", 3)
    paths = ["a/1.jpg", "a/2.jpg", "a/b/3.jpg", "ab/4.jpg", "5.jpg"]
    gallery = QdrantGallery(client, "g", ABOUT)
    gallery.add([Record(path) for path in paths], people(5)[1])
    assert gallery.remove(["a", "5.jpg", "nowhere"]) == 4 and gallery.contained(paths) == {"ab/4.jpg"}


def test_a_search_counts_no_images(client, monkeypatch):
    gallery = QdrantGallery(client, "g", ABOUT)
    gallery.add(*people(20))
    monkeypatch.setattr(client, "count", lambda *_args, **_options: pytest.fail("a search counts the images"))
    assert len(gallery.search(people(1)[1], 6)[0]) == 6


def answer(status):
    return UnexpectedResponse(status, "reason", b"content", httpx.Headers())


def test_the_layout_of_an_address_is_that_of_the_collection(client, monkeypatch):
    made, own = {}, client.create_collection
    monkeypatch.setattr(
        client, "create_collection", lambda *args, **options: made.update(options) or own(*args, **options)
    )
    layout = layout_of("qdrant://h/g?shards=6&replication=3&write_consistency=2")
    gallery = QdrantGallery(client, "g", ABOUT, layout)
    assert (made["shard_number"], made["replication_factor"], made["write_consistency_factor"]) == layout == (6, 3, 2)
    params = client.get_collection("g").config.params.model_copy(update={"shard_number": 6, "replication_factor": 1})
    info = client.get_collection("g")
    info.config.params = params
    monkeypatch.setattr(client, "get_collection", lambda _name: info)
    with pytest.raises(ConfigError, match=r"g was created with replication=1, not 3: leave replication out of the add"):
        QdrantGallery(client, "g", None, layout)
    assert gallery.stats()["shards"] == 6


@pytest.mark.parametrize(
    ("ending", "message"),
    [
        ("?shards=0", "shards=0 cannot be; behind . stand shards, replication, write_consistency, each 1 or more"),
        ("?shards=", "shards= cannot be"),
        ("?replicas=2", "replicas=2 cannot be"),
        ("?replication=2&write_consistency=3", "write_consistency cannot be more than replication"),
    ],
)
def test_a_layout_that_cannot_be_is_refused(ending, message):
    with pytest.raises(ConfigError, match=message):
        connect(f"qdrant://127.0.0.1:9/g{ending}")


@pytest.mark.parametrize(
    "address",
    [
        "qdrant://me:secret@h:1/g",
        "qdrant://h/g?api_key=secret",
        "qdrant://h:secret/g",
        "qdrant://:secret@h",
    ],
)
def test_an_address_that_cannot_be_is_refused_without_its_key(address):
    with pytest.raises(ConfigError, match=r"must be qdrant://.*QDRANT_API_KEY|api_key cannot be; behind .") as error:
        connect(address)
    assert "secret" not in str(error.value)


def test_a_server_may_have_an_address_of_ipv6(client, monkeypatch):
    urls = []
    monkeypatch.setattr(qdrant_gallery, "QdrantClient", lambda url, **_options: urls.append(url) or client)
    assert connect("qdrants://[::1]/g", ABOUT).place == "qdrants://[::1]:6333/g" and urls == ["https://[::1]:6333"]


def test_a_collection_that_another_process_creates_meanwhile_is_opened(client, monkeypatch):
    QdrantGallery(client, "g", ABOUT)
    indexed = []
    monkeypatch.setattr(client, "collection_exists", lambda _name: False)
    monkeypatch.setattr(client, "create_payload_index", lambda _name, field, _schema: indexed.append(field))
    for status, context in ((409, contextlib.nullcontext()), (403, pytest.raises(ConfigError, match="403"))):
        monkeypatch.setattr(client, "create_collection", raising(answer(status)))
        with context:
            QdrantGallery(client, "g", ABOUT)
    assert indexed == ["camera", "identity", "time"]  # where the other one was killed before it made them


def raising(error):
    def function(*_args, **_options):
        raise error

    return function


def test_a_write_that_a_node_does_not_answer_is_tried_again(client, monkeypatch):
    gallery, own, pauses = QdrantGallery(client, "g", ABOUT), client.upsert, []
    errors = [answer(500), ResponseHandlingException(OSError("refused"))]

    def upsert(*args, **options):
        if errors:
            raise errors.pop()
        return own(*args, **options)

    monkeypatch.setattr(qdrant_gallery.time, "sleep", pauses.append)
    monkeypatch.setattr(client, "upsert", upsert)
    assert gallery.add(*people(600)) == 600 and len(gallery) == 600 and pauses == [1.0, 2.0]
    monkeypatch.setattr(client, "upsert", raising(answer(400)))
    with pytest.raises(ConfigError, match="400"):
        gallery.add(*people(1, start=600))
    monkeypatch.setattr(client, "upsert", raising(answer(503)))
    with pytest.raises(ConfigError, match="503"):
        gallery.add(*people(1, start=600))
    assert pauses == [1.0, 2.0, *qdrant_gallery.PAUSES]


def test_a_snapshot_is_the_servers_file(client, monkeypatch):
    gallery = QdrantGallery(client, "g", ABOUT)
    with pytest.raises(ConfigError, match="Qdrant made no snapshot of Collection g"):
        monkeypatch.setattr(client, "create_snapshot", lambda _name, wait: None)
        gallery.snapshot()
    description = models.SnapshotDescription(name="g-1.snapshot", size=10)
    monkeypatch.setattr(client, "create_snapshot", lambda name, wait: description if (name, wait) == ("g", True) else 0)
    assert gallery.snapshot() == "g-1.snapshot"


def test_other_collections_are_refused(client):
    with pytest.raises(ConfigError, match="There is no collection g"):
        QdrantGallery(client, "g")
    client.create_collection("old", models.VectorParams(size=8, distance="Cosine"), metadata=ABOUT)
    with pytest.raises(ConfigError, match="Collection old has gallery format 1, and this version reads format 2"):
        QdrantGallery(client, "old", ABOUT)
    client.create_collection("other", models.VectorParams(size=4, distance="Dot"))
    with pytest.raises(ConfigError, match="is no gallery of this library"):
        QdrantGallery(client, "other", ABOUT)


@pytest.mark.parametrize("place", ["qdrant://host", "qdrant:///name"])
def test_a_place_has_a_host_and_a_collection(place):
    with pytest.raises(ConfigError, match="must be qdrant://HOST:PORT/COLLECTION"):
        connect(place)


def test_a_server_that_is_not_there_is_named():
    with pytest.raises(ConfigError, match="Qdrant does not answer for collection g"):
        connect("qdrant://127.0.0.1:9/g")


OPEN_QDRANT = """
import sys
from qdrant_client import QdrantClient
from tf_reid import search
from tf_reid.gallery import qdrant_gallery
qdrant_gallery.QdrantClient = lambda **_: QdrantClient(":memory:")
about = {"digest": "d", "distance": "cosine", "width": 2, "source": "runs/a"}
with search.open_gallery("qdrant://host/g", about) as gallery:
    assert len(gallery) == 0
print(*sys.modules)
"""


def test_opening_a_qdrant_gallery_loads_no_faiss():
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", OPEN_QDRANT], cwd=root, capture_output=True, text=True, check=True)
    assert "qdrant_client" in done.stdout.split() and "faiss" not in done.stdout.split()


def test_a_point_that_something_else_wrote_and_other_mistakes_are_refused(client):
    gallery = QdrantGallery(client, "g", ABOUT)
    records, embeddings = people(5)
    gallery.add(records, embeddings)
    assert len(gallery.search(embeddings[:1], 10**30)[0]) == 5
    with pytest.raises(ValueError, match="top must be a whole number from 1 on, not 0"):
        gallery.search(embeddings[:1], 0)
    client.upsert("g", [models.PointStruct(id=7, vector=embeddings[0].tolist(), payload={"other": 1})])
    assert gallery.remove(["folder"]) == 0 and gallery.mend_index() is None
    with pytest.raises(ConfigError, match="Point 7 of collection g is no image of a gallery"):
        gallery.search(embeddings[:1], 6)
    client.create_collection("newer", models.VectorParams(size=8, distance="Cosine"), metadata=ABOUT | {"format": 3})
    with pytest.raises(ConfigError, match=r"Collection newer has gallery format 3, .* made by a newer version"):
        QdrantGallery(client, "newer")
