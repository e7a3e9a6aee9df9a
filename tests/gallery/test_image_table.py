"""The database's file: damage is met before it gives a wrong answer, and each failure is one sentence."""

import os
import sqlite3
import stat

import numpy as np
import pytest
from people import ABOUT, WIDTH, people

from tf_reid.config import ConfigError
from tf_reid.gallery import image_table
from tf_reid.gallery.faiss_gallery import FaissGallery
from tf_reid.gallery.records import Record


@pytest.fixture
def place(tmp_path):
    with FaissGallery(tmp_path / "g", ABOUT) as gallery:
        gallery.add(*people(300))
    return tmp_path / "g"


def answers(gallery):
    queries = people(2, seed=1)[1]
    return [[(match.record, match.distance) for match in matches] for matches in gallery.search(queries, 320)]


def test_a_flipped_bit_gives_the_right_answer_or_a_sentence(place):
    path = place / "gallery.sqlite"
    sound, rng, refused = path.read_bytes(), np.random.default_rng(0), 0
    with FaissGallery(place) as gallery:
        right = answers(gallery)
    places = [*rng.integers(100, size=10), *rng.integers(len(sound), size=30)]  # the header, and anywhere
    for byte in places:
        content = bytearray(sound)
        content[byte] ^= 1 << int(rng.integers(8))
        path.write_bytes(content)
        try:
            with FaissGallery(place) as gallery:
                assert answers(gallery) == right
        except ConfigError as error:
            assert str(place) in str(error)
            refused += 1
    assert 10 <= refused < len(places)  # some bytes are not in use


def test_an_image_that_is_not_what_was_stored_is_named_with_a_way_out(place, capsys):
    with sqlite3.connect(place / "gallery.sqlite") as database:
        database.execute("UPDATE images SET embedding = ? WHERE id = 8", (np.full(WIDTH, 1e9, np.float32).tobytes(),))
        database.execute("UPDATE images SET embedding = x'00' WHERE id = 9")
    with FaissGallery(place) as gallery:
        sentence = "is damaged: what it keeps of image 8, 7.jpg, is not what was stored. Remove this image"
        with pytest.raises(ConfigError, match=sentence):
            gallery.search(people(1)[1])
        with pytest.raises(ConfigError, match=sentence):
            gallery.update_index()
        assert sentence in gallery.stats()["database"]
        gallery.remove(["7.jpg", "8.jpg"])
        gallery.erase()
        assert len(gallery.search(people(1)[1], 300)[0]) == 298 and gallery.stats()["database"] == "sound"


def test_labels_that_are_not_what_was_stored_are_missed_where_the_index_has_the_embeddings(place):
    with FaissGallery(place) as gallery:
        gallery.update_index()
    with sqlite3.connect(place / "gallery.sqlite") as database:
        database.execute("UPDATE images SET identity = 'somebody else' WHERE id = 8")
    sentence = r"what it keeps of image 8, 7\.jpg, is not what was stored"
    with FaissGallery(place) as gallery, pytest.raises(ConfigError, match=sentence):
        gallery.search(people(1)[1], 300)


def test_a_lost_image_is_missed(place):
    with sqlite3.connect(place / "gallery.sqlite") as database:
        database.execute("DELETE FROM images WHERE id = 8")
    with pytest.raises(ConfigError, match=r"gallery.sqlite is damaged \(images are lost or out of order\)"):
        FaissGallery(place).search(people(1)[1])


def test_a_gallery_without_checksums_gets_them_with_new_images(place):
    with sqlite3.connect(place / "gallery.sqlite") as database:
        database.execute("ALTER TABLE images DROP COLUMN checksum")
        database.execute("DELETE FROM about WHERE key = 'images'")
    with FaissGallery(place) as gallery:
        assert len(gallery.search(people(1)[1], 300)[0]) == 300
        gallery.add(*people(5, seed=2, start=900))
    checksums = database.execute("SELECT COUNT(*), COUNT(checksum) FROM images").fetchone()
    assert checksums == (305, 5)


