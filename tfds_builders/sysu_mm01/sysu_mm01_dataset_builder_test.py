"""SYSU-MM01 on a tree of the official shape, whose images are empty, and on a tiny one that is built."""

import collections
import shutil

import numpy as np
import pytest
import scipy.io

import tfds_builders
from tfds_builders.doctor import examine
from tfds_builders.sysu_mm01.sysu_mm01_dataset_builder import QUERIES, Builder

TRAIN = [*range(2, 530, 2), *range(1, 64, 2)]  # 296, 99 and 96 identities, their numbers mixed
REST = [identity for identity in range(1, 534) if identity not in TRAIN]
VALIDATION, TEST = REST[:99], REST[99:195]
# Visible-light cameras see a part of the test identities: 56 twice indoors, 189 times outdoors.
SEEN = {1: TEST[:56], 2: TEST[40:96], 4: TEST[:95], 5: TEST[2:96]}
IMAGES = 11  # of a camera and person: one more than the ten that may be drawn


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    """A tree of the official shape: 3,803 infrared images, and 301 pairs of a test person and another camera."""
    root = tmp_path_factory.mktemp("official") / "SYSU-MM01"
    for camera, identities in SEEN.items():
        for identity in identities:
            write_empty(root, camera, identity, IMAGES)
    for position, identity in enumerate(TEST):  # 96 * 2 * 19 = 3,648, and 155 more
        write_empty(root, 3, identity, 19 + (position < 95))
        write_empty(root, 6, identity, 19 + (position < 60))
    for identity in (*TRAIN, *VALIDATION):
        write_empty(root, 1, identity, 1)
        write_empty(root, 6, identity, 1)
    write_lists(root, TRAIN, VALIDATION, TEST)
    return root


def write_empty(root, camera, identity, images):
    folder = root / f"cam{camera}/{identity:04d}"
    folder.mkdir(parents=True)
    for image in range(1, images + 1):
        (folder / f"{image:04d}.jpg").touch()


def write_lists(root, train, validation, test):
    (root / "exp").mkdir(parents=True, exist_ok=True)
    for name, identities in (("train", train), ("val", validation), ("test", test)):
        (root / f"exp/{name}_id.txt").write_text(",".join(map(str, identities)) + "\n")


def write_permutations(root, seen, images, identities, trials=10):
    """Writes rand_perm_cam.mat as nested as the official one, empty where a camera does not see a person."""
    random = np.random.default_rng(0)
    cells = np.empty((6, 1), object)
    for camera in range(1, 7):
        cells[camera - 1, 0] = np.empty((identities, 1), object)
        for identity in range(1, identities + 1):
            there = identity in seen.get(camera, ())
            orders = [random.permutation(images) + 1 for _ in range(trials)] if there else np.empty((0, 0))
            cells[camera - 1, 0][identity - 1, 0] = np.array(orders, np.float64)
    scipy.io.savemat(root / "exp/rand_perm_cam.mat", {"rand_perm_cam": cells})
    return cells


def read(root, variant="train"):
    return tfds_builders.builder(f"sysu_mm01/{variant}", data_dir=root.parent / "data").read(root)


def test_official_counts():
    assert Builder.COUNTS == {QUERIES: 3803}
    assert Builder.IDENTITIES == {"train": 296, "val": 99, "test": 96}


