"""DukeMTMC-reID on a tiny tree in the official layout."""

import pytest

import tfds_builders
from tfds_builders.dukemtmc_reid.dukemtmc_reid_dataset_builder import Builder

FILES = {
    "bounding_box_train": ["0001_c2_f0046182.jpg", "0001_c8_f0051341.jpg", "0007_c1_f0051341.jpg"],
    "query": ["0005_c2_f0046985.jpg"],
    "bounding_box_test": ["0005_c5_f0051781.jpg", "0009_c7_f0044158.jpg"],
}


@pytest.fixture
def tiny(tmp_path, monkeypatch, write_image):
    for part, files in FILES.items():
        for file in files:
            write_image(tmp_path / "manual/DukeMTMC-reID" / part / file)
    monkeypatch.setattr(Builder, "COUNTS", {part: len(files) for part, files in FILES.items()})
    monkeypatch.setattr(Builder, "VALIDATION_IDENTITIES", 1)
    return tmp_path


def test_official_counts():
    assert Builder.COUNTS == {"bounding_box_train": 16522, "query": 2228, "bounding_box_test": 17661}


def test_splits_identities_cameras_and_bytes(tiny, read_back):
    builder = tfds_builders.builder("dukemtmc_reid", data_dir=tiny / "data")
    splits = read_back(tfds_builders.prepare(builder, tiny / "manual"))
    found = {
        split: {(file, e["identity"], e["camera"]) for file, e in examples.items()}
        for split, examples in splits.items()
    }
    assert found == {
        "train": {
            ("bounding_box_train/0001_c2_f0046182.jpg", 1, 2),
            ("bounding_box_train/0001_c8_f0051341.jpg", 1, 8),
            ("bounding_box_train/0007_c1_f0051341.jpg", 7, 1),
        },
        "query": {("query/0005_c2_f0046985.jpg", 5, 2)},
        "gallery": {
            ("bounding_box_test/0005_c5_f0051781.jpg", 5, 5),
            ("bounding_box_test/0009_c7_f0044158.jpg", 9, 7),
        },
    }
    for file, example in splits["query"].items():
        assert example["image"] == (tiny / "manual/DukeMTMC-reID" / file).read_bytes()


def test_identities_of_the_gallery_alone_are_neither_tested_nor_trained_on(tiny):
    builder = tfds_builders.builder("dukemtmc_reid", data_dir=tiny / "data")
    _, protocols = builder.read(tiny / "manual/DukeMTMC-reID")
    assert list(protocols) == ["market", "single_shot", "view_adaptation"]
    assert protocols["single_shot"]["test_identities"] == [[5]]
    assert "validation_identities" not in protocols["single_shot"]
    assert protocols["view_adaptation"]["validation_identities"] in ([[1]], [[7]])
    assert protocols["single_shot"]["kept_out"] == protocols["view_adaptation"]["kept_out"] == [9]


def test_the_withdrawal_is_said_wherever_somebody_looks(tmp_path):
    assert "withdrawn by its authors" in Builder.get_metadata().description
    assert "withdrawn" in Builder.ARCHIVE.terms
    with pytest.raises(tfds_builders.DatasetError, match="a copy you have: its authors have withdrawn"):
        tfds_builders.prepare(tfds_builders.builder("dukemtmc_reid", data_dir=tmp_path), tmp_path / "nowhere")
