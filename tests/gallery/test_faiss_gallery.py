"""A gallery that lasts: exact against a slow reference, filtered, atomic, killed, read by two."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from people import ABOUT, FILTERS, WIDTH, people

from tf_reid.config import ConfigError
from tf_reid.gallery import faiss_gallery, faiss_index
from tf_reid.gallery.faiss_gallery import FaissGallery
from tf_reid.gallery.records import Filters, Record
from tf_reid.gallery.rejection import calibrate

ROOT = Path(__file__).parents[2]

IMPORTS = f"import sys\nsys.path[:0] = [{str(ROOT)!r}, {str(Path(__file__).parent)!r}]\n"


@pytest.fixture
def gallery(tmp_path):
    gallery = FaissGallery(tmp_path / "g", ABOUT)
    gallery.add(*people(300))
    return gallery


def expected(records, embeddings, query, keep, top, distance="cosine"):
    rows = [n for n, record in enumerate(records) if keep(record)]
    apart = 1 - embeddings[rows] @ query if distance == "cosine" else np.linalg.norm(embeddings[rows] - query, axis=1)
    order = np.argsort(apart, kind="stable")[:top]
    return [records[rows[n]].path for n in order], apart[order]


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
@pytest.mark.parametrize("laid_out", ["no", "partly", "hnsw"])
@pytest.mark.parametrize(("filters", "keep"), FILTERS)
def test_the_nearest_of_those_allowed_are_found(tmp_path, monkeypatch, distance, laid_out, filters, keep):
    if laid_out == "hnsw":  # of so few images HNSW with a wide search is exact
        monkeypatch.setattr(faiss_index, "FLAT_UP_TO", 10)
        monkeypatch.setattr(faiss_gallery, "FEW", 10)
    gallery = FaissGallery(tmp_path, ABOUT | {"distance": distance})
    records, embeddings = people(300)
    gallery.add(records[:250], embeddings[:250])
    if laid_out != "no":
        gallery.update_index()
    gallery.add(records[250:], embeddings[250:])  # these are not in the index
    gallery.remove(["3.jpg", "299.jpg"])
    queries = people(5, seed=1)[1]

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


def test_filters_that_leave_no_image_find_none(gallery):
    assert gallery.search(people(2)[1], 5, Filters(cameras=("none",))) == [[], []]
    assert len(gallery.search(people(1)[1], 500)[0]) == 300


def test_an_image_is_there_once(gallery):
    records, embeddings = people(302)
    assert gallery.contained(["0.jpg", "301.jpg"]) == {"0.jpg"}
    assert gallery.add(records, embeddings) == 2 and len(gallery) == 302


def test_an_identity_can_be_removed_for_good(gallery):
    theirs = sum(record.identity == "p3" for record in people(300)[0])
    gallery.update_index()
    assert gallery.remove(identity="p3") == theirs > 0
    assert all(match.record.identity != "p3" for match in gallery.search(people(1)[1], 300)[0])
    # And its number is never given again.
    gallery.add([Record("new.jpg", "p3")], people(1)[1])
    assert gallery.search(people(1)[1], 300)[0][0].id > 300


def test_an_add_is_whole_or_not_at_all(gallery):
    records, embeddings = people(10, start=1000)
    with pytest.raises(sqlite3.Error):
        gallery.add([*records[:5], Record(None), *records[6:]], embeddings)
    assert len(gallery) == 300


@pytest.mark.parametrize("embeddings", [np.zeros((1, 5)), np.full((1, WIDTH), np.nan), np.zeros((2, WIDTH))])
def test_embeddings_that_do_not_fit_are_refused(gallery, embeddings):
    with pytest.raises(ValueError, match="Embeddings must be"):
        gallery.add([Record("x.jpg")], embeddings)


def test_another_models_embeddings_are_refused(gallery):
    with pytest.raises(ConfigError, match=r"built by model d1 \(runs/a\), and this is d2 .* cannot be compared"):
        FaissGallery(gallery.folder, ABOUT | {"digest": "d2", "source": "runs/b"})


def test_no_gallery_and_a_damaged_one_are_reported(tmp_path):
    with pytest.raises(ConfigError, match="There is no gallery in"):
        FaissGallery(tmp_path)
    (tmp_path / "gallery.sqlite").write_text("this is no database, but long enough to be taken for one" * 50)
    with pytest.raises(ConfigError, match="cannot be read as a gallery"):
        FaissGallery(tmp_path)


def test_a_lost_index_costs_time_and_nothing_else(gallery):
    gallery.update_index()
    query = people(1, seed=5)[1]
    before = gallery.search(query, 5)
    (index,) = gallery.folder.glob("index_*.faiss")
    index.write_bytes(index.read_bytes()[:100])
    again = FaissGallery(gallery.folder)
    assert [m.id for m in again.search(query, 5)[0]] == [m.id for m in before[0]]
    assert again.stats()["index"] == "none"
    again.update_index()
    assert FaissGallery(gallery.folder).stats()["not_indexed"] == 0


def test_a_reader_sees_what_another_writes(gallery):
    reader = FaissGallery(gallery.folder)
    records, embeddings = people(1, seed=7, start=500)
    query = embeddings[:1]
    reader.search(query)
    gallery.add(records, embeddings)
    assert reader.search(query, 1)[0][0].record.path == "500.jpg"
    gallery.update_index()
    assert reader.search(query, 1)[0][0].record.path == "500.jpg" and reader.stats()["not_indexed"] == 0
    gallery.add(*people(400, seed=8, start=600))
    gallery.update_index()
    assert len(list(gallery.folder.glob("index_*.faiss"))) == 1
    assert reader.search(query, 1)[0][0].record.path == "500.jpg"


def test_an_unknown_identity_is_accepted_at_the_rate_that_was_set(gallery):
    rejection = calibrate(gallery, 0.1)
    assert rejection["queries"] == 300 and rejection["images"] == 300 and rejection["false_accept_rate"] == 0.1
    records, embeddings = people(300)
    nearest = [
        min(1 - embeddings[[n for n, r in enumerate(records) if r.identity != record.identity]] @ own)
        for record, own in zip(records, embeddings, strict=True)
    ]
    assert np.mean(np.array(nearest) <= rejection["threshold"]) == pytest.approx(0.1, abs=0.02)
    own = gallery.search(embeddings[:1], 300)[0]
    assert own[0].accepted and not own[-1].accepted
    assert FaissGallery(gallery.folder).stats()["rejection"] == rejection


def test_without_identities_nothing_is_calibrated(tmp_path):
    gallery = FaissGallery(tmp_path, ABOUT)
    gallery.add([Record("a"), Record("b")], people(2)[1])
    assert calibrate(gallery, 0.1) is None and gallery.search(people(1)[1])[0][0].accepted is None


ADDING = (
    IMPORTS
    + """
