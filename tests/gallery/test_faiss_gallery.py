"""A gallery that lasts: exact against a slow reference, filtered, atomic, killed, read by two."""

import errno
import os
import shutil
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
from tf_reid.gallery import faiss_gallery, faiss_index, image_table
from tf_reid.gallery.faiss_gallery import FaissGallery
from tf_reid.gallery.records import Record

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


def test_images_of_known_identity_are_drawn_from_the_whole_gallery(gallery):
    embeddings = people(300)[1]
    drawn = gallery.identified(60)[1]
    places = [int(np.flatnonzero((embeddings == one).all(axis=1))[0]) for one in drawn]
    assert len(set(places)) == 60 and 20 < np.sum(np.array(places) >= 150) < 40


def test_a_removed_images_number_is_never_given_again(gallery):
    gallery.update_index()
    gallery.remove(["299.jpg"])
    gallery.add([Record("new.jpg", "p3")], people(1)[1])
    assert gallery.search(people(1)[1], 300)[0][0].id > 300


def test_an_add_is_whole_or_not_at_all(gallery):
    records, embeddings = people(10, start=1000)
    with pytest.raises(UnicodeEncodeError):  # which SQLite raises at the sixth image
        gallery.add([*records[:5], Record("\udc80"), *records[6:]], embeddings)
    assert len(gallery) == 300


def test_no_gallery_is_made_among_other_files(tmp_path):
    (tmp_path / "1.jpg").touch()
    with pytest.raises(ConfigError, match=r"holds other files, such as 1\.jpg; name another folder"):
        FaissGallery(tmp_path, ABOUT)
    assert [path.name for path in tmp_path.iterdir()] == ["1.jpg"]


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
    assert again.stats()["index"].startswith(f"not used: The index {index} is damaged: its digest is not the one")
    again.update_index()
    stats = FaissGallery(gallery.folder).stats()
    assert stats["not_indexed"] == 0 and stats["index"] == "flat"


def flip(path, bit):
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def test_a_flipped_bit_in_the_index_changes_no_answer(gallery):
    gallery.update_index()
    queries = people(3, seed=5)[1]
    before = gallery.search(queries, 300)
    bits = np.random.default_rng(0).integers(8 * next(gallery.folder.glob("*.faiss")).stat().st_size, size=10)
    for bit in bits.tolist():
        (index,) = gallery.folder.glob("*.faiss")
        flip(index, bit)
        with FaissGallery(gallery.folder) as damaged:
            for matches, right in zip(damaged.search(queries, 300), before, strict=True):
                assert {match.record for match in matches} == {match.record for match in right}
                np.testing.assert_allclose([m.distance for m in matches], [m.distance for m in right], atol=1e-6)
            assert damaged.stats()["index"].startswith("not used: ")
            assert "its digest is not the one that was kept; it was made anew from the embeddings in" in (
                damaged.mend_index()
            )
            assert damaged.mend_index() is None and damaged.stats()["index"] == "flat"


@pytest.mark.parametrize(
    "entry",
    [
        {"file": "../outside.faiss", "covered": 300, "digest": "d"},
        {"file": "/etc/passwd", "covered": 300, "digest": "d"},
        {"file": "index_1_1_1.faiss\n", "covered": 300, "digest": "d"},
        {"file": ["index_1_1_1.faiss"], "covered": 300, "digest": "d"},
        "index_1_1_1.faiss",
    ],
)
def test_an_index_outside_of_the_folder_is_neither_read_nor_removed(gallery, entry):
    gallery.update_index()
    outside = gallery.folder.parent / "outside.faiss"
    shutil.copy(next(gallery.folder.glob("*.faiss")), outside)
    with gallery._table.transaction():
        gallery._table.write_about({"index": entry})
        gallery._table.count("revision")
    again = FaissGallery(gallery.folder)
    assert len(again.search(people(1)[1], 300)[0]) == 300
    assert "which is no index of its folder" in again.mend_index() and again.stats()["index"] == "flat"
    assert outside.exists() and len(list(gallery.folder.glob("*.faiss"))) == 1


