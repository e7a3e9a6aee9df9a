"""VIPeR on a tiny tree in the official layout."""

import cv2
import numpy as np
import pytest

import tfds_builders
from tfds_builders.viper.viper_dataset_builder import Builder

IDENTITIES = 6


@pytest.fixture
def tiny(tmp_path, monkeypatch, write_image):
    for identity in range(IDENTITIES):
        write_image(tmp_path / f"manual/VIPeR/cam_a/{identity:03d}_45.bmp")
        write_image(tmp_path / f"manual/VIPeR/cam_b/{identity:03d}_90.bmp")
    monkeypatch.setattr(Builder, "COUNTS", {"cam_a": IDENTITIES, "cam_b": IDENTITIES})
    monkeypatch.setattr(Builder, "TEST_IDENTITIES", 3)
    monkeypatch.setattr(Builder, "VALIDATION_IDENTITIES", 1)
    return tmp_path


def build(tiny):
    return tfds_builders.prepare(tfds_builders.builder("viper", data_dir=tiny / "data"), tiny / "manual")


def test_official_counts():
    assert Builder.COUNTS == {"cam_a": 632, "cam_b": 632}
    assert Builder.TEST_IDENTITIES == 316


def test_splits_follow_trial_0(tiny, read_back):
    builder = build(tiny)
    splits = read_back(builder)
    test = set(builder.info.metadata["protocols"]["random_316"]["test_identities"][0])
    assert {split: len(examples) for split, examples in splits.items()} == {
        "train": 6,
        "query": 3,
        "gallery": 3,
    }
    assert {e["identity"] for e in splits["query"].values()} == test
    assert {e["identity"] for e in splits["gallery"].values()} == test
    assert {e["identity"] for e in splits["train"].values()} == set(range(1, IDENTITIES + 1)) - test
    assert {e["camera"] for e in splits["query"].values()} == {1}
    assert {e["camera"] for e in splits["gallery"].values()} == {2}


def test_identities_count_from_one_and_bmp_becomes_png_without_loss(tiny, read_back):
    splits = read_back(build(tiny))
    examples = {file: example for split in splits.values() for file, example in split.items()}
    example = examples["cam_a/000_45.bmp"]
    assert example["identity"] == 1
    assert example["modality"] == 0
    assert example["image"].startswith(b"\x89PNG")
    stored = cv2.imdecode(np.frombuffer(example["image"], np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(stored, cv2.imread(str(tiny / "manual/VIPeR/cam_a/000_45.bmp")))


def test_protocols_survive_a_reload(tiny):
    build(tiny)
    metadata = tfds_builders.builder("viper", data_dir=tiny / "data").info.metadata
    assert metadata["default_protocol"] == "random_316"
    protocol = metadata["protocols"]["random_316"]
    assert (protocol["kind"], protocol["shots"], protocol["both_directions"]) == ("trials", 1, False)
    assert (protocol["query_cameras"], protocol["gallery_cameras"]) == ([1], [2])
    assert len(protocol["test_identities"]) == 10
    assert len({tuple(sorted(trial)) for trial in protocol["test_identities"]}) > 1
    adaptation = metadata["protocols"]["view_adaptation"]
    assert adaptation["test_identities"] == protocol["test_identities"]
    for test, validation in zip(adaptation["test_identities"], adaptation["validation_identities"], strict=True):
        assert len(validation) == 1
        assert not set(test) & set(validation)


def test_identity_of_one_camera_is_an_error(tiny):
    (tiny / "manual/VIPeR/cam_b/005_90.bmp").rename(tiny / "manual/VIPeR/cam_b/007_90.bmp")
    with pytest.raises(tfds_builders.DatasetError, match="person 005 is in only one of cam_a and cam_b"):
        build(tiny)


def test_badly_named_image_is_named(tiny):
    (tiny / "manual/VIPeR/cam_b/005_90.bmp").rename(tiny / "manual/VIPeR/cam_b/five.bmp")
    with pytest.raises(tfds_builders.DatasetError, match=r"cam_b 1 image is not named like 001_45\.bmp: five\.bmp"):
        build(tiny)