from people import ABOUT, people
from tf_reid.gallery.faiss_gallery import FaissGallery
gallery = FaissGallery(sys.argv[1], ABOUT)
print("open", flush=True)
for part in range(10_000):
    gallery.add(*people(100, seed=part, start=100 * part))
    gallery.update_index()
"""
)


def test_kill_9_during_add_loses_only_what_was_being_added(tmp_path):
    with subprocess.Popen([sys.executable, "-c", ADDING, str(tmp_path)], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and len(FaissGallery(tmp_path)) < 500:
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
    gallery = FaissGallery(tmp_path)
    stats = gallery.stats()
    assert stats["images"] >= 500 and stats["images"] % 100 == 0 and stats["database"] == "sound"
    records, embeddings = people(100)
    assert gallery.search(embeddings[:1], 1)[0][0].record.path == records[0].path
    assert gallery.add(*people(100, seed=123, start=10**7)) == 100


def test_a_removed_image_is_in_no_file(tmp_path):
    gallery = FaissGallery(tmp_path, ABOUT)
    records, embeddings = people(50)
    gallery.add(records, embeddings)
    gallery.update_index()
    gone = embeddings[7].tobytes()
    assert any(gone in path.read_bytes() for path in tmp_path.iterdir())
    assert gallery.remove(["7.jpg"]) == 1
    gallery.update_index(always=True)
    assert not any(gone in path.read_bytes() for path in tmp_path.iterdir())
    gallery.remove(until=2000.0)
    gallery.update_index(always=True)
    assert len(gallery) == 0 and not list(tmp_path.glob("*.faiss")) and gallery.search(embeddings[:1]) == [[]]


def test_other_identities_are_met_also_where_identities_have_many_images(tmp_path):
    gallery = FaissGallery(tmp_path, ABOUT)
    rng = np.random.default_rng(0)
    near = np.eye(WIDTH)[np.repeat([0, 1], 100)] + 0.01 * rng.normal(size=(200, WIDTH))
    gallery.add([Record(f"{n}", f"p{n // 100}") for n in range(200)], near)
    assert calibrate(gallery, 0.1)["queries"] == 200


CHANGING = (
    IMPORTS
    + """
