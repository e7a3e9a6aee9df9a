"""A gallery in PostgreSQL: its index, what it refuses and how it says so, killed clients and servers."""

import signal
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

import numpy as np
import psycopg
import pytest
from people import ABOUT, people

from benchmarks import postgres_server
from tf_reid.config import ConfigError
from tf_reid.gallery import postgres_database, postgres_gallery
from tf_reid.gallery.postgres_gallery import PostgresGallery
from tf_reid.gallery.records import Filters, Record

ROOT = Path(__file__).parents[2]
WITH_INDEX = "&options=-c%20enable_seqscan%3Doff"  # a small table is else read without its index


@pytest.fixture
def address(postgres):
    return f"{postgres}&gallery=g{uuid.uuid4().hex}"


@pytest.fixture
def gallery(address):
    with PostgresGallery(address + WITH_INDEX, ABOUT) as gallery:
        gallery.add(*people(300))
        yield gallery


def uses_of_index(gallery):
    """How often the HNSW index was searched; PostgreSQL counts that at a transaction's end, but not at once."""
    with gallery._database.transaction() as cursor:
        cursor.execute("SELECT pg_stat_force_next_flush()")
    with gallery._database.transaction() as cursor:
        cursor.execute(
            "SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = %s",
            [f"{gallery._database.gallery}_nearest"],
        )
        return cursor.fetchone()[0]


# ------------------------------------------------------------------------ the index


def test_the_index_is_made_from_some_size_on_and_asked(gallery, monkeypatch):
    queries = people(5, seed=1)[1]
    before = gallery.search(queries, 7)
    gallery.update_index()
    assert gallery.stats()["index"] == "none"
    monkeypatch.setattr(postgres_gallery, "INDEXED_FROM", 300)
    gallery.update_index()
    gallery.update_index()
    assert gallery.stats()["index"] == "HNSW" and uses_of_index(gallery) == 0
    assert gallery.search(queries, 7) == before and uses_of_index(gallery) == 5
    assert gallery.search(queries, 7, exact=True) == before and uses_of_index(gallery) == 5
    gallery.add(*people(1, seed=7, start=500))
    assert gallery.search(people(1, seed=7)[1], 1)[0][0].record.path == "500.jpg"


def test_the_few_images_that_pass_filters_are_compared_one_by_one(gallery, monkeypatch):
    query = people(1, seed=1)[1]
    filters = Filters(cameras=(gallery.search(query, 1)[0][0].record.camera,))
    expected = gallery.search(query, 5, filters)
    gallery.update_index(always=True)
    asked = []
    monkeypatch.setattr(gallery, "_widen", lambda *_: asked.append("the index"))
    assert gallery.search(query, 5, filters) == expected and not asked
    monkeypatch.setattr(postgres_gallery, "FEW", 2)
    assert gallery.search(query, 5, filters) == expected and asked


def test_images_that_the_index_leaves_out_because_of_filters_are_found(gallery, monkeypatch):
    monkeypatch.setattr(postgres_gallery, "FEW", 0)
    monkeypatch.setattr(postgres_gallery, "SEARCH_BREADTH", 2)
    monkeypatch.setattr(postgres_gallery, "WIDER_WITH_FILTERS", 1)
    query = people(1, seed=1)[1]
    far = gallery.search(query, 300, exact=True)[0][-20:]
    filters = Filters(since=min(match.record.time for match in far[-3:]), cameras=(far[-1].record.camera,))
    expected = gallery.search(query, 5, filters)
    gallery.update_index(always=True)
    with gallery._database.transaction() as cursor:  # so that the index is asked, whatever else would be quicker
        for ending in ("_camera", "_time"):
            cursor.execute(gallery._database.statement("DROP INDEX {index}", index=gallery._database.table(ending)))
    assert gallery.search(query, 5, filters) == expected and uses_of_index(gallery) == 1


@pytest.mark.parametrize("width", [2500, 4500])
def test_embeddings_too_wide_for_an_index_are_compared_one_by_one(address, width):
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(30, width)).astype(np.float32)
    with PostgresGallery(address + WITH_INDEX, ABOUT | {"width": width, "distance": "euclidean"}) as gallery:
        gallery.add([Record(f"{n}") for n in range(30)], embeddings)
        gallery.update_index(always=True)
        is_indexed = width <= 4000 and gallery._pgvector >= (0, 7)
        index = "HNSW" if is_indexed else f"none: this pgvector indexes no embeddings of {width} numbers"
        assert gallery.stats()["index"] == index
        apart = np.linalg.norm(embeddings - embeddings[3], axis=1)
        (matches,) = gallery.search(embeddings[3:4], 4)
        assert [int(match.record.path) for match in matches] == np.argsort(apart)[:4].tolist()
        np.testing.assert_allclose([match.distance for match in matches], np.sort(apart)[:4], rtol=1e-5)


def test_embeddings_too_wide_for_pgvector_are_refused(address):
    with pytest.raises(ConfigError, match="pgvector keeps embeddings of up to 16000 numbers, not of 20000"):
        PostgresGallery(address, ABOUT | {"width": 20_000})


