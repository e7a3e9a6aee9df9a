"""What all builders share, tried on a tiny VIPeR: finding files, checks, pairs, triplets, a clean end."""

import os
import shutil
import subprocess
import sys
import types
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

import tfds_builders
from tfds_builders import DatasetError, base
from tfds_builders.viper.viper_dataset_builder import Builder

IDENTITIES = 8


@pytest.fixture
def viper(tmp_path, monkeypatch, write_image):
    """The unpacked folder, in tmp_path/manual."""
    root = tmp_path / "manual/VIPeR"
    for identity in range(IDENTITIES):
        write_image(root / f"cam_a/{identity:03d}_45.bmp")
        write_image(root / f"cam_b/{identity:03d}_90.bmp")
    monkeypatch.setattr(Builder, "COUNTS", {"cam_a": IDENTITIES, "cam_b": IDENTITIES})
    monkeypatch.setattr(Builder, "TEST_IDENTITIES", 4)
    monkeypatch.setattr(Builder, "VALIDATION_IDENTITIES", 2)
    return root


def build(tmp_path, manual_dir=None, kind="images"):
    builder = tfds_builders.builder("viper", kind=kind, data_dir=tmp_path / "data")
    return tfds_builders.prepare(builder, manual_dir or tmp_path / "manual")


def zip_folder(folder, archive, inside):
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(folder.rglob("*.bmp")):
            file.write(path, f"{inside}{path.relative_to(folder)}")


@pytest.mark.parametrize("name, inside", [("VIPeR.v1.0.zip", "VIPeR/"), ("VIPeR.zip", "")])
def test_archive_reads_like_its_folder(tmp_path, viper, read_back, name, inside):
    unpacked = read_back(build(tmp_path))
    (tmp_path / "zipped").mkdir()
    zip_folder(viper, tmp_path / "zipped" / name, inside)
    shutil.rmtree(tmp_path / "data")
    assert read_back(build(tmp_path, tmp_path / "zipped")) == unpacked
    assert len(unpacked["train"]) == 8


def test_folder_itself_may_be_given(tmp_path, viper):
    assert build(tmp_path, viper).info.splits["query"].num_examples == 4


def test_built_data_set_needs_no_files_any_more(tmp_path, viper, read_back):
    build(tmp_path)
    shutil.rmtree(viper)
    assert len(read_back(build(tmp_path, tmp_path / "nowhere"))["train"]) == 8


@pytest.mark.parametrize(
    "where, message",
    [
        (
            "nowhere",
            r"nowhere does not exist or is empty: put VIPeR\.v1\.0\.zip or its unpacked folder VIPeR/",
        ),
        (
            "elsewhere",
            r"found neither VIPeR/ nor VIPeR\.v1\.0\.zip nor VIPeR\.zip in .*elsewhere: .* research",
        ),
        ("manual/VIPeR/cam_a", r"cam_a is one part of the data set; give the folder that holds VIPeR/"),
        ("half", r"half has no cam_b; give a complete copy"),
        ("broken", r"VIPeR\.zip is not a whole zip archive"),
        ("elsewhere/notes.txt", r"notes\.txt is a file: give its folder"),
    ],
)
def test_missing_files_are_explained_in_one_sentence(tmp_path, viper, where, message):
    for folder in ("elsewhere", "half/cam_a", "broken"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "elsewhere/notes.txt").write_text("nothing here")
    (tmp_path / "broken/VIPeR.zip").write_bytes(b"PK cut off")
    with pytest.raises(DatasetError, match=message) as error:
        build(tmp_path, tmp_path / where)
    assert str(error.value).startswith("viper: ")
    assert "\n" not in str(error.value)


def test_wrong_count_names_part_expected_and_found(tmp_path, viper):
    (viper / "cam_a/000_45.bmp").unlink()
    with pytest.raises(DatasetError, match="viper: expected 8 images in cam_a, found 7"):
        build(tmp_path)


