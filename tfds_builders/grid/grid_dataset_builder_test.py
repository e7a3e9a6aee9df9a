"""GRID on a tiny tree in the official layout."""

import numpy as np
import pytest
import scipy.io

import tfds_builders
from tfds_builders.grid.grid_dataset_builder import Builder

IDENTITIES, DISTRACTORS = 4, 3


@pytest.fixture
def tiny(tmp_path, monkeypatch, write_image):
    root = tmp_path / "manual/underground_reid"
    for identity in range(1, IDENTITIES + 1):
        write_image(root / f"probe/{identity:04d}_6_25004_107_32_106_221.jpeg")
        write_image(root / f"gallery/{identity:04d}_5_25023_116_134_128_330.jpeg")
    for other in range(DISTRACTORS):
        write_image(root / f"gallery/0000_1_2569{other}_101_16_87_246.jpeg")
    monkeypatch.setattr(Builder, "COUNTS", {"probe": IDENTITIES, "gallery": IDENTITIES + DISTRACTORS})
    monkeypatch.setattr(Builder, "TEST_IDENTITIES", 2)
    return tmp_path


def build(tiny):
    return tfds_builders.prepare(tfds_builders.builder("grid", data_dir=tiny / "data"), tiny / "manual")


def write_folds(tiny, folds):
    cells = np.empty((1, len(folds)), object)
    for index, train in enumerate(folds):
        cells[0, index] = {"probe": 0, "gallery": 0, "train": np.array([train])}
    scipy.io.savemat(tiny / "manual/underground_reid/features_and_partitions.mat", {"trainIdxAll": cells})


def test_official_counts():
    assert Builder.COUNTS == {"probe": 250, "gallery": 1025}
    assert Builder.TEST_IDENTITIES == 125


def test_splits_distractors_and_bytes(tiny, read_back):
    splits = read_back(build(tiny))
    assert {split: len(examples) for split, examples in splits.items()} == {
        "train": 4,
        "query": 2,
        "gallery": 5,
    }
    assert sorted(e["identity"] for e in splits["gallery"].values())[:DISTRACTORS] == [0] * DISTRACTORS
    assert {e["camera"] for e in splits["query"].values()} == {1}  # the folder, not the 6 of the file's name
    assert {e["camera"] for e in splits["gallery"].values()} == {2}
    for examples in splits.values():
        for file, example in examples.items():
            assert example["image"] == (tiny / "manual/underground_reid" / file).read_bytes()


def test_seeded_folds_say_so(tiny):
    protocols = build(tiny).info.metadata["protocols"]
    assert len(protocols["folds"]["test_identities"]) == 10
    assert protocols["folds"]["distractors"] == [0]
    assert "seeded folds" in protocols["folds"]["description"]
    assert protocols["whole"]["test_identities"] == [[1, 2, 3, 4]]


def test_official_folds_are_read(tiny, read_back):
    write_folds(tiny, [[1, 4], [2, 3]])
    builder = build(tiny)
    protocol = builder.info.metadata["protocols"]["folds"]
    assert protocol["test_identities"] == [[2, 3], [1, 4]]
    assert "official folds" in protocol["description"]
    assert {e["identity"] for e in read_back(builder)["train"].values()} == {1, 4}


@pytest.mark.parametrize("fold", [[1], [1, 1], [1, 9]])
def test_folds_of_other_identities_are_an_error(tiny, fold):
    write_folds(tiny, [[1, 4], fold])
    with pytest.raises(tfds_builders.DatasetError, match="does not name 2 identities of the probe folder"):
        build(tiny)


def test_folds_that_come_later_are_taken_when_built_again(tiny):
    builder = build(tiny)
    write_folds(tiny, [[1, 4], [2, 3]])
    builder = tfds_builders.prepare(builder, tiny / "manual")
    assert "seeded folds" in builder.info.metadata["protocols"]["folds"]["description"]
    builder = tfds_builders.builder("grid", data_dir=builder.data_dir_root)
    tfds_builders.prepare(builder, tiny / "manual", again=True)
    reread = tfds_builders.builder("grid", data_dir=builder.data_dir_root)
    for found in (builder, reread):
        assert "official folds" in found.info.metadata["protocols"]["folds"]["description"]
        assert found.info.metadata["protocols"]["folds"]["test_identities"] == [[2, 3], [1, 4]]


@pytest.mark.parametrize("content", [b"not a matlab file at all", b"", b"MATL"])
def test_unreadable_folds_are_an_error(tiny, content):
    (tiny / "manual/underground_reid/features_and_partitions.mat").write_bytes(content)
    with pytest.raises(tfds_builders.DatasetError, match="no readable trainIdxAll"):
        build(tiny)
