"""A gallery that lasts: exact against a slow reference, filtered, atomic, killed, read by two."""

import os
import signal
import sqlite3
import subprocess
import sys
import time

import numpy as np
import pytest

from tf_reid.config import ConfigError
from tf_reid.gallery import faiss_gallery as galleries
from tf_reid.gallery.faiss_gallery import Filters, Gallery, Record

WIDTH = 8
ABOUT = {"digest": "d1", "distance": "cosine", "width": WIDTH, "source": "runs/a"}


def made(count, seed=0, start=0):
    """Records of 20 persons and 3 cameras, unit embeddings that lie around their person's."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(20, WIDTH))
    identities = rng.integers(20, size=count)
    found = centres[identities] + 0.3 * rng.normal(size=(count, WIDTH))
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    records = [
        Record(f"{start + n}.jpg", f"p{identity}", f"c{n % 3}", 1000.0 + n)
        for n, identity in enumerate(identities.tolist())
    ]
    return records, found.astype(np.float32)


@pytest.fixture
def gallery(tmp_path):
    found = Gallery(tmp_path / "g", ABOUT)
    found.add(*made(300))
    return found


def expected(records, embeddings, query, keep, top, distance="cosine"):
    rows = [n for n, record in enumerate(records) if keep(record)]
    apart = 1 - embeddings[rows] @ query if distance == "cosine" else np.linalg.norm(embeddings[rows] - query, axis=1)
    order = np.argsort(apart, kind="stable")[:top]
    return [records[rows[n]].path for n in order], apart[order]


FILTERS = [
    (Filters(), lambda r: True),
    (Filters(cameras=("c1",)), lambda r: r.camera == "c1"),
    (Filters(not_cameras=("c1", "c2")), lambda r: r.camera == "c0"),
    (Filters(since=1100.0, until=1150.0), lambda r: 1100 <= r.time <= 1150),
]


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
@pytest.mark.parametrize("laid_out", ["no", "partly", "hnsw"])
@pytest.mark.parametrize(("filters", "keep"), FILTERS)
def test_the_nearest_of_those_allowed_are_found(tmp_path, monkeypatch, distance, laid_out, filters, keep):
    if laid_out == "hnsw":  # of so few images HNSW with a wide search is exact
        monkeypatch.setattr(galleries, "FLAT_UP_TO", 10)
        monkeypatch.setattr(galleries, "FEW", 10)
    gallery = Gallery(tmp_path, ABOUT | {"distance": distance})
    records, embeddings = made(300)
    gallery.add(records[:250], embeddings[:250])
    if laid_out != "no":
        gallery.lay_out()
    gallery.add(records[250:], embeddings[250:])  # these are not in the index
    gallery.remove(["3.jpg", "299.jpg"])
    queries = made(5, seed=1)[1]

    def kept(record):
        return keep(record) and record.path not in ("3.jpg", "299.jpg")

    for query, matches in zip(queries, gallery.search(queries, 7, filters), strict=True):
        paths, distances = expected(records, embeddings, query, kept, 7, distance)
        assert [match.record.path for match in matches] == paths
        np.testing.assert_allclose([match.distance for match in matches], distances, atol=1e-5)
    assert gallery.stats()["index"] == {"no": "none", "partly": "flat", "hnsw": "HNSW"}[laid_out]
    np.testing.assert_array_equal(
        [m.id for m in gallery.search(queries, 7, filters, exact=True)[0]],
        [m.id for m in gallery.search(queries, 7, filters)[0]],
    )


def test_filters_that_leave_nobody_find_nobody(gallery):
    assert gallery.search(made(2)[1], 5, Filters(cameras=("none",))) == [[], []]
    assert len(gallery.search(made(1)[1], 500)[0]) == 300


def test_an_image_is_there_once(gallery):
    records, embeddings = made(302)
    assert gallery.known(["0.jpg", "301.jpg"]) == {"0.jpg"}
    assert gallery.add(records, embeddings) == 2 and len(gallery) == 302


def test_an_identity_can_be_removed_for_good(gallery):
    theirs = sum(record.identity == "p3" for record in made(300)[0])
    gallery.lay_out()
    assert gallery.remove(identity="p3") == theirs > 0
    assert all(match.record.identity != "p3" for match in gallery.search(made(1)[1], 300)[0])
    # And its number is never given again.
    gallery.add([Record("new.jpg", "p3")], made(1)[1])
    assert gallery.search(made(1)[1], 300)[0][0].id > 300


def test_an_add_is_whole_or_not_at_all(gallery):
    records, embeddings = made(10, start=1000)
    with pytest.raises(sqlite3.Error):
        gallery.add([*records[:5], Record(None), *records[6:]], embeddings)
    assert len(gallery) == 300


@pytest.mark.parametrize("embeddings", [np.zeros((1, 5)), np.full((1, WIDTH), np.nan), np.zeros((2, WIDTH))])
def test_embeddings_that_do_not_fit_are_refused(gallery, embeddings):
    with pytest.raises(ValueError, match="Embeddings must be"):
        gallery.add([Record("x.jpg")], embeddings)


def test_another_models_embeddings_are_refused(gallery):
    with pytest.raises(ConfigError, match=r"built by model d1 \(runs/a\), and this is d2 .* cannot be compared"):
        Gallery(gallery.folder, ABOUT | {"digest": "d2", "source": "runs/b"})


def test_no_gallery_and_a_damaged_one_are_told(tmp_path):
    with pytest.raises(ConfigError, match="There is no gallery in"):
        Gallery(tmp_path)
    (tmp_path / "gallery.sqlite").write_text("this is no database, but long enough to be taken for one" * 50)
    with pytest.raises(ConfigError, match="cannot be read as a gallery"):
        Gallery(tmp_path)


def test_a_lost_index_costs_time_and_nothing_else(gallery):
    gallery.lay_out()
    query = made(1, seed=5)[1]
    before = gallery.search(query, 5)
    (index,) = gallery.folder.glob("index_*.faiss")
    index.write_bytes(index.read_bytes()[:100])
    again = Gallery(gallery.folder)
    assert [m.id for m in again.search(query, 5)[0]] == [m.id for m in before[0]]
    assert again.stats()["index"] == "none"
    again.lay_out()
    assert Gallery(gallery.folder).stats()["not in the index yet"] == 0


def test_a_reader_sees_what_another_writes(gallery):
    reader = Gallery(gallery.folder)
    records, embeddings = made(1, seed=7, start=500)
    query = embeddings[:1]
    reader.search(query)
    gallery.add(records, embeddings)
    assert reader.search(query, 1)[0][0].record.path == "500.jpg"
    gallery.lay_out()
    assert reader.search(query, 1)[0][0].record.path == "500.jpg" and reader.stats()["not in the index yet"] == 0
    gallery.add(*made(400, seed=8, start=600))
    gallery.lay_out()
    assert len(list(gallery.folder.glob("index_*.faiss"))) == 1
    assert reader.search(query, 1)[0][0].record.path == "500.jpg"


def test_a_stranger_finds_somebody_as_often_as_was_asked(gallery):
    found = galleries.calibrate(gallery, 0.1)
    assert found["asked"] == 300
    records, embeddings = made(300)
    nearest = [
        min(1 - embeddings[[n for n, r in enumerate(records) if r.identity != record.identity]] @ own)
        for record, own in zip(records, embeddings, strict=True)
    ]
    assert np.mean(np.array(nearest) <= found["distance"]) == pytest.approx(0.1, abs=0.02)
    own = gallery.search(embeddings[:1], 300)[0]
    assert own[0].within and not own[-1].within
    assert Gallery(gallery.folder).stats()["nobody"] == found


def test_without_identities_nothing_is_calibrated(tmp_path):
    gallery = Gallery(tmp_path, ABOUT)
    gallery.add([Record("a"), Record("b")], made(2)[1])
    assert galleries.calibrate(gallery, 0.1) is None and gallery.search(made(1)[1])[0][0].within is None


ADDING = """
import sys
sys.path.insert(0, "tests")
from test_gallery import ABOUT, made
from tf_reid.gallery import Gallery
gallery = Gallery(sys.argv[1], ABOUT)
print("open", flush=True)
for part in range(10_000):
    gallery.add(*made(100, seed=part, start=100 * part))
    gallery.lay_out()
