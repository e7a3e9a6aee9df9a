"""Names of images, patterns and tables become records; wrong ones are refused with what to change."""

import os
import re

import cv2
import numpy as np
import pytest

import tfds_builders
from tf_reid.config import ConfigError
from tf_reid.data.records import load_records
from tf_reid.gallery import crops, times
from tf_reid.gallery.records import Record
from tf_reid.runs import run_folder, splits
from tfds_builders import labels
from tfds_builders.folder.folder_dataset_builder import Builder


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


PATTERN = r"(?P<person>\d+)_c(?P<camera>\d+)"


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def known(images, root):
    """-> path below the root: identity and camera."""
    found = {}
    for crop in images:
        found[os.path.relpath(crop.record.path, root)] = (crop.record.identity, crop.record.camera)
    return found


@pytest.fixture
def tree(tmp_path):
    """A folder below one whose own name fits the pattern, with everything that is left out or read in its own way."""
    root = tmp_path / "9_c9"
    touch(root, "0001_c1.jpg", "day/001_c02.JPG", "0002_c1.jpg/img.jpg", "-1_c1.jpg", "0000_c3.jpg", "cover.jpg")
    touch(root, ".ipynb_checkpoints/0003_c1.jpg", "._0003_c1.jpg", "Thumbs.db", "__MACOSX/0003_c1.jpg", "0003_c1.txt")
    touch(tmp_path / "elsewhere", "0004_c10241126104501000000001.gif")
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "up").symlink_to(tmp_path)
    os.mkfifo(root / "0005_c1.jpg")
    return root


def test_search_and_training_see_the_same_images_with_the_same_labels(tree):
    sentences = []
    found = known(crops.crops_in([str(tree)], PATTERN, None, report=sentences.append), tree)
    linked = "../elsewhere/0004_c10241126104501000000001.gif"
    assert found == {
        "0001_c1.jpg": ("1", "1"),
        "day/001_c02.JPG": ("1", "2"),
        "0002_c1.jpg/img.jpg": ("2", "1"),
        "0000_c3.jpg": (None, "3"),
        linked: ("4", "10241126104501000000001"),
    }
    for part in (
        "up is a link",
        "0005_c1.jpg is no file but a pipe",
        "in .* 1 file is left out",
        "1 of 7 images do not match",
    ):
        assert any(re.search(part, sentence) for sentence in sentences)
    with pytest.warns(UserWarning) as caught:
        rows = Builder.config_for("images", None, root=tree, pattern=PATTERN).rows
    trained = {}
    for row in rows:
        identity = None if row.identity == "0" else row.identity
        trained[os.path.relpath(row.path.resolve(), tree)] = (identity, row.camera)
    assert trained == found
    assert {str(warning.message).removeprefix("folder: ") for warning in caught} == set(sentences)


def test_search_and_training_read_one_table_alike(tmp_path):
    touch(tmp_path, "a.jpg", "b.jpg", "c.jpg", "d.jpg")
    table = tmp_path / "labels.csv"
    table.write_text("\ufeffPath;Person;Camera;Split\n a.jpg ;1.0;01;\nb.jpg;-1.0;1;\nc.jpg;0.0;2;\nd.jpg;anna;2;\n")
    sentences = []
    found = known(crops.crops_of_table(table, report=sentences.append), tmp_path)
    assert found == {"a.jpg": ("1", "1"), "c.jpg": (None, "2"), "d.jpg": ("anna", "2")}
    assert [sentence.split(":")[0] for sentence in sentences] == [
        "1 image is of identity -1",
        "1 image is of identity 0",
    ]
    with pytest.warns(UserWarning, match="a distractor"):
        rows = Builder.config_for("images", None, csv=table).rows
    assert [(row.file, row.identity, row.camera) for row in rows] == [
        ("a.jpg", "1", "1"),
        ("c.jpg", "0", "2"),
        ("d.jpg", "anna", "2"),
    ]
    marks = labels.meaning("none", "anna")
    assert known(crops.crops_of_table(table, marks), tmp_path)["c.jpg"] == ("0", "2")
    assert "d.jpg" not in known(crops.crops_of_table(table, marks), tmp_path)


def test_of_a_file_named_alone_the_name_is_searched(tree):
    path = tree / "0001_c1.jpg"
    assert known(crops.crops_in([str(path)], PATTERN, None), tree) == {"0001_c1.jpg": ("1", "1")}
    with pytest.raises(ConfigError, match=r"matches no image in .*cover\.jpg; one is cover\.jpg"):
        crops.crops_in([str(tree / "cover.jpg")], PATTERN, None)


