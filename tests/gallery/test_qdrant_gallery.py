"""The gallery on Qdrant answers as the one in a folder does."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from people import ABOUT, FILTERS, people
from qdrant_client import QdrantClient, models

from tf_reid.config import ConfigError
from tf_reid.gallery import qdrant_gallery
from tf_reid.gallery.faiss_gallery import FaissGallery
from tf_reid.gallery.qdrant_gallery import QdrantGallery, connect
from tf_reid.gallery.records import Record
from tf_reid.gallery.rejection import calibrate


@pytest.fixture
def client():
    return QdrantClient(":memory:")


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
@pytest.mark.parametrize("filters", [filters for filters, _ in FILTERS])
def test_it_finds_what_a_folder_finds(client, tmp_path, monkeypatch, distance, filters):
    both = (
        QdrantGallery(client, "g", ABOUT | {"distance": distance}),
        FaissGallery(tmp_path, ABOUT | {"distance": distance}),
    )
    queries = people(4, seed=1)[1]
    for gallery in both:
        assert gallery.add(*people(200)) == 200 and gallery.add(*people(201)) == 1
        assert gallery.remove(["3.jpg"]) == 1
        assert gallery.remove(identity="p5") > 0
        assert gallery.contained(["3.jpg", "4.jpg", "900.jpg"]) == {"4.jpg"}
        calibrate(gallery, 0.1)
    with monkeypatch.context() as patched:
        patched.setattr(client, "count", lambda *_args, **_options: pytest.fail("a search counts the images"))
        answers = [gallery.search(queries, 6, filters) for gallery in both]
    for one, other in zip(*answers, strict=True):
        assert [match.record for match in one] == [match.record for match in other]
        np.testing.assert_allclose([m.distance for m in one], [m.distance for m in other], atol=1e-5)
        assert [match.accepted for match in one] == [match.accepted for match in other]
    one, other = (gallery.summary() for gallery in both)
    assert (one["images"], one["cameras"]) == (other["images"], other["cameras"])
    assert both[0].stats()["images"] == both[1].stats()["images"]
    assert both[0].stats()["rejection"]["threshold"] == pytest.approx(
        both[1].stats()["rejection"]["threshold"], abs=1e-4
    )


def test_a_folder_is_removed_from_both(client, tmp_path, monkeypatch):
    monkeypatch.setattr(qdrant_gallery, "READ_AT_ONCE", 3)  # several pages
    paths = ["a/1.jpg", "a/2.jpg", "a/b/3.jpg", "ab/4.jpg", "5.jpg"]
    for gallery in (QdrantGallery(client, "g", ABOUT), FaissGallery(tmp_path, ABOUT)):
        gallery.add([Record(path) for path in paths], people(5)[1])
        assert gallery.remove(["a", "5.jpg", "nowhere"]) == 4 and gallery.contained(paths) == {"ab/4.jpg"}


def test_another_models_embeddings_and_other_collections_are_refused(client):
    with pytest.raises(ConfigError, match="There is no collection g"):
        QdrantGallery(client, "g")
    QdrantGallery(client, "g", ABOUT).add([Record("a")], people(1)[1])
    assert len(QdrantGallery(client, "g")) == 1
    with pytest.raises(ConfigError, match="was built by model d1"):
        QdrantGallery(client, "g", ABOUT | {"digest": "d2"})
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