"""


def test_kill_9_during_add_loses_only_what_was_being_added(tmp_path):
    with subprocess.Popen([sys.executable, "-c", ADDING, str(tmp_path)], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and len(Gallery(tmp_path)) < 500:
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
    gallery = Gallery(tmp_path)
    found = gallery.stats()
    assert found["images"] >= 500 and found["images"] % 100 == 0 and found["database"] == "sound"
    records, embeddings = made(100)
    assert gallery.search(embeddings[:1], 1)[0][0].record.path == records[0].path
    assert gallery.add(*made(100, seed=123, start=10**7)) == 100


def test_who_was_removed_is_in_no_file(tmp_path):
    gallery = Gallery(tmp_path, ABOUT)
    records, embeddings = made(50)
    gallery.add(records, embeddings)
    gallery.lay_out()
    gone = embeddings[7].tobytes()
    assert any(gone in path.read_bytes() for path in tmp_path.iterdir())
    assert gallery.remove(["7.jpg"]) == 1
    gallery.lay_out(always=True)
    assert not any(gone in path.read_bytes() for path in tmp_path.iterdir())
    gallery.remove(until=2000.0)
    gallery.lay_out(always=True)
    assert len(gallery) == 0 and not list(tmp_path.glob("*.faiss")) and gallery.search(embeddings[:1]) == [[]]


def test_strangers_are_met_also_where_identities_have_many_images(tmp_path):
    gallery = Gallery(tmp_path, ABOUT)
    rng = np.random.default_rng(0)
    near = np.eye(WIDTH)[np.repeat([0, 1], 100)] + 0.01 * rng.normal(size=(200, WIDTH))
    gallery.add([Record(f"{n}", f"p{n // 100}") for n in range(200)], near)
    assert galleries.calibrate(gallery, 0.1)["asked"] == 200


CHANGING = """
import sys
sys.path.insert(0, "tests")
from test_gallery import ABOUT, made
from tf_reid.gallery import Gallery
gallery = Gallery(sys.argv[1], ABOUT)
print("open", flush=True)
for part in range(10_000):
    records, embeddings = made(30, seed=part, start=1000 + 30 * part)
    gallery.add(records, embeddings)
    gallery.remove([record.path for record in records])
    gallery.lay_out(always=part % 5 == 0)
"""


def test_a_search_sees_one_state_while_another_process_writes(gallery):
    """What stays all the time is found each time, with its own distance, however much comes and goes beside it."""
    query = made(300)[1][:4]
    with subprocess.Popen([sys.executable, "-c", CHANGING, str(gallery.folder)], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        try:
            for _ in range(150):
                for number, matches in enumerate(gallery.search(query, 400)):
                    paths = [match.record.path for match in matches]
                    assert f"{number}.jpg" in paths[:1] and sum(int(path[:-4]) < 1000 for path in paths) == 300
            everything = gallery.everything()
            assert len(everything[0]) == len(everything[1]) and np.allclose(np.linalg.norm(everything[1], axis=1), 1.0)
        finally:
            process.kill()


def test_a_gallery_that_was_never_begun_is_told(tmp_path):
    sqlite3.connect(tmp_path / "gallery.sqlite").execute("CREATE TABLE other (x)")
    with pytest.raises(ConfigError, match="was never begun"):
        Gallery(tmp_path)
    assert len(Gallery(tmp_path, ABOUT)) == 0