def test_more_images_than_there_are_and_names_that_only_begin_right_are_reported(tmp_path, viper):
    surplus = viper / "cam_a/000_46.bmp"
    shutil.copy(viper / "cam_a/000_45.bmp", surplus)
    with pytest.raises(DatasetError, match="viper: expected 8 images in cam_a, found 9"):
        build(tmp_path)
    surplus.rename(viper / "cam_a/000_46.copy.bmp")
    with pytest.raises(DatasetError, match=r"1 image is not named like 001_45\.bmp: 000_46\.copy\.bmp"):
        build(tmp_path)


def too_wide(data):
    return data[:18] + b"\xff\xff\xff\x7f" + data[22:]


@pytest.mark.parametrize(
    "damage, reason",
    [
        (lambda data: data[: len(data) // 2], "is damaged: "),
        (lambda data: b"", "is empty"),
        (lambda data: b"<html>", "is not a JPEG, PNG, BMP, WebP, TIFF or GIF image"),
        (too_wide, "has 2147483647 x 16 pixels; 25000000 are allowed: replace it with a sound copy within this limit$"),
    ],
)
def test_damaged_image_is_named_and_leaves_nothing_half_built(tmp_path, viper, damage, reason):
    image = viper / "cam_b/007_90.bmp"
    sound = image.read_bytes()
    image.write_bytes(damage(sound))
    with pytest.raises(DatasetError, match=rf"the image .*007_90\.bmp (?=.*: replace it with a sound copy){reason}"):
        build(tmp_path)
    assert not [path for path in (tmp_path / "data").rglob("*") if "tfrecord" in path.name]
    assert not tfds_builders.builder("viper", data_dir=tmp_path / "data").data_path.exists()
    image.write_bytes(sound)
    assert build(tmp_path).info.splits.total_num_examples == 16


def test_a_pipe_and_a_file_beyond_the_limit_are_named_and_not_read(tmp_path, viper):
    image = viper / "cam_b/007_90.bmp"
    one = tfds_builders.builder("viper", data_dir=tmp_path / "data")
    record = base.Record(1, 1, image.name, image)
    with image.open("r+b") as file:
        file.truncate(2**30)  # takes no room on the disk
    with pytest.raises(DatasetError, match=r"007_90\.bmp has 1073741824 bytes; 268435456 are allowed: .* this limit$"):
        one.encoded(record)
    image.unlink()
    os.mkfifo(image)  # opening it would wait for ever
    with pytest.raises(DatasetError, match=r"007_90\.bmp is not a file: replace it with a sound copy$"):
        one.encoded(record)


def test_damaged_byte_in_a_zip_is_told_as_the_image(tmp_path, viper):
    archive = tmp_path / "manual" / "VIPeR.v1.0.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in sorted(viper.rglob("*.bmp")):
            packed.write(path, path.relative_to(viper.parent))
        last = packed.infolist()[-1]
    data = bytearray(archive.read_bytes())
    start = last.header_offset + 30 + len(last.filename)
    data[start : start + 20] = b"\xff" * 20
    archive.write_bytes(data)
    shutil.rmtree(viper)
    with pytest.raises(DatasetError, match=rf"the image .*{Path(last.filename).name} is damaged"):
        build(tmp_path)


def test_a_data_set_that_another_process_built_meanwhile_is_read(tmp_path, viper):
    slow, fast = (tfds_builders.builder("viper", data_dir=tmp_path / "data") for _ in range(2))
    real = type(slow).read

    def read(self, folder):
        tfds_builders.prepare(fast, tmp_path / "manual")
        return real(self, folder)

    slow.read = types.MethodType(read, slow)
    found = tfds_builders.prepare(slow, tmp_path / "manual")
    assert found.info.splits.total_num_examples == 16
    assert len(list(found.as_dataset(split="train"))) == found.info.splits["train"].num_examples


def test_interrupted_build_leaves_nothing_half_built(tmp_path, viper, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(base, "_example", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path)
    assert not [path for path in (tmp_path / "data").rglob("*") if "1.0.0" in path.name]


def test_decoded_image_is_rgb(tmp_path, viper):
    example = next(iter(build(tmp_path).as_dataset(split="query").as_numpy_iterator()))
    bgr = cv2.imread(str(viper / example["file"].decode()))
    np.testing.assert_array_equal(example["image"], bgr[..., ::-1])


def test_a_split_has_so_many_pairs_at_most(tmp_path, viper, monkeypatch):
    monkeypatch.setattr(base, "LIMIT", 6)
    splits = build(tmp_path, kind="pairs").info.splits
    assert {split: info.num_examples for split, info in splits.items()} == {"train": 6, "test": 6}


def test_pairs(tmp_path, viper):
    builder = build(tmp_path, kind="pairs")
    test = set(builder.info.metadata["protocols"]["random_316"]["test_identities"][0])
    splits = {split: list(data.as_numpy_iterator()) for split, data in builder.as_dataset().items()}
    assert set(splits) == {"train", "test"}
    for split, examples in splits.items():
        assert len(examples) == 16
        assert sum(example["same"] for example in examples) == 8
        for example in examples:
            assert (example["identity_a"] == example["identity_b"]) == bool(example["same"])
            assert {example["camera_a"], example["camera_b"]} == {1, 2}
            assert (example["identity_a"] in test) == (example["identity_b"] in test) == (split == "test")
            bgr = cv2.imread(str(viper / example["file_b"].decode()))
            np.testing.assert_array_equal(example["image_b"], bgr[..., ::-1])


def test_triplets(tmp_path, viper):
    examples = list(build(tmp_path, kind="triplets").as_dataset(split="test").as_numpy_iterator())
    assert len(examples) == 8
    for example in examples:
        assert example["identity_anchor"] == example["identity_positive"] != example["identity_negative"]
        assert example["camera_anchor"] != example["camera_positive"] == example["camera_negative"]
        assert example["image_anchor"].shape == (16, 8, 3)


@pytest.mark.parametrize(
    "spec, kind, message",
    [
        (
            "vipr",
            "images",
            "'vipr' is not known .did you mean viper..: choose one of synthetic_pedestrians, ",
        ),
        ("viper", "quadruplets", "'quadruplets' is not known: choose one of images, pairs, triplets"),
        ("viper/street", "images", "viper: it has no variants"),
        ({"name": "viper", "root": "x"}, "images", "viper: it has no option root"),
        ({"root": "x"}, "images", "the data set with root has no name: write name: folder"),
        ({"name": "folder", "rot": "x"}, "images", "it has no option rot .did you mean root.."),
    ],
)
def test_unknown_names_are_explained(tmp_path, spec, kind, message):
    with pytest.raises(ValueError, match=message):
        tfds_builders.builder(spec, kind=kind, data_dir=tmp_path)


def test_import_is_cheap():
    code = "import sys, tfds_builders; print([m for m in ('tensorflow_datasets', 'cv2') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_one_number_is_one_identity_in_all_data_sets_of_a_population(tmp_path):
    def population(spec):
        return tfds_builders.builder(spec, data_dir=tmp_path).population

    assert population("cuhk03/detected") == population("cuhk03/labeled") == "cuhk03"
    assert population("market1501") == population("market1501/multi_query") != population("msmt17/v1")
    city, rail = (population(f"synthetic_pedestrians/{place}") for place in ("street", "station"))
    assert city == population("synthetic_pedestrians/night") == population("synthetic_pedestrians/street_night") != rail
    folders = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1_c1.jpg").touch()
        pattern = r"(?P<person>\d)_c(?P<camera>\d)"
        folders.append(population({"name": "folder", "root": tmp_path / name, "pattern": pattern}))
    assert folders[0] != folders[1]


@pytest.mark.parametrize("name", tfds_builders.DATASETS)
def test_every_data_set_is_documented(name):
    cls = tfds_builders.builder_class(name)
    description = cls.get_metadata().description
    assert cls.name == name
    for heading in ("**Terms of use.**", "**Protocol"):
        assert heading in description
    if cls.ARCHIVE:
        assert cls.ARCHIVE.files[0] in description
        assert cls.get_metadata().citation
