"""MSMT17 on a tiny tree in the official layout."""

import pytest

import tfds_builders
from tfds_builders.msmt17.msmt17_dataset_builder import Builder

LISTS = {
    "train": ["0000/0000_000_01_0303morning_0008_0.jpg 0", "0001/0001_000_14_0303morning_0008_0.jpg 1"],
    "val": ["0000/0000_001_15_0303morning_0010_0.jpg 0"],
    "query": ["0000/0000_000_10_0303noon_0032_1.jpg 0"],
    "gallery": ["0000/0000_001_01_0303noon_0044_1.jpg 0", "0002/0002_000_12_0303noon_0044_1.jpg 2"],
}
FOLDERS = {
    "MSMT17_V1": {"train": "train", "val": "train", "query": "test", "gallery": "test"},
    "MSMT17_V2": {"train": "mask_train_v2", "val": "mask_train_v2", "query": "mask_test_v2", "gallery": "mask_test_v2"},
}


@pytest.fixture
def tiny(tmp_path, monkeypatch, write_image):
    for version, folders in FOLDERS.items():
        for name, lines in LISTS.items():
            for line in lines:
                write_image(tmp_path / "manual" / version / folders[name] / line.split()[0])
            (tmp_path / "manual" / version / f"list_{name}.txt").write_text("\n".join(lines) + "\n")
    monkeypatch.setattr(Builder, "COUNTS", {f"list_{name}.txt": len(lines) for name, lines in LISTS.items()})
    monkeypatch.setattr(Builder, "TRAIN_IDENTITIES", 2)
    return tmp_path


def build(tiny, variant):
    builder = tfds_builders.builder(f"msmt17/{variant}", data_dir=tiny / "data")
    return tfds_builders.prepare(builder, tiny / "manual")


def test_official_counts():
    assert Builder.COUNTS == {
        "list_train.txt": 30248,
        "list_val.txt": 2373,
        "list_query.txt": 11659,
        "list_gallery.txt": 82161,
    }
    assert Builder.TRAIN_IDENTITIES == 1041


def test_identities_of_train_and_test_are_disjoint_and_cameras_have_two_digits(tiny, read_back):
    builder = build(tiny, "v1")
    splits = read_back(builder)
    found = {
        split: {(file, e["identity"], e["camera"]) for file, e in examples.items()}
        for split, examples in splits.items()
    }
    assert found == {
        "train": {
            ("train/0000/0000_000_01_0303morning_0008_0.jpg", 1, 1),
            ("train/0001/0001_000_14_0303morning_0008_0.jpg", 2, 14),
        },
        "query": {("test/0000/0000_000_10_0303noon_0032_1.jpg", 3, 10)},
        "gallery": {
            ("test/0000/0000_001_01_0303noon_0044_1.jpg", 3, 1),
            ("test/0002/0002_000_12_0303noon_0044_1.jpg", 5, 12),
        },
    }
    for file, example in splits["gallery"].items():
        assert example["image"] == (tiny / "manual/MSMT17_V1" / file).read_bytes()
    assert builder.info.metadata["protocols"]["market"]["kind"] == "market"


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_validation_images_are_trained_on_only_where_asked_for(tiny, read_back, version):
    folder = FOLDERS[f"MSMT17_{version.upper()}"]["val"]
    validation = f"{folder}/0000/0000_001_15_0303morning_0010_0.jpg"
    assert validation not in read_back(build(tiny, version))["train"]
    train = read_back(build(tiny, f"{version}_trainval"))["train"]
    assert len(train) == 3
    assert (train[validation]["identity"], train[validation]["camera"]) == (1, 15)


def test_each_version_asks_for_its_own_archive(tmp_path):
    for version in ("v1", "v2_trainval"):
        name = f"MSMT17_{version[:2].upper()}"
        with pytest.raises(tfds_builders.DatasetError, match=rf"put {name}\.zip or its unpacked folder {name}/"):
            tfds_builders.prepare(tfds_builders.builder(f"msmt17/{version}", data_dir=tmp_path), tmp_path / "nowhere")


def test_image_that_a_list_names_but_is_not_there_is_named(tiny):
    (tiny / "manual/MSMT17_V1/test/0002/0002_000_12_0303noon_0044_1.jpg").unlink()
    message = r"test lacks 1 of the images that list_gallery\.txt names: 0002/0002_000_12_0303noon_0044_1\.jpg"
    with pytest.raises(tfds_builders.DatasetError, match=message):
        build(tiny, "v1")


def test_line_that_cannot_be_read_is_named(tiny):
    (tiny / "manual/MSMT17_V1/list_query.txt").write_text("0000_c1.jpg 0\n")
    with pytest.raises(tfds_builders.DatasetError, match=r"list_query\.txt 1 of the lines do not read like .*: 0000"):
        build(tiny, "v1")


def test_damaged_list_is_named(tiny):
    (tiny / "manual/MSMT17_V1/list_query.txt").write_bytes(b"\xff\xfe0000")
    with pytest.raises(tfds_builders.DatasetError, match=r"the list .*list_query\.txt is damaged or may not be read"):
        build(tiny, "v1")


def test_training_identity_who_would_be_taken_for_a_test_identity_is_an_error(tiny):
    table = tiny / "manual/MSMT17_V1/list_train.txt"
    table.write_text(
        table.read_text().replace("0001_000_14_0303morning_0008_0.jpg 1", "0001_000_14_0303morning_0008_0.jpg 2")
    )
    with pytest.raises(tfds_builders.DatasetError, match="name person 2, beyond 1"):
        build(tiny, "v1")


def test_missing_line_is_a_miscount(tiny):
    (tiny / "manual/MSMT17_V1/list_gallery.txt").write_text(LISTS["gallery"][0])
    with pytest.raises(tfds_builders.DatasetError, match=r"expected 2 images in list_gallery\.txt, found 1"):
        build(tiny, "v1")