# ------------------------------------------------------------------------- removal


def test_a_removed_image_is_in_no_file_of_the_table(gallery):
    embeddings = people(300)[1]
    gallery.update_index(always=True)
    gone, kept = (embeddings[n].astype("<f4").tobytes() for n in (7, 8))

    def content():
        with gallery._database.transaction() as cursor:
            cursor.execute("CHECKPOINT")
            tables = [gallery._database.table(ending).as_string() for ending in ("", "_nearest")]
            cursor.execute(
                "SELECT current_setting('data_directory'), pg_relation_filepath(%s), pg_relation_filepath(%s)", tables
            )
            folder, *paths = cursor.fetchone()
        return b"".join((Path(folder) / path).read_bytes() for path in paths)

    assert content().count(gone) == 2  # in the table and in the index
    gallery.remove(["7.jpg"])
    assert gallery.stats()["removed_images"] == "still in the files; run remove again" and gone in content()
    gallery.erase()
    assert gallery.stats()["removed_images"] == "erased" and gone not in content() and content().count(kept) == 2
    assert gallery.stats()["index"] == "HNSW" and len(gallery.search(people(1)[1], 300)[0]) == 299


def test_a_reader_of_removed_images_is_reported(gallery, address, monkeypatch):
    monkeypatch.setattr(postgres_database, "LOCK_SECONDS", 0.1)
    gallery.remove(["7.jpg"])
    with PostgresGallery(address) as reader, reader._database.transaction() as cursor:
        cursor.execute(reader._database.statement("SELECT count(*) FROM {images}"))
        with pytest.raises(ConfigError, match=r"still in the files of .*: another process reads them\. End it"):
            gallery.erase()
    gallery.erase()
    assert gallery.stats()["removed_images"] == "erased"


# ------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("ending", "message"),
    [
        ("", r"must be postgresql://USER@HOST:PORT/DATABASE\?gallery=NAME"),
        ("?gallery=a.b", "where NAME has up to 48 letters"),
        (f"?gallery={'g' * 49}", "where NAME has up to 48 letters"),
        ("?gallery=g&hots=h", "is no address of a database: invalid URI query parameter"),
        ("?gallery=g&connect_timeout=soon", "is no address of a database: bad value for connect_timeout: 'soon'"),
        ("?gallery=g&port=0x5", "PostgreSQL does not answer for .*: .*0x5"),
        ("?gallery=g&password=secret", "PostgreSQL does not answer for .*: connection to server at .* refused"),
    ],
)
def test_an_address_that_cannot_be_is_refused_without_its_password(ending, message):
    with pytest.raises(ConfigError, match=message) as error:
        PostgresGallery(f"postgresql://me:secret@127.0.0.1:9/db{ending}")
    assert "secret" not in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("password", ["se/cret", "se?cret", "se#cret", "se@cret", "12/secret"])
def test_a_password_with_letters_that_end_a_part_of_an_address_is_not_printed(password):
    with pytest.raises(ConfigError, match=r"must be written as .*%2F.*PGPASSWORD") as error:
        PostgresGallery(f"postgresql://me:{password}@127.0.0.1:9/db?gallery=g")
    assert "cret" not in str(error.value)


def test_what_the_server_refuses_is_one_sentence(postgres, address):
    name = address.rpartition("=")[2]
    for changed, message in (
        (address.replace("/postgres?", "/nowhere?"), r'database "nowhere" does not exist; create it, or name another'),
        (
            address.replace("//postgres:", "//nobody:secret"),
            r'role "nobody" does not exist; create it, or name another',
        ),
        (address, f"There is no gallery postgresql://postgres@/postgres.*gallery={name}; make one with"),
    ):
        with pytest.raises(ConfigError, match=message) as error:
            PostgresGallery(changed)
        assert "secret" not in str(error.value) and "\n" not in str(error.value)
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f"CREATE TABLE {name} (x int)")
        with pytest.raises(ConfigError, match="is a table, but no gallery of this library; choose another name"):
            PostgresGallery(address, ABOUT)
        connection.execute(f"CREATE ROLE guest_{name} LOGIN")
        connection.execute(f"CREATE DATABASE of_{name}")
    other = address.replace("/postgres?", f"/of_{name}?")
    guest = other.replace("//postgres:", f"//guest_{name}:")
    with pytest.raises(
        ConfigError, match="has no pgvector, and you may not add it; let its owner run CREATE EXTENSION"
    ):
        PostgresGallery(guest, ABOUT)
    with PostgresGallery(other, ABOUT) as gallery, psycopg.connect(other.partition("&gallery")[0]) as connection:
        gallery.add(*people(3))
        connection.execute(f"GRANT SELECT ON {name}, {name}_about TO guest_{name}")
        connection.commit()
    with PostgresGallery(guest) as reader:
        assert len(reader.search(people(1)[1])[0]) == 3
        with pytest.raises(ConfigError, match=f"PostgreSQL refuses this for .*: permission denied for table {name}"):
            reader.add(*people(1, start=5))


