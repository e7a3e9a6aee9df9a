"""Market-1501 on a tiny tree in the official layout."""

import pytest

import tfds_builders
from tfds_builders import KINDS
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
    monkeypatch.setattr(Builder, "COUNTS", counts | {"bounding_box_test without junk": 2, "images": 2})
    monkeypatch.setattr(Builder, "VALIDATION_IDENTITIES", 1)
    return tmp_path


def test_official_counts():
    assert Builder.COUNTS == {
        "bounding_box_train": 12936,
        "query": 3368,
        "bounding_box_test": 19732,
        "bounding_box_test without junk": 15913,
        "images": 500000,
    }
    assert Builder.VALIDATION_IDENTITIES == 100


def test_splits_identities_cameras_and_bytes(tiny, read_back):
    builder = tfds_builders.builder("market1501", data_dir=tiny / "data")
    splits = read_back(tfds_builders.prepare(builder, tiny / "manual"))
    found = {
        split: {(file, e["identity"], e["camera"]) for file, e in examples.items()}
        for split, examples in splits.items()
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
    metadata = builder.info.metadata
    assert metadata["default_protocol"] == "market"
    assert set(metadata["protocols"]) == {"market", "single_shot", "view_adaptation"}
    assert metadata["protocols"]["market"]["kind"] == "market"


def test_two_random_cameras_of_each_query_identity(tiny):
    builder = tfds_builders.builder("market1501", data_dir=tiny / "data")
    _, protocols = builder.read(tiny / "manual/Market-1501-v15.09.15")
    single, adaptation = protocols["single_shot"], protocols["view_adaptation"]
    assert single["kind"] == "trials"
    assert single["test_identities"] == [[1]]  # neither those trained on nor the distractors
    assert (single["two_random_cameras"], single["shots"], single["repeats"]) == (True, 1, 10)
    assert "validation_identities" not in single
    assert "kept_out" not in single and "kept_out" not in adaptation
    assert adaptation["validation_identities"] in ([[2]], [[7]])
    assert adaptation["test_identities"] == single["test_identities"]


def test_multi_query_reads_the_other_boxes_of_each_querys_identity_and_camera(tiny, write_image, read_back):
    boxes = tiny / "manual/Market-1501-v15.09.15/gt_bbox"
    more = "0001_c1s1_001076_00.jpg"
    other_camera, of_a_training_identity = "0001_c2s1_001051_00.jpg", "0002_c1s1_000451_00.jpg"
    for file in (*FILES["query"], more, other_camera, of_a_training_identity):
        write_image(boxes / file)
    builder = tfds_builders.builder("market1501/multi_query", data_dir=tiny / "data")
    splits = read_back(tfds_builders.prepare(builder, tiny / "manual"))
    assert list(splits["multi_query"]) == [f"gt_bbox/{more}"]
    example = splits["multi_query"][f"gt_bbox/{more}"]
    assert (example["identity"], example["camera"]) == (1, 1)
    assert (len(splits["train"]), len(splits["query"]), len(splits["gallery"])) == (3, 1, 2)
    assert builder.info.metadata["default_protocol"] == "market"
    protocol = builder.info.metadata["protocols"]["multi_query"]
    assert (protocol["kind"], protocol["multi_query"]) == ("market", True)


def test_500k_distractors_are_gallery_of_a_camera_without_queries(tiny, write_image, read_back):
    for number in range(2):
        write_image(tiny / f"manual/Market-1501-v15.09.15/images/0000_c1s1_{number}.jpg")
    builder = tfds_builders.builder("market1501/distractors_500k", data_dir=tiny / "data")
    gallery = read_back(tfds_builders.prepare(builder, tiny / "manual"))["gallery"]
    added = {(e["identity"], e["camera"]) for file, e in gallery.items() if file.startswith("images/")}
    assert added == {(0, 7)}
    assert len(gallery) == 4


@pytest.mark.parametrize("variant, folder", [("multi_query", "gt_bbox"), ("distractors_500k", "images")])
def test_a_variants_missing_folder_is_named(tiny, variant, folder):
    builder = tfds_builders.builder(f"market1501/{variant}", data_dir=tiny / "data")
    with pytest.raises(tfds_builders.DatasetError, match=rf"there is no folder .*15\.09\.15/{folder}: "):
        tfds_builders.prepare(builder, tiny / "manual")


def test_plain_name_and_variants_are_offered(tiny):
    with pytest.raises(tfds_builders.DatasetError, match="no variant x: choose one of market1501, market1501/multi"):
        tfds_builders.builder("market1501/x", data_dir=tiny)
    names = [tfds_builders.builder("market1501", kind=kind, data_dir=tiny).data_path.parent.name for kind in KINDS]
    assert names == ["images", "pairs", "triplets"]  # where they lay before there were variants
