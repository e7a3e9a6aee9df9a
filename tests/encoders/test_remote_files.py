"""Images and files by their URL, in a store that lives in memory and in a folder."""

import cv2
import fsspec
import numpy as np
import pytest

from tf_reid.config import ConfigError
from tf_reid.encoders import remote_files
from tf_reid.encoders.image_reader import ImageReader

PIXELS = np.random.default_rng(0).integers(256, size=(8, 4, 3), dtype=np.uint8)
PNG = cv2.imencode(".png", PIXELS[..., ::-1])[1].tobytes()


@pytest.fixture
def bucket():
    store = fsspec.filesystem("memory")
    store.store.clear()
    for name in ("a/2.png", "a/1.PNG", "b.jpg", ".hidden/3.png", "a/._4.png", "notes.txt"):
        store.pipe(f"/bucket/{name}", PNG)
    return "memory://bucket"


def test_a_url_is_no_path():
    assert remote_files.is_url("s3://bucket/1.jpg") and remote_files.is_url("gs://bucket")
    assert not any(map(remote_files.is_url, ("crops/1.jpg", "C://crops", "run:gallery", "/a://b", b"s3://x")))


def test_images_below_a_url_are_those_that_a_folder_would_give(bucket):
    assert dict(remote_files.images_at(f"{bucket}/")) == {
        "a/1.PNG": "memory://bucket/a/1.PNG",
        "a/2.png": "memory://bucket/a/2.png",
        "b.jpg": "memory://bucket/b.jpg",
    }
    assert list(remote_files.images_at(f"{bucket}/notes.txt")) == [("notes.txt", "memory://bucket/notes.txt")]
    with pytest.raises(FileNotFoundError, match="There is no image in memory://bucket/none"):
        list(remote_files.images_at(f"{bucket}/none"))


def test_an_encoder_reads_a_url_as_a_file(bucket, monkeypatch):
    monkeypatch.setattr(remote_files, "MOST_FILE_BYTES", len(PNG))
    fsspec.filesystem("memory").pipe("/bucket/large.png", PNG + b"1")
    names = ("b.jpg", "none.jpg", "large.png")
    image, absent, large = ImageReader((8, 4)).read(enumerate(f"{bucket}/{name}" for name in names))
    np.testing.assert_array_equal(image, PIXELS)
    assert absent.reason.startswith("cannot be read: ") and absent.index == 1
    assert absent.path == f"{bucket}/none.jpg" and f"({bucket}/none.jpg)" in str(absent)
    assert large.reason == f"has more than {len(PNG)} bytes, which are allowed"


@pytest.mark.parametrize("place", ["memory://written", "file://{folder}/written"])
def test_what_is_written_is_whole(tmp_path, place):
    place = place.format(folder=tmp_path)
    remote_files.write(f"{place}/a/file", b"content")
    assert remote_files.read(f"{place}/a/file") == b"content"
    assert remote_files.files_below(place) == [f"{place}/a/file"]


def test_a_file_that_cannot_be_written_is_refused_and_nothing_is_left(tmp_path):
    (tmp_path / "file").mkdir()
    with pytest.raises(ConfigError, match=r"file://.*/file cannot be read or written: .*directory"):
        remote_files.write(f"file://{tmp_path}/file", b"content")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_url_with_a_password_is_refused_without_it():
    """A gallery would keep it."""
    url = "sftp://me:secret@127.0.0.1:9/crops"
    for use in (remote_files.read, remote_files.read_image, remote_files.files_below):
        with pytest.raises(ConfigError, match=r"A URL must not hold a password: .*fsspec") as error:
            use(f"{url}/1.jpg")
        assert "secret" not in str(error.value)
    assert remote_files.system_of("memory://bucket/a:b@c.jpg")[1] == "/bucket/a:b@c.jpg"


def test_a_store_whose_package_is_missing_says_which():
    with pytest.raises(ConfigError, match=r"nothing://x.*nothing"):
        remote_files.read("nothing://x")