def test_names_are_read_as_utf_8_whatever_the_encoding_of_the_database(postgres, address):
    """One that `initdb` made without a locale has SQL_ASCII, and psycopg would read bytes from it."""
    name = address.rpartition("=")[2]
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(
            f"CREATE DATABASE ascii_{name} ENCODING 'SQL_ASCII' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"
        )
    record = Record("straße/\n1.jpg", "Ä", "c\t1")
    with PostgresGallery(address.replace("/postgres?", f"/ascii_{name}?"), ABOUT) as gallery:
        gallery.add([record], people(1)[1])
        assert gallery.contained([record.path]) == {record.path}
        assert gallery.search(people(1)[1])[0][0].record == record and gallery.summary()["cameras"] == ["c\t1"]


def test_of_two_that_make_the_first_gallery_at_once_both_can_add(postgres, address, monkeypatch):
    """The second one has connected before pgvector was there."""
    name = address.rpartition("=")[2]
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE new_{name}")
    address = address.replace("/postgres?", f"/new_{name}?")
    create = PostgresGallery._create

    def create_second(gallery, about):
        monkeypatch.setattr(PostgresGallery, "_create", create)
        PostgresGallery(address, ABOUT).close()
        create(gallery, about)

    monkeypatch.setattr(PostgresGallery, "_create", create_second)
    with PostgresGallery(address, ABOUT) as gallery:
        assert gallery.add(*people(3)) == 3


def test_only_the_owner_of_a_gallery_can_erase_what_others_remove(gallery, address, postgres):
    name = address.rpartition("=")[2]
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE keeper_{name} LOGIN")
        connection.execute(f"GRANT ALL ON {name}, {name}_about TO keeper_{name}")
    with PostgresGallery(address.replace("//postgres:", f"//keeper_{name}:")) as others:
        others.remove(["7.jpg"])
        with pytest.raises(ConfigError, match=r"still in the files of .*: permission denied to vacuum .*owner"):
            others.erase()
        assert others.stats()["removed_images"] == "still in the files; run remove again"
    gallery.erase()
    assert gallery.stats()["removed_images"] == "erased"


def test_texts_that_postgresql_cannot_keep_are_refused(gallery):
    with pytest.raises(ValueError, match="cannot contain NUL"):
        gallery.add([Record("a\0b")], people(1)[1])
    assert len(gallery) == 300


def test_a_connection_that_breaks_is_made_anew(gallery, postgres):
    with gallery._database.transaction() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        number = cursor.fetchone()
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute("SELECT pg_terminate_backend(%s, 5000)", number)
    with pytest.raises(ConfigError, match=r"PostgreSQL went away from .* run the same command again"):
        len(gallery)
    assert len(gallery) == 300
    gallery.close()
    with pytest.raises(psycopg.InterfaceError, match="is closed"):
        len(gallery)


# ----------------------------------------------------------------------- killed ones

ADDING = f"""
import sys
sys.path[:0] = [{str(ROOT)!r}, {str(Path(__file__).parent)!r}]
from people import ABOUT, people
from tf_reid.gallery.postgres_gallery import PostgresGallery
gallery = PostgresGallery(sys.argv[1], ABOUT)
for part in range(int(sys.argv[2])):
    gallery.add(*people(100, seed=part, start=100 * part))
    print("added", flush=True)
"""


def adding(address, parts):
    command = [sys.executable, "-c", ADDING, address, str(parts)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def own_server():
    """A server that may be killed."""
    server = postgres_server.start(tempfile.mkdtemp(prefix="tf_reid_postgres_"))
    yield server
    server.cleanup()


def test_kill_9_of_client_and_server_during_add_loses_only_what_was_being_added(own_server):
    address = f"{own_server.get_uri()}&gallery=killed"
    with adding(address, 10_000) as client:  # it never ends by itself
        for _ in range(5):
            client.stdout.readline()
        client.send_signal(signal.SIGKILL)
    with PostgresGallery(address) as gallery:
        stored = len(gallery)
        assert stored >= 500 and stored % 100 == 0
    with adding(address, 10_000) as client:
        for _ in range(stored // 100 + 5):
            client.stdout.readline()
        postgres_server.kill(own_server)
        _, printed = client.communicate(timeout=60)
    assert "ConfigError: PostgreSQL went away from" in printed and "run the same command again" in printed
    own_server.ensure_postgres_running()
    with PostgresGallery(address) as gallery:
        assert len(gallery) >= stored + 500 and len(gallery) % 100 == 0
        parts = len(gallery) // 100 + 3
    with adding(address, parts) as client:
        client.communicate(timeout=60)
    with PostgresGallery(address) as gallery:
        assert len(gallery) == 100 * parts
        paths, embeddings = gallery.paths_and_embeddings()
        for part in range(0, parts, 3):
            records, right = people(100, seed=part, start=100 * part)
            rows = [paths.index(record.path) for record in records]
            np.testing.assert_array_equal(embeddings[rows], right)