def test_official_numbers_of_queries_and_gallery_images(official):
    cells = write_permutations(official, SEEN, IMAGES, 533)
    records, protocols = read(official)
    query = [record for record in records if record.split == "query"]
    assert len(query) == 3803
    assert {record.camera for record in query} == {3, 6}
    assert {record.modality for record in query} == {"infrared"}
    sizes = {name: {len(files) for files in protocol["gallery_files"]} for name, protocol in protocols.items()}
    assert sizes == {"all_single": {301}, "all_multi": {3010}, "indoor_single": {112}, "indoor_multi": {1120}}

    gallery = {record.file: record for record in records if record.split == "gallery"}
    for name, protocol in protocols.items():
        assert protocol["kind"] == "trials"
        assert protocol["query_cameras"] == [3, 6]
        assert protocol["gallery_cameras"] == ([1, 2] if name.startswith("indoor") else [1, 2, 4, 5])
        assert protocol["ignored_cameras"] == [[3, 2]]
        assert protocol["cmc"] == "identity"
        assert protocol["test_identities"] == [sorted(TEST)] * 10
        assert "official" in protocol["description"]
        for files in protocol["gallery_files"]:
            assert len(set(files)) == len(files)
            seen = collections.Counter((gallery[file].identity, gallery[file].camera) for file in files)
            assert set(seen.values()) == {10 if name.endswith("multi") else 1}
            assert {camera for _, camera in seen} == set(protocol["gallery_cameras"])

    # The permutation of camera 4, person TEST[1], trial 7 counts from 1 into the sorted files.
    expected = [f"cam4/{TEST[1]:04d}/{int(number):04d}.jpg" for number in cells[3, 0][TEST[1] - 1, 0][7]]
    drawn = [file for file in protocols["all_multi"]["gallery_files"][7] if file.startswith(expected[0][:9])]
    assert drawn == expected[:10]
    assert expected[0] in protocols["all_single"]["gallery_files"][7]


def test_validation_identities_are_trained_on_only_where_asked_for(official):
    for variant, identities in (("train", {*TRAIN}), ("trainval", {*TRAIN, *VALIDATION})):
        records, protocols = read(official, variant)
        held_out = {name: p["validation_identities"] for name, p in protocols.items() if "validation_identities" in p}
        trials = len(protocols["all_single"]["test_identities"])
        expected = {"all_single_validation": [sorted(VALIDATION)] * trials} if variant == "trainval" else {}
        assert held_out == expected
        assert {record.identity for record in records if record.split == "train"} == identities
        assert {record.identity for record in records if record.split != "train"} == {*TEST}


def test_seeded_draws_say_so(official):
    (official / "exp/rand_perm_cam.mat").unlink(missing_ok=True)
    _, protocols = read(official)
    assert list(protocols) == ["all_single", "all_multi", "indoor_single", "indoor_multi"]
    for name, protocol in protocols.items():
        assert "gallery_files" not in protocol
        assert protocol["test_identities"] == [sorted(TEST)]
        assert protocol["shots"] == (10 if name.endswith("multi") else 1)
        assert (protocol["shots_per_camera"], protocol["repeats"]) == (True, 10)
        assert "seeded draws, as exp/rand_perm_cam.mat was not there" in protocol["description"]


def test_missing_query_is_a_miscount(official, monkeypatch):
    monkeypatch.setattr(Builder, "COUNTS", {QUERIES: 3804})
    with pytest.raises(tfds_builders.DatasetError, match=r"expected 3804 images in .* the queries, found 3803"):
        read(official)


@pytest.fixture
def tiny(tmp_path, monkeypatch, write_image):
    """Person 1 is trained on, 2 is for validation, 3 and 4 are tested; the official shape is of no matter."""
    root = tmp_path / "manual/SYSU-MM01"
    for camera in range(1, 7):
        for identity in (1, 2, 3, 4):
            for image in range(1, 3):
                write_image(root / f"cam{camera}/{identity:04d}/{image:04d}.jpg")
    write_lists(root, [1], [2], [3, 4])
    monkeypatch.setattr(Builder, "COUNTS", {QUERIES: 8})
    monkeypatch.setattr(Builder, "IDENTITIES", {"train": 1, "val": 1, "test": 2})
    return tmp_path


def build(tiny):
    builder = tfds_builders.builder("sysu_mm01/train", data_dir=tiny / "data")
    return tfds_builders.prepare(builder, tiny / "manual")


