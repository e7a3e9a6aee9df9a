"""A folder and a zip archive of it hold the same images, and neither gives copies that other programs left."""

import os
import zipfile

import pytest

from tfds_builders import sources

NAMES = ["cam1/0001/1.jpg", "cam1/0001/2.JPG", "cam1/0002.jpg/1.png", "top.bmp"]
COPIES = [
    "__MACOSX/cam1/0001/1.jpg",
    "cam1/0001/._1.jpg",
    "cam1/.ipynb_checkpoints/1.jpg",
    "cam1/0001/Thumbs.db",
    "a.txt",
]


@pytest.fixture(params=["folder", "zip"])
def place(request, tmp_path):
    if request.param == "zip":
        with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
            for name in NAMES + COPIES:
                archive.writestr(name, b"")
        return zipfile.Path(tmp_path / "images.zip")
    for name in NAMES + COPIES:
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / name).touch()
    os.mkfifo(tmp_path / "images/cam1/0001/pipe.jpg")
    return tmp_path / "images"


def test_a_folder_and_its_archive_hold_the_same_images(place):
    found = {folder: [path.name for path in paths] for folder, paths in sources.images_below(place).items()}
    assert found == {"": ["top.bmp"], "cam1/0001": ["1.jpg", "2.JPG"], "cam1/0002.jpg": ["1.png"]}
    assert [path.name for path in sources.images_in(place)] == ["top.bmp"]
    assert [path.name for path in sources.images_in(place / "cam1/0001")] == ["1.jpg", "2.JPG"]
    assert sources.images_in(place / "cam1") == []