def test_an_index_that_is_a_link_a_pipe_or_of_other_images_is_not_read(gallery, tmp_path):
    gallery.update_index()
    (index,) = gallery.folder.glob("*.faiss")
    moved = index.rename(tmp_path / "moved.faiss")
    index.symlink_to(moved)
    assert "cannot be opened: Too many levels of symbolic links" in FaissGallery(gallery.folder).stats()["index"]
    index.unlink()
    os.mkfifo(index)
    assert "it is not a file" in FaissGallery(gallery.folder).mend_index()
    (index,) = gallery.folder.glob("*.faiss")
    other = FaissGallery(tmp_path / "other", ABOUT)
    other.add(*people(200))
    other.update_index()
    shutil.copy(next(other.folder.glob("*.faiss")), index)
    with gallery._table.transaction():  # the right digest, and the wrong images
        digest = other._table.about()["index"]["digest"]
        gallery._table.write_about({"index": gallery._table.about()["index"] | {"digest": digest}})
        gallery._table.count("revision")
    assert "it is an index of other images" in FaissGallery(gallery.folder).stats()["index"]


def test_an_index_that_cannot_be_written_costs_time_and_nothing_else(gallery, monkeypatch):
    def full(_self, write):
        write(b"the first part")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(faiss_index.FaissIndex, "write", full)
    with pytest.raises(ConfigError, match=r"cannot be written: No space left on device\. All images are stored"):
        gallery.update_index()
    assert not list(gallery.folder.glob("*.faiss")) and len(gallery.search(people(1)[1], 300)[0]) == 300


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
    assert gallery.stats()["removed_images"] == "still in the files; run remove again"
    gallery.erase()
    assert not any(gone in path.read_bytes() for path in tmp_path.iterdir())
    assert gallery.stats()["removed_images"] == "erased"
    gallery.remove(until=2000.0)
    gallery.erase()
    assert len(gallery) == 0 and not list(tmp_path.glob("*.faiss")) and gallery.search(embeddings[:1]) == [[]]


def test_pages_that_were_split_keep_nothing_of_removed_images(tmp_path):
    """SQLite leaves copies in pages that it splits, which secure_delete does not overwrite."""
    gallery, gone, here = FaissGallery(tmp_path, ABOUT), {}, {}
    rng = np.random.default_rng(1)
    for _ in range(30):
        count = int(rng.integers(1, 120))
        names = [f"/data/{rng.bytes(10).hex()}/{'x' * rng.integers(300)}.jpg" for _ in range(count)]
        embeddings = rng.normal(size=(count, WIDTH)).astype(np.float32)
        gallery.add([Record(name) for name in names], embeddings)
        here |= dict(zip(names, embeddings, strict=True))
        removed = rng.permutation(sorted(here))[: rng.integers(60)].tolist()
        gallery.remove(removed)
        gone |= {name: here.pop(name) for name in removed}
    gallery.erase()
    content = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert len(gone) > 500 and len(gallery) == len(here)
    assert not [name for name, row in gone.items() if name[6:26].encode() in content or row.tobytes()[:16] in content]


