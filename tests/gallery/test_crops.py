"""Names of images, patterns and tables become records; wrong ones are refused with what to change."""

import cv2
import numpy as np
import pytest

from tf_reid.config import ConfigError
from tf_reid.gallery import crops, times
from tf_reid.gallery.records import Record


@pytest.fixture
def folder(tmp_path):
    """Two images whose names hold an identity and a camera."""
    (tmp_path / "crops").mkdir()
    for number in range(2):
        cv2.imwrite(str(tmp_path / "crops" / f"{number:02d}_c{number}.png"), np.zeros((8, 4, 3), np.uint8))
    return tmp_path / "crops"


def test_a_pattern_reads_what_names_hold(folder):
    images = crops.crops_in([str(folder)], r"(?P<person>\d+)_c(?P<camera>\d)", None)
    paths = [str((folder / name).resolve()) for name in ("00_c0.png", "01_c1.png")]
    assert [crop.record for crop in images] == [Record(paths[0], None, "0"), Record(paths[1], "1", "1")]
    assert images[1].read() == (folder / "01_c1.png").read_bytes()
    assert crops.reader(None)(paths[0]) == images[0].read() and crops.reader(None)(str(folder / "gone.png")) is None


def test_a_table_describes_images_beyond_their_names(tmp_path, folder):
    (tmp_path / "table.csv").write_text(
        "path,person,camera,time\ncrops/00_c0.png,anna,door,2026-11-22T10:00+01:00\ncrops/01_c1.png,,,\n"
    )
    first, second = (crop.record for crop in crops.crops_of_table(tmp_path / "table.csv"))
    assert first[1:] == ("anna", "door", times.parse("2026-11-22T09:00")) and second[1:] == (None, None, None)
    (tmp_path / "bad.csv").write_text("path,time\ncrops/01_c1.png,soon\n")
    with pytest.raises(ConfigError, match=r"row 2 of .*bad\.csv: 'soon' is not a time"):
        crops.crops_of_table(tmp_path / "bad.csv")
    (tmp_path / "bad.csv").write_text("file\na.png\n")
    with pytest.raises(ConfigError, match="has no column path"):
        crops.crops_of_table(tmp_path / "bad.csv")


@pytest.mark.parametrize(
    ("name", "pattern", "message"),
    [
        ("crops", "(", "is no regular expression"),
        ("crops", r"nothing(?P<person>\d)", r"matches no image in .*crops; one is 00_c0\.png"),
        ("run:gallery", None, "run:gallery needs a run: name it with --run, or search a gallery built with --run"),
    ],
)
def test_names_that_lead_to_no_image_are_refused(tmp_path, folder, name, pattern, message):
    names = [name if name.startswith("run:") else str(tmp_path / name)]
    with pytest.raises(ConfigError, match=message):
        crops.crops_in(names, pattern, None)
    with pytest.raises(FileNotFoundError, match=r"There is no .*nowhere"):
        crops.crops_in([str(tmp_path / "nowhere")], None, None)
