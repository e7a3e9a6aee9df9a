"""CUHK03 on a tiny file of the official structure."""

import pathlib
import zipfile

import cv2
import h5py
import numpy as np
import pytest
import scipy.io

import tfds_builders
from tfds_builders.cuhk03.cuhk03_dataset_builder import Builder

IDENTITIES = (3, 2, 2, 1, 1)
COLUMNS = (0, 4, 5, 9)  # of the ten images of a person those that are there
ABSENT = (0, 1, 4)  # pair, person and image that are not
TEST_SETS = [[(1, 3), (2, 1)], [(5, 1), (1, 1)]]  # pair and person, from 1


def pixels(pair, row, column):
    """RGB [height, width, 3], each image of another size."""
    random = np.random.default_rng([pair, row, column])
    return random.integers(0, 256, (12 + row, 6 + column, 3), np.uint8)


def write_mat(path, identities=IDENTITIES, test_sets=TEST_SETS):
    """Writes a file as MATLAB 7.3 does: cells of references, every array transposed, an empty one two numbers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        refs = file.create_group("#refs#")

        def stored(array):
            return refs.create_dataset(str(len(refs)), data=array).ref

        empty = stored(np.zeros(2, np.uint64))
        for variant in ("detected", "labeled"):
            pairs = []
            for pair, count in enumerate(identities):
                cell = np.full((10, count), empty, h5py.ref_dtype)
                for row in range(count):
                    for column in COLUMNS:
                        if (pair, row, column) != ABSENT:
                            cell[column, row] = stored(pixels(pair, row, column).T)
                pairs.append(stored(cell))
            file.create_dataset(variant, data=np.array([pairs], h5py.ref_dtype))
        sets = [stored(np.array(test, np.float64).T) for test in test_sets]
        file.create_dataset("testsets", data=np.array([sets], h5py.ref_dtype))


def write_new_protocol(path, names, train, query, gallery):
    """Writes the lists as the official file has them: a column of cells, and rows of numbers from 1."""
    filelist = np.empty((len(names), 1), object)
    filelist[:, 0] = names
    scipy.io.savemat(
        path,
        {"filelist": filelist, "train_idx": [train], "query_idx": [query], "gallery_idx": [gallery]},
    )


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    write_mat(tmp_path / "manual/cuhk03_release/cuhk-03.mat")
    images = sum(IDENTITIES) * len(COLUMNS) - 1
    monkeypatch.setattr(Builder, "COUNTS", {"detected": images, "labeled": images})
    monkeypatch.setattr(Builder, "IDENTITIES", IDENTITIES)
    for name, value in (("TEST_SETS", 2), ("TEST_IDENTITIES", 2), ("VALIDATION_IDENTITIES", 3)):
        monkeypatch.setattr(Builder, name, value)
    monkeypatch.setattr(Builder, "NEW_IDENTITIES", {"train": 2, "test": 1})
    return tmp_path


def build(tiny, variant="detected"):
    builder = tfds_builders.builder(f"cuhk03/{variant}", data_dir=tiny / "data")
    return tfds_builders.prepare(builder, tiny / "manual")


def test_official_counts():
    assert Builder.COUNTS == {"detected": 14097, "labeled": 14096}
    assert sum(Builder.IDENTITIES) == 1467
    assert sum(Builder.IDENTITIES[:3]) == 1160 + 100 + 100
    assert sum(Builder.NEW_IDENTITIES.values()) == 1467
    assert (Builder.TEST_SETS, Builder.TEST_IDENTITIES, Builder.VALIDATION_IDENTITIES) == (20, 100, 100)


@pytest.mark.parametrize("variant", Builder.VARIANTS)
def test_images_are_turned_upright_and_kept_without_loss(tiny, read_back, variant):
    splits = read_back(build(tiny, variant))
    examples = {file: example for split in splits.values() for file, example in split.items()}
    assert len(examples) == 35
    assert "1_002_1_05.png" not in examples  # the one that is absent
    first = {0: 0, 1: 3, 2: 5, 3: 7, 4: 8}  # identities of the pairs before
    for file, example in examples.items():
        assert example["image"].startswith(b"\x89PNG")
        pair, identity, view, image = (int(part) for part in pathlib.Path(file).stem.split("_"))
        assert example["identity"] == first[pair - 1] + identity
        assert example["camera"] == view == (1 if image <= 5 else 2)
        stored = cv2.imdecode(np.frombuffer(example["image"], np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
        np.testing.assert_array_equal(stored, pixels(pair - 1, identity - 1, image - 1))


def test_classic_test_sets(tiny, read_back):
    builder = build(tiny)
    metadata = builder.info.metadata
    assert metadata["default_protocol"] == "classic"
    classic, adaptation = metadata["protocols"]["classic"], metadata["protocols"]["view_adaptation"]
    assert classic["test_identities"] == [[3, 4], [1, 9]]
    assert (classic["query_cameras"], classic["gallery_cameras"]) == ([1], [2])
    assert (classic["shots"], classic["repeats"]) == (1, 10)
    assert "validation_identities" not in classic and "kept_out" not in classic
    assert adaptation["kept_out"] == [8, 9]
    assert adaptation["test_identities"] == classic["test_identities"]
    for test, validation in zip(adaptation["test_identities"], adaptation["validation_identities"], strict=True):
        assert len(set(validation)) == 3
        assert not set(validation) & {*test, 8, 9}  # 8 and 9 are of the last two pairs
    splits = read_back(builder)
    assert {(e["identity"], e["camera"]) for e in splits["query"].values()} == {(3, 1), (4, 1)}
    assert {(e["identity"], e["camera"]) for e in splits["gallery"].values()} == {(3, 2), (4, 2)}
    assert len(splits["train"]) == 35 - 8


@pytest.mark.parametrize("beside", ["cuhk03_release", "."])
def test_new_protocol_is_the_default_where_its_list_is_there(tiny, read_back, beside):
    names = ["1_001_1_01.png", "5_001_2_06.png", "4_001_1_01.png", "4_001_2_10.png"]
    write_new_protocol(tiny / "manual" / beside / "cuhk03_new_protocol_config_labeled.mat", names, [1, 2], [3], [4])
    builder = build(tiny, "labeled")
    metadata = builder.info.metadata
    assert (metadata["default_protocol"], metadata["protocols"]["new"]["kind"]) == ("new", "market")
    assert set(metadata["protocols"]) == {"new", "classic", "view_adaptation"}
    assert {split: set(examples) for split, examples in read_back(builder).items()} == {
        "train": set(names[:2]),
        "query": {names[2]},
        "gallery": {names[3]},
    }
    assert build(tiny, "detected").info.metadata["default_protocol"] == "classic"  # it has a list of its own


@pytest.mark.parametrize(
    "train, query, message",
    [([1], [3], "names 1 identities to train on, not 2"), ([1, 2], [3, 5], "2 identities to test")],
)
def test_new_protocol_of_too_few_or_too_many_identities_is_an_error(tiny, train, query, message):
    names = ["1_001_1_01.png", "5_001_2_06.png", "4_001_1_01.png", "4_001_2_10.png", "1_002_1_01.png"]
    write_new_protocol(tiny / "manual/cuhk03_new_protocol_config_labeled.mat", names, train, query, [4])
    with pytest.raises(tfds_builders.DatasetError, match=message):
        build(tiny, "labeled")


def test_new_protocol_of_other_images_is_an_error(tiny):
    config = tiny / "manual/cuhk03_release/cuhk03_new_protocol_config_detected.mat"
    write_new_protocol(config, ["1_001_1_01.png", "1_999_1_01.png"], [1], [2], [2])
    with pytest.raises(tfds_builders.DatasetError, match=r"names 1 images .* such as 1_999_1_01\.png"):
        build(tiny)
    config.write_bytes(b"MATL")
    with pytest.raises(tfds_builders.DatasetError, match="no readable lists of the new protocol"):
        build(tiny)


def test_zip_archive_must_be_unpacked(tiny):
    mat = tiny / "manual/cuhk03_release/cuhk-03.mat"
    with zipfile.ZipFile(tiny / "manual/cuhk03_release.zip", "w") as archive:
        archive.write(mat, "cuhk03_release/cuhk-03.mat")
    mat.unlink()
    with pytest.raises(tfds_builders.DatasetError, match=r"cuhk-03\.mat cannot be read within the zip .*: unpack it"):
        build(tiny)


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: b"MATLAB 5.0", lambda data: data[:2000]])
def test_damaged_file_is_named(tiny, damage):
    mat = tiny / "manual/cuhk03_release/cuhk-03.mat"
    mat.write_bytes(damage(mat.read_bytes()))
    with pytest.raises(tfds_builders.DatasetError, match=r"cuhk-03\.mat is damaged or not the official file"):
        build(tiny)


def test_file_of_other_identities_or_test_sets_is_an_error(tiny):
    mat = tiny / "manual/cuhk03_release/cuhk-03.mat"
    write_mat(mat, test_sets=TEST_SETS[:1])
    with pytest.raises(tfds_builders.DatasetError, match="does not hold 2 test sets of 2 identities"):
        build(tiny)
    write_mat(mat, identities=(2, 3, 2, 1, 1))
    with pytest.raises(tfds_builders.DatasetError, match=r"\(2, 3, 2, 1, 1\) identities, not \(3, 2, 2, 1, 1\)"):
        build(tiny)


def test_no_file_handle_is_left_open(tiny):
    builder = build(tiny)
    records, _ = builder.read(tiny / "manual/cuhk03_release")
    assert records[0].image().shape == (12, 6, 3)
    mat = tiny / "manual/cuhk03_release/cuhk-03.mat"
    with h5py.File(mat, "r+"):  # refused while somebody reads it
        pass
    mat.write_bytes(mat.read_bytes()[:2000])
    with pytest.raises(tfds_builders.DatasetError, match=r"image 1 of person 1 of pair 1 in .*mat is damaged"):
        records[0].image()