from people import ABOUT, people
from tf_reid.gallery.faiss_gallery import FaissGallery
gallery = FaissGallery(sys.argv[1], ABOUT)
print("open", flush=True)
for part in range(10_000):
    records, embeddings = people(30, seed=part, start=1000 + 30 * part)
    gallery.add(records, embeddings)
    gallery.remove([record.path for record in records])
    gallery.update_index(always=part % 5 == 0)
"""
)


def test_a_search_sees_one_state_while_another_process_writes(gallery):
    """What stays all the time is found each time, with its own distance, however much comes and goes beside it."""
    query = people(300)[1][:4]
    with subprocess.Popen([sys.executable, "-c", CHANGING, str(gallery.folder)], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        try:
            for _ in range(150):
                for number, matches in enumerate(gallery.search(query, 400)):
                    paths = [match.record.path for match in matches]
                    assert f"{number}.jpg" in paths[:1] and sum(int(path[:-4]) < 1000 for path in paths) == 300
            paths, embeddings = gallery.paths_and_embeddings()
            assert len(paths) == len(embeddings) >= 300 and np.allclose(np.linalg.norm(embeddings, axis=1), 1.0)
        finally:
            process.kill()


def test_a_gallery_that_was_never_finished_is_reported(tmp_path):
    sqlite3.connect(tmp_path / "gallery.sqlite").execute("CREATE TABLE other (x)")
    with pytest.raises(ConfigError, match="holds no finished gallery"):
        FaissGallery(tmp_path)
    assert len(FaissGallery(tmp_path, ABOUT)) == 0


OLD_TABLES = """
CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE images (id INTEGER PRIMARY KEY AUTOINCREMENT, path TEXT UNIQUE NOT NULL, person TEXT, camera TEXT,
                     time REAL, embedding BLOB NOT NULL);
INSERT INTO about VALUES ('digest', '"d1"'), ('distance', '"cosine"'), ('width', '8'), ('source', '"runs/a"'),
                         ('revision', '0'), ('nobody', '{"rate": 0.05, "distance": 0.5}');
"""


@pytest.mark.parametrize("about", [None, ABOUT])
def test_a_gallery_of_an_earlier_format_is_refused_and_left_as_it_is(tmp_path, about):
    with sqlite3.connect(tmp_path / "gallery.sqlite") as database:
        database.executescript(OLD_TABLES)
    with pytest.raises(ConfigError, match=r"has gallery format 1, and this version reads format 2: .* build it anew"):
        FaissGallery(tmp_path, about)
    keys = {key for (key,) in database.execute("SELECT key FROM about")}
    assert keys == {"digest", "distance", "width", "source", "revision", "nobody"}


def test_a_gallery_is_closed_at_the_end_of_its_block(tmp_path):
    with FaissGallery(tmp_path, ABOUT) as gallery:
        gallery.add(*people(3))
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        len(gallery)
    assert len(FaissGallery(tmp_path)) == 3
