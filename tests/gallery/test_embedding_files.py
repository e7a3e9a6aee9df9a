"""Parquet files of embeddings: what they hold, resumption, damage, other models, URLs."""

import json
import os
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
from people import ABOUT, WIDTH, people

from tf_reid.config import ConfigError
from tf_reid.gallery import adding, embedding_files
from tf_reid.gallery.embedding_files import EmbeddingFiles
from tf_reid.gallery.faiss_gallery import FaissGallery
from tf_reid.gallery.records import Record


@pytest.fixture(autouse=True)
def small_files(monkeypatch):
    monkeypatch.setattr(embedding_files, "IN_A_FILE", 8)


def write(folder, records, embeddings):
    with EmbeddingFiles(str(folder), ABOUT) as files:
        assert files.add(records, embeddings) == len(records)


@pytest.mark.parametrize("url", ["", "file://", "memory://"])
def test_a_gallery_of_files_holds_what_was_added(tmp_path, url):
    records, embeddings = people(20)
    records[3] = Record("only a path.jpg")
    folder = f"{url}{tmp_path}/embeddings"
    write(folder, records, embeddings)
    files = EmbeddingFiles(folder)
    assert len(files) == 20 and files.contained(["3.jpg", "4.jpg", "only a path.jpg"]) == {"4.jpg", "only a path.jpg"}
    with FaissGallery(tmp_path / "gallery", files.about) as gallery:
        assert adding.add_files(gallery, files) == (20, 0, {})
        assert adding.add_files(gallery, files) == (0, 20, {})  # a second time nothing is added
        paths, kept = gallery.paths_and_embeddings()
    rows = {record.path: row for row, record in enumerate(records)}
    np.testing.assert_array_equal(kept, embeddings[[rows[path] for path in paths]])
    with FaissGallery(tmp_path / "gallery") as gallery:
        assert {match.record for match in gallery.search(embeddings[:1], top=20)[0]} == set(records)


def test_files_are_plain_parquet(tmp_path):
    records, embeddings = people(9)
    write(tmp_path, records, embeddings)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert len(names) == 2 and all(name.startswith("embeddings_") and name.endswith(".parquet") for name in names)
    table = pq.read_table(tmp_path).to_pylist()
    row = next(row for row in table if row["path"] == "4.jpg")
    assert row == {**records[4]._asdict(), "embedding": embeddings[4].tolist(), "model_digest": "d1"}


def test_what_is_written_last_is_written_also_where_an_error_ends_it(tmp_path):
    records, embeddings = people(3)
    with pytest.raises(KeyboardInterrupt), EmbeddingFiles(str(tmp_path), ABOUT) as files:
        files.add(records, embeddings)
        raise KeyboardInterrupt
    assert EmbeddingFiles(str(tmp_path)).contained([record.path for record in records]) == {"0.jpg", "1.jpg", "2.jpg"}


def test_files_of_another_model_or_damaged_ones_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="There are no embeddings in"):
        EmbeddingFiles(str(tmp_path))
    write(tmp_path, *people(8))
    with pytest.raises(ConfigError, match=r"embeddings_.*\.parquet was built by model d1 .* and this is d2"):
        EmbeddingFiles(str(tmp_path), {**ABOUT, "digest": "d2"})
    (file,) = tmp_path.iterdir()
    content = bytearray(file.read_bytes())
    (tmp_path / "embeddings_cut.parquet").write_bytes(content[:-9])
    with pytest.raises(ConfigError, match=r"embeddings_cut.parquet is damaged or cannot be read: .*Remove it"):
        EmbeddingFiles(str(tmp_path))
    (tmp_path / "embeddings_cut.parquet").unlink()
    place = content.index(people(8)[1][0].tobytes())
    content[place] ^= 1  # a bit of an embedding
    file.write_bytes(content)
    with pytest.raises(ConfigError, match="is damaged or cannot be read"):
        list(EmbeddingFiles(str(tmp_path)).rows())


def test_a_file_of_a_newer_version_or_of_another_program_is_refused(tmp_path):
    write(tmp_path, *people(8))
    (file,) = tmp_path.iterdir()
    table = pq.read_table(file)
    for about, message in (
        ({**ABOUT, "format": 3}, r"embeddings_other\.parquet has gallery format 3, .*by a newer version of tf_reid"),
        ({"format": 2}, r"embeddings_other\.parquet is damaged"),
    ):
        other = table.replace_schema_metadata({"tf_reid": json.dumps(about)})
        pq.write_table(other, tmp_path / "embeddings_other.parquet")
        for opened_with in (ABOUT, None):
            with pytest.raises(ConfigError, match=message):
                EmbeddingFiles(str(tmp_path), opened_with)


def test_a_folder_that_cannot_be_written_is_refused_before_images_are_embedded(tmp_path, monkeypatch):
    with monkeypatch.context() as patched, pytest.raises(ModuleNotFoundError, match=r"pyarrow\.parquet"):
        patched.setitem(sys.modules, "pyarrow.parquet", None)
        EmbeddingFiles(f"{tmp_path}/new", ABOUT)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"The folder .*file/below cannot be written: Not a directory"):
        EmbeddingFiles(f"{tmp_path}/file/below", ABOUT)
    monkeypatch.setattr("os.access", lambda _path, mode: not mode & os.W_OK)
    with pytest.raises(ConfigError, match=r"The folder .*/closed cannot be written: Permission denied"):
        EmbeddingFiles(f"{tmp_path}/closed", ABOUT)


def test_an_image_of_two_files_is_added_once(tmp_path):
    records, embeddings = people(4)
    write(tmp_path / "files", records, embeddings)
    other = EmbeddingFiles(str(tmp_path / "files"), ABOUT)
    other.add(records, -embeddings)
    other.close()
    files = EmbeddingFiles(str(tmp_path / "files"))
    with FaissGallery(tmp_path / "gallery", files.about) as gallery:
        assert adding.add_files(gallery, files) == (4, 4, {}) and len(gallery) == 4
        assert gallery.about["width"] == WIDTH


def test_of_an_image_that_is_in_a_file_twice_the_first_row_is_added(tmp_path):
    records, embeddings = people(3)
    write(tmp_path / "files", [*records, records[1]], [*embeddings, -embeddings[1]])
    files = EmbeddingFiles(str(tmp_path / "files"))
    with FaissGallery(tmp_path / "gallery", files.about) as gallery:
        assert adding.add_files(gallery, files) == (3, 1, {})
        np.testing.assert_array_equal(gallery.read([record.path for record in records])[1], embeddings)