def test_splits_modalities_and_bytes(tiny, read_back):
    write_permutations(tiny / "manual/SYSU-MM01", dict.fromkeys((1, 2, 4, 5), (3, 4)), 2, 4)
    builder = build(tiny)
    splits = read_back(builder)
    assert {split: len(examples) for split, examples in splits.items()} == {"train": 12, "query": 8, "gallery": 16}
    assert {(e["camera"], e["modality"]) for e in splits["train"].values()} == {
        (camera, int(camera in (3, 6))) for camera in range(1, 7)
    }
    for examples in splits.values():
        for file, example in examples.items():
            assert example["image"] == (tiny / "manual/SYSU-MM01" / file).read_bytes()
    metadata = tfds_builders.builder("sysu_mm01/train", data_dir=tiny / "data").info.metadata  # read from disk
    assert metadata["default_protocol"] == "all_single"
    assert len(metadata["protocols"]["all_single"]["gallery_files"][0]) == 8
    assert set(metadata["protocols"]["all_single"]["gallery_files"][0]) <= set(splits["gallery"])


@pytest.mark.parametrize("images", [0, 1, 3])
def test_permutations_that_do_not_fit_are_an_error(tiny, images):
    write_permutations(tiny / "manual/SYSU-MM01", dict.fromkeys((1, 2, 4, 5), (3, 4)), images, 4)
    message = rf"it counts {images} of person 0003 in cam1 where there are 2, and is wrong of 7 more"
    with pytest.raises(tfds_builders.DatasetError, match=message):
        build(tiny)


@pytest.mark.parametrize("removed", [1, 2])
def test_missing_gallery_images_do_not_shrink_the_official_gallery(tiny, removed):
    root = tiny / "manual/SYSU-MM01"
    write_permutations(root, dict.fromkeys((1, 2, 4, 5), (3, 4)), 2, 4)
    for path in sorted((root / "cam4/0004").iterdir())[:removed]:
        path.unlink()
    message = rf"it counts 2 of person 0004 in cam4 where there are {2 - removed}; complete the copy, or remove the"
    with pytest.raises(tfds_builders.DatasetError, match=message):
        build(tiny)
    (problem,) = examine("sysu_mm01/train", data_dir=tiny / "data", manual_dir=tiny / "manual").problems
    assert "person 0004 in cam4" in problem


@pytest.mark.parametrize("damage", ["cut", "too few identities", "too few trials"])
def test_permutations_that_cannot_be_read_are_an_error(tiny, damage):
    root = tiny / "manual/SYSU-MM01"
    trials, identities = (9, 4) if damage == "too few trials" else (10, 3)
    write_permutations(root, dict.fromkeys((1, 2, 4, 5), (3, 4)), 2, identities, trials)
    if damage == "cut":
        (root / "exp/rand_perm_cam.mat").write_bytes(b"MATL")
    with pytest.raises(
        tfds_builders.DatasetError, match=r"rand_perm_cam\.mat cannot be read or has no ten permutation"
    ):
        build(tiny)


@pytest.mark.parametrize(
    "cameras, message",
    [
        ((3, 6), "the training identities have no infrared image"),
        ((1, 2, 4, 5), "the training identities have no rgb image"),
        (range(1, 7), "1 of the training identities have no image: 0001"),
    ],
)
def test_missing_training_images_are_reported(tiny, cameras, message):
    for camera in cameras:
        shutil.rmtree(tiny / f"manual/SYSU-MM01/cam{camera}/0001")
    with pytest.raises(tfds_builders.DatasetError, match=message):
        build(tiny)


@pytest.mark.parametrize(
    "content, message",
    [
        ("1,2,3", r"test_id\.txt names"),
        ("three", "is not one line of identities"),
        (None, r"no list .*test_id\.txt"),
        (b"3,\xff4", r"the list .*test_id\.txt is damaged or may not be read: replace it"),
    ],
)
def test_wrong_list_of_identities_is_named(tiny, content, message):
    table = tiny / "manual/SYSU-MM01/exp/test_id.txt"
    if content is None:
        table.unlink()
    else:
        table.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(tfds_builders.DatasetError, match=message):
        build(tiny)