def test_a_reader_that_keeps_removed_images_in_the_log_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(image_table, "WAITED", 0.1)
    gallery = FaissGallery(tmp_path, ABOUT)
    records, embeddings = people(50)
    gallery.add(records, embeddings)
    reader = sqlite3.connect(tmp_path / "gallery.sqlite", isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT COUNT(*) FROM images").fetchone()
    assert gallery.remove(["7.jpg"]) == 1
    with pytest.raises(ConfigError, match=r"another process still reads .*gallery\.sqlite-wal, which keeps their data"):
        gallery.erase()
    gone = embeddings[7].tobytes()
    assert any(gone in path.read_bytes() for path in tmp_path.iterdir())
    reader.execute("COMMIT")
    gallery.erase()
    assert not any(gone in path.read_bytes() for path in tmp_path.iterdir())


def test_an_index_laid_out_while_another_process_removes_images_is_dropped(gallery, monkeypatch):
    removed, own = [], faiss_gallery.FaissIndex.build

    def build(*args):
        index = own(*args)
        if len(removed) < 2:
            name = f"{len(removed)}.jpg"
            removed.append(FaissGallery(gallery.folder).remove([name]))
        return index

    monkeypatch.setattr(faiss_gallery.FaissIndex, "build", build)
    gallery.update_index(always=True)
    (index,) = gallery.folder.glob("*.faiss")
    assert removed == [1, 1] and gallery.stats()["index"] == "flat"
    embeddings = people(300)[1]
    assert [row.tobytes() in index.read_bytes() for row in embeddings[:3]] == [False, False, True]


def test_an_index_that_never_is_of_what_is_left_is_an_error_and_nothing_counts_as_erased(gallery, monkeypatch):
    gallery.update_index()
    removed, own = [], faiss_gallery.FaissIndex.build

    def build(*args):
        removed.append(f"{len(removed) + 1}.jpg")
        FaissGallery(gallery.folder).remove(removed[-1:])
        return own(*args)

    gallery.remove(["0.jpg"])
    with monkeypatch.context() as patched:
        patched.setattr(faiss_gallery.FaissIndex, "build", build)
        with pytest.raises(ConfigError, match=r"is not up to date: each of 3 times .* Run the same command again\."):
            gallery.erase()
    assert len(removed) == 3 and gallery.stats()["removed_images"].startswith("still in the files")
    gallery.erase()
    assert gallery.stats()["removed_images"] == "erased" and len(gallery) == 296


def test_an_index_that_another_process_replaced_meanwhile_is_not_damaged(gallery, monkeypatch):
    gallery.update_index()
    reader, replaced, own = FaissGallery(gallery.folder), [], faiss_gallery.IndexFiles.read

    def read(*args):
        if not replaced:
            replaced.append(True)
            gallery.update_index(always=True)
        return own(*args)

    monkeypatch.setattr(reader._files, "read", lambda *args: read(reader._files, *args))
    assert reader.mend_index() is None and replaced and reader.stats()["index"] == "flat"


class Killed(BaseException):
    """Ends what happens at once, as a signal does; what stands behind `finally` is tried in this process, too."""


@pytest.mark.parametrize("place", ["add", "write_about", "VACUUM", "write", "_publish", "remove_others"])
def test_a_command_killed_anywhere_leaves_a_sound_gallery(gallery, monkeypatch, place):
    gallery.update_index()
    target = {"add": gallery._table, "write_about": gallery._table, "VACUUM": gallery._table}
    target |= {"_publish": gallery, "write": gallery._files, "remove_others": gallery._files}

    def killed(*_args):
        raise Killed

    records, embeddings = people(100, seed=3, start=1000)
    with monkeypatch.context() as patched:
        patched.setattr(target[place], "erase" if place == "VACUUM" else place, killed)
        with pytest.raises(Killed):
            gallery.add(records, embeddings)
            gallery.remove(["7.jpg"])
            gallery.erase()
    (gallery.folder / ".index_9_9_9.faiss").write_bytes(b"of a killed writer")
    with FaissGallery(gallery.folder) as again:
        stats = again.stats()
        is_added = place not in ("add", "write_about")
        assert stats["images"] == (399 if is_added else 300) and stats["database"] == "sound"
        again.add(records, embeddings)
        again.remove(["7.jpg"])
        again.erase()
        stats = again.stats()
        assert (stats["images"], stats["index"], stats["removed_images"]) == (399, "flat", "erased")
        assert len(again.search(embeddings[:1], 500)[0]) == 399
    gone = people(300)[1][7].tobytes()
    assert not any(gone in path.read_bytes() for path in gallery.folder.iterdir())
    assert len(list(gallery.folder.glob("*index_*"))) == 1


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