def test_an_image_is_taken_once_as_the_name_describes_it_that_says_something(folder):
    alone, whole = str(folder / "01_c1.png"), str(folder)
    plain = crops.crops_in([alone, whole, alone], None, None)
    assert [os.path.basename(crop.record.path) for crop in plain] == ["01_c1.png", "00_c0.png"]
    described = crops.crops_in([whole], PATTERN, None)
    assert [crop.record.identity for crop in crops.once(plain + described)] == ["1", None]
    other = crops.Crop(described[1].record._replace(identity="2"), described[1].read)
    with pytest.raises(
        ConfigError, match=r"01_c1\.png is named twice, as identity 1, camera 1 and as identity 2, camera 1"
    ):
        crops.once([*described, other])


def test_a_folder_stands_for_its_images_and_for_those_behind_its_links(tmp_path):
    touch(tmp_path, "crops/1.png", "elsewhere/2.png", "elsewhere/deep/3.png", "4.png", "other/5.png")
    (tmp_path / "crops/linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "crops/4.png").symlink_to(tmp_path / "4.png")
    (tmp_path / "link").symlink_to(tmp_path / "crops")
    built = [crop.record.path for crop in crops.crops_in([str(tmp_path / "crops")], None, None)]
    kept = crops.kept_paths(["run:gallery", str(tmp_path / "link"), str(tmp_path / "gone.png")])
    behind = [str(tmp_path / name) for name in ("4.png", "elsewhere/2.png", "elsewhere/deep/3.png")]
    assert kept == ["run:gallery", str(tmp_path / "crops"), *behind, str(tmp_path / "gone.png")]
    assert sorted(built) == sorted([str(tmp_path / "crops/1.png"), *behind])


def test_an_empty_name_is_not_the_folder_of_the_command():
    for take in (crops.kept_paths, lambda names: crops.crops_in(names, None, None)):
        with pytest.raises(ConfigError, match="An empty name stands for no image"):
            take(["1.jpg", ""])


def test_names_that_no_gallery_can_keep_are_left_out_with_a_sentence(tmp_path):
    (tmp_path / os.fsdecode(b"1_c1_\xff.jpg")).touch()
    touch(tmp_path, "1_c2_\u5f20\n.jpg")
    sentences = []
    (crop,) = crops.crops_in([str(tmp_path)], PATTERN, None, report=sentences.append)
    assert crop.record.path.endswith("\u5f20\n.jpg") and len(sentences) == 1
    assert sentences[0].startswith("1 of 2 images have a path that is not UTF-8 and are left out, such as ")
    assert sentences[0].endswith(r"1_c1_\xff.jpg; rename them")


def test_of_a_file_that_vanished_the_encoder_gets_the_path(folder):
    images = crops.crops_in([str(folder)], None, None)
    content = (folder / "00_c0.png").read_bytes()
    (folder / "01_c1.png").unlink()
    assert crops.contents(images) == [content, (folder / "01_c1.png").resolve()]


def test_images_of_a_run_have_the_labels_of_the_users_own_folder(tmp_path, monkeypatch):
    image = cv2.imencode(".png", np.zeros((8, 4, 3), np.uint8))[1].tobytes()
    files = ["0007_cdoor", "0007_cyard", "0030_cdoor", "0030_cyard", "0000_cyard"]
    (tmp_path / "images").mkdir()
    for file in files:
        (tmp_path / "images" / f"{file}.png").write_bytes(image)
    spec = {"name": "folder", "root": tmp_path / "images", "pattern": r"(?P<person>\d+)_c(?P<camera>\w+)"}
    with pytest.warns(UserWarning, match="a distractor"):
        records = load_records(tfds_builders.prepare(tfds_builders.builder(spec, data_dir=tmp_path / "data")))
    monkeypatch.setattr(crops, "is_run", lambda run: True)
    monkeypatch.setattr(run_folder, "load_run", lambda run: None)
    monkeypatch.setattr(splits, "load_data", lambda config: {"source": records})
    monkeypatch.setattr(splits, "scored_domain", lambda config: "source")
    names = [f"run:{file}.png" for file in files]
    found = [crop.record[1:3] for crop in crops.crops_in(names, None, tmp_path / "run")]
    assert found == [("7", "door"), ("7", "yard"), ("30", "door"), ("30", "yard"), (None, "yard")]