def test_only_the_user_may_read_a_new_gallery(place):
    with FaissGallery(place) as gallery:
        gallery.add(*people(5, seed=2, start=900))
        gallery.update_index()
        files = {path.name.split("_")[0]: stat.S_IMODE(path.stat().st_mode) for path in place.iterdir()}
        names = ("gallery.sqlite", "gallery.sqlite-shm", "gallery.sqlite-wal", "index", "index.lock")
        assert files == dict.fromkeys(names, 0o600) and stat.S_IMODE(place.stat().st_mode) == 0o700
    # A gallery that its user has opened to others stays open to them.
    (place / "gallery.sqlite").chmod(0o640)
    with FaissGallery(place) as gallery:
        gallery.update_index(always=True)
    assert stat.S_IMODE(next(place.glob("index_*")).stat().st_mode) == 0o640


@pytest.mark.parametrize("name", ["gallery.sqlite", "gallery.sqlite-wal", "gallery.sqlite-shm"])
def test_links_and_pipes_in_the_place_of_its_files_are_refused(place, tmp_path, name):
    aim = tmp_path / "aim"
    if name == "gallery.sqlite":
        (place / name).rename(aim)
    else:
        aim.write_bytes(b"of somebody else")
    before = aim.read_bytes()
    (place / name).symlink_to(aim)
    with pytest.raises(ConfigError, match=f"{name} is a link, or not a file"):
        FaissGallery(place)
    (place / name).unlink()
    os.mkfifo(place / name)
    for about in (None, ABOUT):
        with pytest.raises(ConfigError, match=f"{name} is a link, or not a file"):
            FaissGallery(place, about)
    assert aim.read_bytes() == before


def test_a_full_disk_is_a_sentence_and_loses_nothing(place):
    with FaissGallery(place) as gallery:
        (pages,) = gallery._table._connection.execute("PRAGMA page_count").fetchone()
        gallery._table._connection.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(ConfigError, match=r"gallery.sqlite cannot be written: the disk is full\. What was stored"):
            gallery.add(*people(3000, start=1000))
        assert len(gallery) == 300 and gallery.stats()["database"] == "sound"
        gallery._table._connection.execute("PRAGMA max_page_count = 100000")
        assert gallery.add(*people(3000, start=1000)) == 3000


def test_what_else_goes_wrong_with_the_file_is_a_sentence(place, tmp_path, monkeypatch):
    monkeypatch.setattr(image_table, "WAITED", 0.1)
    writer = sqlite3.connect(place / "gallery.sqlite", isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    with FaissGallery(place) as gallery:
        with pytest.raises(ConfigError, match=r"gallery.sqlite is being written by another process; run the command"):
            gallery.remove(["7.jpg"])
        assert len(gallery.search(people(1)[1], 300)[0]) == 300  # reading needs not wait
        writer.execute("ROLLBACK")
        gallery._table._connection.execute("PRAGMA query_only=ON")
        with pytest.raises(ConfigError, match=r"gallery.sqlite cannot be written: the file or its folder is read-only"):
            gallery.add([Record("x.jpg")], people(1)[1])
    with pytest.raises(ConfigError, match=r"file is a file, not a folder; name another --index"):
        (tmp_path / "file").write_text("")
        FaissGallery(tmp_path / "file", ABOUT)
    (place / "gallery.sqlite").unlink()
    (place / "gallery.sqlite").mkdir()
    with pytest.raises(ConfigError, match="is a link, or not a file"):
        FaissGallery(place)


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("format", "3", "gallery format 3, and this version reads format 2: it was made by a newer version of tf_reid"),
        ("format", '"x"', "gallery format x, and this version reads format 2: remove it and build it anew"),
        ("width", "1e99", "g is damaged: what it keeps of its encoder cannot be"),
        ("distance", '"far"', "g is damaged: what it keeps of its encoder cannot be"),
        ("source", "7", "g is damaged: what it keeps of its encoder cannot be"),
        ("rejection", '{"threshold": NaN}', "g is damaged: what it keeps of its encoder cannot be"),
        ("digest", '"d', r"gallery.sqlite is damaged \(what it keeps about itself\)"),
    ],
)
def test_what_a_gallery_keeps_about_itself_is_checked(place, key, value, sentence):
    with sqlite3.connect(place / "gallery.sqlite") as database:
        database.execute("INSERT OR REPLACE INTO about VALUES (?, ?)", (key, value))
    with pytest.raises(ConfigError, match=sentence):
        FaissGallery(place)
