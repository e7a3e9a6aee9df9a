"""Tables with URLs, at URLs and in Parquet."""

import datetime

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tf_reid.config import ConfigError
from tf_reid.gallery import crops
from tf_reid.gallery.records import Record
from tfds_builders import labels

TEXT = "path,person,camera,time\na/1.jpg,07,c1,2026-11-22T14:05\nmemory://other/2.jpg,0,,\nb/3.jpg,-1,c2,\n"
SECONDS = datetime.datetime(2026, 11, 22, 14, 5, tzinfo=datetime.timezone.utc).timestamp()


def records(named):
    return [crop.record for crop in named]


def test_a_csv_file_names_urls_and_its_own_folder(tmp_path):
    (tmp_path / "labels.csv").write_text(TEXT)
    expected = [Record(f"{tmp_path}/a/1.jpg", "7", "c1", SECONDS), Record("memory://other/2.jpg")]
    assert records(crops.crops_of_table(tmp_path / "labels.csv")) == expected


def test_a_csv_file_at_a_url_is_relative_to_its_folder():
    fsspec.filesystem("memory").pipe("/bucket/labels.csv", TEXT.encode())
    expected = [Record("memory://bucket/a/1.jpg", "7", "c1", SECONDS), Record("memory://other/2.jpg")]
    assert records(crops.crops_of_table("memory://bucket/labels.csv")) == expected
    with pytest.raises(FileNotFoundError, match=r"There is no memory://bucket/none.csv"):
        crops.crops_of_table("memory://bucket/none.csv")
    fsspec.filesystem("memory").pipe_file("/bucket/labels.csv", b"file,person\n1.jpg,7\n")
    with pytest.raises(ConfigError, match=r"^the table memory://bucket/labels.csv has no column path"):
        crops.crops_of_table("memory://bucket/labels.csv")


@pytest.mark.parametrize("place", ["folder", "file", "url"])
def test_parquet_has_types_of_its_own(tmp_path, place):
    """Numbers and timestamps are read as people write them; identity is another name of person."""
    folder = tmp_path / "table"
    folder.mkdir()
    times = [datetime.datetime(2026, 11, 22, 14, 5), None]
    columns = {"path": ["1.jpg", "memory://other/2.jpg"], "identity": [7, None], "camera": [None, 2], "time": times}
    pq.write_table(pa.table(columns), folder / "part.parquet")
    table = {"folder": folder, "file": folder / "part.parquet", "url": f"file://{folder}"}[place]
    first = f"file://{folder}/1.jpg" if place == "url" else f"{folder}/1.jpg"
    expected = [Record(first, "7", None, SECONDS), Record("memory://other/2.jpg", None, "2")]
    assert records(crops.crops_of_table(table, labels.STANDARD, is_parquet=True)) == expected


def test_a_table_that_cannot_be_is_refused(tmp_path):
    pq.write_table(pa.table({"file": ["1.jpg"]}), tmp_path / "no_path.parquet")
    with pytest.raises(ConfigError, match=r"no_path.parquet has no column path"):
        crops.crops_of_table(tmp_path / "no_path.parquet", is_parquet=True)
    (tmp_path / "text.parquet").write_text("text")
    with pytest.raises(ConfigError, match=r"text.parquet cannot be read"):
        crops.crops_of_table(tmp_path / "text.parquet", is_parquet=True)
    with pytest.raises(FileNotFoundError, match=r"There is no .*none"):
        crops.crops_of_table(tmp_path / "none", is_parquet=True)
