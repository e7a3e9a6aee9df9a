"""Market-1501 on a tiny tree in the official layout."""

import pytest

import tfds_builders
from tfds_builders.market1501.market1501_dataset_builder import Builder

FILES = {
    "bounding_box_train": ["0002_c1s1_000451_03.jpg", "0002_c2s1_000451_03.jpg", "0007_c6s3_000451_03.jpg"],
    "query": ["0001_c1s1_001051_00.jpg"],
    "bounding_box_test": ["-1_c1s1_000401_03.jpg", "0000_c3s1_000401_03.jpg", "0001_c4s6_000401_03.jpg"],
}


@pytest.fixture
def tiny(tmp_path, monkeypatch, write_image):
    for part, files in FILES.items():
        for file in files:
            write_image(tmp_path / "manual/Market-1501-v15.09.15" / part / file)
    (tmp_path / "manual/Market-1501-v15.09.15/bounding_box_test/Thumbs.db").write_bytes(b"not an image")
    counts = {part: len(files) for part, files in FILES.items()}
    monkeypatch.setattr(Builder, "COUNTS", counts | {"bounding_box_test without junk": 2})
    return tmp_path


def test_official_counts():
    assert Builder.COUNTS == {
        "bounding_box_train": 12936,
        "query": 3368,
        "bounding_box_test": 19732,
        "bounding_box_test without junk": 15913,
    }


def test_splits_persons_cameras_and_bytes(tiny, read_back):
    builder = tfds_builders.builder("market1501", data_dir=tiny / "data")
    splits = read_back(tfds_builders.prepare(builder, tiny / "manual"))
    found = {
        split: {(file, e["person"], e["camera"]) for file, e in examples.items()} for split, examples in splits.items()
    }
    assert found == {
        "train": {
            ("bounding_box_train/0002_c1s1_000451_03.jpg", 2, 1),
            ("bounding_box_train/0002_c2s1_000451_03.jpg", 2, 2),
            ("bounding_box_train/0007_c6s3_000451_03.jpg", 7, 6),
        },
        "query": {("query/0001_c1s1_001051_00.jpg", 1, 1)},
        "gallery": {
            ("bounding_box_test/0000_c3s1_000401_03.jpg", 0, 3),
            ("bounding_box_test/0001_c4s6_000401_03.jpg", 1, 4),
        },
    }
    for file, example in splits["train"].items():
        assert example["image"] == (tiny / "manual/Market-1501-v15.09.15" / file).read_bytes()
    assert builder.info.metadata["protocols"]["market"]["kind"] == "market"
