"""A folder of one's own, by pattern and by table."""

import os
import re
from pathlib import Path

import pytest

import tfds_builders
from tfds_builders import DatasetError, labels
from tfds_builders.folder import folder_dataset_builder
from tfds_builders.folder.folder_dataset_builder import number_cameras

PATTERN = r"(?P<person>[^/]+)/c(?P<camera>\d+)_\d+"


@pytest.fixture
def root(tmp_path, write_image):
    """Four identities, two shots by each of two cameras, in several formats; a distractor and a junk box."""
    for identity in ("anna", "bert", "cleo", "dora"):
        for camera in (3, 12):
            write_image(tmp_path / f"images/{identity}/c{camera}_0.jpg")
            write_image(tmp_path / f"images/{identity}/c{camera}_1.PNG")
    write_image(tmp_path / "images/0000/c3_0.jpg")
    write_image(tmp_path / "images/-1/c3_0.jpg")
    return tmp_path / "images"


def make(root, pattern=PATTERN, kind="images", **options):
    spec = {"name": "folder", "root": root, "pattern": pattern} | options
    spec = {key: value for key, value in spec.items() if value is not None}
    return tfds_builders.builder(spec, kind=kind, data_dir=root.parent / "data")


def build(root, *arguments, **options):
    return tfds_builders.prepare(make(root, *arguments, **options))


def write_csv(root, *lines, header="path,person,camera"):
    table = root / "labels.csv"
    table.write_text("\n".join([header, *lines]) + "\n")
    return table


def test_halves_queries_and_distractors(root, read_back):
    builder = build(root)
    splits = read_back(builder)
    assert builder.info.metadata["identities"] == {"anna": 1, "bert": 2, "cleo": 3, "dora": 4}
    assert builder.info.metadata["cameras"] == {"3": 3, "12": 12}
    assert builder.info.metadata["default_protocol"] == "market"
    train = {e["identity"] for e in splits["train"].values()}
    test = {1, 2, 3, 4} - train
    assert len(train) == len(test) == 2
    assert len(splits["train"]) == 8
    queries = sorted((e["identity"], e["camera"]) for e in splits["query"].values())
    assert queries == sorted((identity, camera) for identity in test for camera in (3, 12))
    gallery = sorted((e["identity"], e["camera"]) for e in splits["gallery"].values())
    assert gallery == sorted([(0, 3), *queries])
    assert not any(file.startswith("-1") for examples in splits.values() for file in examples)
    for examples in splits.values():
        for file, example in examples.items():
            assert example["image"] == (root / file).read_bytes()


def test_a_cameras_only_image_can_be_found(tmp_path, write_image, read_back):
    for identity in (1, 2):
        for camera in (1, 2):
            write_image(tmp_path / f"images/{identity}/c{camera}_0.jpg")
    splits = read_back(build(tmp_path / "images"))
    assert [e["camera"] for e in splits["query"].values()] == [1]
    assert [e["camera"] for e in splits["gallery"].values()] == [2]
    assert len(splits["train"]) == 2


def test_the_documented_pattern_keeps_junk_out(tmp_path, write_image, read_back):
    readme = Path(tfds_builders.__file__).with_name("folder") / "README.md"
    (pattern,) = re.findall(r"--pattern '(.+)'", readme.read_text())
    for identity in ("0001", "0002", "-1"):
        for camera in (1, 2):
            write_image(tmp_path / f"images/{identity}_c{camera}s1_000151_00.jpg")
    builder = build(tmp_path / "images", pattern)
    assert set(builder.info.metadata["identities"]) == {"1", "2"}
    files = [file for split in read_back(builder).values() for file in split]
    assert len(files) == 4 and not any(file.startswith("-1") for file in files)


def test_pairs_of_a_folder_without_training_images_are_its_test_images(tmp_path, write_image):
    for identity in (1, 2, 3):
        for split, camera in (("query", 1), ("gallery", 2)):
            write_image(tmp_path / f"images/{split}/{identity}_c{camera}.jpg")
    pattern = r"(?P<split>\w+)/(?P<person>\d+)_c(?P<camera>\d)"
    assert set(build(tmp_path / "images", pattern, kind="pairs").info.splits) == {"test"}


def test_pattern_may_tell_split_and_modality(tmp_path, write_image, read_back):
    files = {
        split: f"{split}/infrared/{6 if split == 'train' else 7}_c1.jpg" for split in ("train", "query", "gallery")
    }
    for file in files.values():
        write_image(tmp_path / "images" / file)
    pattern = r"(?P<split>\w+)/(?P<modality>\w+)/(?P<person>\d+)_c(?P<camera>\d)"
    splits = read_back(build(tmp_path / "images", pattern))
    assert {split: list(examples) for split, examples in splits.items()} == {s: [file] for s, file in files.items()}
    assert {e["modality"] for examples in splits.values() for e in examples.values()} == {1}


def test_table(root, read_back):
    table = write_csv(
        root,
        "anna/c3_0.jpg,anna,door,train,rgb",
        "bert/c3_0.jpg,10,door,query,infrared",
        "bert/c12_0.jpg,10,yard,gallery,",
        "0000/c3_0.jpg,0,yard,gallery,",
        header="path,person,camera,split,modality",
    )
    builder = build(root, None, csv=table)
    splits = read_back(builder)
    found = {
        file: (split, e["identity"], e["camera"], e["modality"])
        for split, examples in splits.items()
        for file, e in examples.items()
    }
    assert found == {
        "anna/c3_0.jpg": ("train", 2, 1, 0),
        "bert/c3_0.jpg": ("query", 1, 1, 1),
        "bert/c12_0.jpg": ("gallery", 1, 2, 0),
        "0000/c3_0.jpg": ("gallery", 0, 2, 0),
    }
    assert builder.info.metadata["cameras"] == {"door": 1, "yard": 2}
    beside_the_table = tfds_builders.builder({"name": "folder", "csv": table}, data_dir=root.parent / "data")
    assert beside_the_table.data_path == builder.data_path


def test_changed_folder_or_pattern_is_another_data_set(root, write_image):
    first = make(root).data_path
    assert make(root).data_path == first
    assert make(root, PATTERN + r"\.").data_path != first
    assert make(root, kind="pairs").data_path != first
    os.utime(root / "anna/c3_0.jpg", (1, 1))
    touched = make(root).data_path
    assert touched != first
    write_image(root / "emil/c3_0.jpg")
    assert make(root).data_path not in (first, touched)


def test_pairs_and_triplets(root):
    assert build(root, kind="pairs").info.splits["test"].num_examples == 32
    assert build(root, kind="triplets").info.splits["test"].num_examples == 16


def test_images_that_do_not_match_are_warned_of(root, write_image):
    write_image(root / "cover.jpg")
    with pytest.warns(UserWarning, match=r"1 of 19 images do not match .* such as cover\.jpg"):
        make(root)


@pytest.mark.parametrize(
    "pattern, message",
    [
        ("(?P<person>", "is no regular expression"),
        (r"(?P<person>\w+)/", "has no group camera: write "),
        (r"(?P<person>\d{9})_(?P<camera>\d)", r"matches no image in .*images; one is -1/c3_0\.jpg"),
    ],
)
def test_bad_pattern_is_explained(root, pattern, message):
    with pytest.raises(DatasetError, match=message):
        make(root, pattern)


def test_missing_or_empty_root_is_explained(root, tmp_path):
    with pytest.raises(DatasetError, match=r"there is no folder .*nowhere"):
        make(root / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="there is no image"):
        make(tmp_path / "empty")
    with pytest.raises(DatasetError, match="give root and pattern, or csv"):
        make(root, None)
    with pytest.raises(DatasetError, match="no option patern"):
        make(root, patern=PATTERN)


@pytest.mark.parametrize(
    "header, lines, message",
    [
        ("path,person", [], "has no column camera"),
        ("path,person,camera", [], "has no rows"),
        (
            "path,person,camera",
            ["anna/c3_0.jpg,1,1", "anna/none.jpg,1,1"],
            "row 3 of .* which does not exist",
        ),
        (
            "path,person,camera",
            ["anna/c3_0.jpg,1,1", "anna/c3_0.jpg,2,1"],
            r"row 3 of .* names anna/c3_0\.jpg again, after row 2 of .*: person 1 camera 1 there, person 2 camera 1",
        ),
        ("path,person,camera", ["anna/c3_0.jpg,,1"], "row 2 of .* has no person"),
        (
            "path,person,camera,split",
            ["anna/c3_0.jpg,1,1,test"],
            "row 2 of .* split 'test': use train, query",
        ),
        (
            "path,person,camera,modality",
            ["anna/c3_0.jpg,1,1,ir"],
            "row 2 of .* modality 'ir': use rgb, infrared",
        ),
        ("path,person,camera,split", ["anna/c3_0.jpg,0,1,query"], "row 2 of .* distractor .* in query"),
        (
            "path,person,camera,split",
            ["anna/c3_0.jpg,1,1,train", "bert/c3_0.jpg,2,1,"],
            "row 3 of .* has no split, though others have",
        ),
        (
            "path,person,camera,split",
            ["anna/c3_0.jpg,anna,1,train", "bert/c3_0.jpg,bert,1,train", "anna/c12_0.jpg,anna,2,query"],
            "1 identity is in train and also in query or gallery, .*: anna; put all images of an identity on one side",
        ),
        (
            "path,person,camera,split",
            [
                f"{name}/c{c}_0.jpg,{name},1,{s}"
                for name in ("anna", "bert")
                for c, s in ((3, "train"), (12, "gallery"))
            ],
            "2 identities are in train .*: anna, bert; put",
        ),
        ("path,person,camera", ["anna/c3_0.jpg,-1,1"], "there is no image to build it from"),
    ],
)
def test_bad_table_is_explained(root, header, lines, message):
    table = write_csv(root, *lines, header=header)
    with pytest.raises(DatasetError, match=message):
        build(root, None, csv=table)


def test_damaged_image_is_named(root):
    (root / "anna/c3_0.jpg").write_bytes(b"\xff\xd8\xff not a picture")
    with pytest.raises(DatasetError, match=r"anna/c3_0\.jpg is damaged"):
        build(root)


def test_formats_may_mix(root):
    shapes = {example["image"].shape for example in build(root).as_dataset(split="train").as_numpy_iterator()}
    assert shapes == {(16, 8, 3)}


def test_identities_from_0_on_are_a_distractor_and_what_to_set_is_said(tmp_path, write_image):
    for identity in range(4):
        for camera in (0, 1):
            write_image(tmp_path / f"images/{identity}_c{camera}.jpg")
    pattern = r"(?P<person>\d)_c(?P<camera>\d)"
    with pytest.warns(UserWarning, match="2 images are of identity 0: distractors, .* set distractor to none"):
        builder = build(tmp_path / "images", pattern)
    assert builder.info.metadata["identities"] == {"1": 1, "2": 2, "3": 3}
    everybody = build(tmp_path / "images", pattern, distractor="none")
    assert everybody.info.metadata["identities"] == {"0": 1, "1": 2, "2": 3, "3": 4}
    assert everybody.data_path != builder.data_path
    assert everybody.info.splits["train"].num_examples == 4
    others = build(tmp_path / "images", pattern, distractor=2, junk="003,x")
    assert others.info.metadata["identities"] == {"0": 1, "1": 2}
    with pytest.raises(DatasetError, match="folder: the identity 2 cannot be both distractor and junk"):
        make(tmp_path / "images", pattern, distractor="2", junk="2")


def test_a_distractor_that_is_no_gallery_image_is_told_from_an_identity(root):
    table = write_csv(root, "anna/c3_0.jpg,bystander,1,query", header="path,person,camera,split")
    with pytest.raises(
        DatasetError, match=r"row 2 .* distractor \(identity bystander\) in query, .* set distractor to none"
    ):
        build(root, None, csv=table, distractor="bystander")


@pytest.mark.parametrize(
    ("cameras", "numbered", "warned"),
    [
        (("0", "07", "12.0"), {"0": 0, "7": 7, "12": 12}, False),
        ((str(2**63 - 1), "1"), {str(2**63 - 1): 2**63 - 1, "1": 1}, False),
        ((str(2**63), "9"), {"9": 1, str(2**63): 2}, True),
        (("1", "2", "x"), {"1": 1, "2": 2, "x": 3}, True),
        (("door", "\u5165\u53e3"), {"door": 1, "\u5165\u53e3": 2}, False),
        (("9" * 5000, "1"), {"1": 1, "9" * 5000: 2}, True),
    ],
)
def test_cameras_keep_their_numbers_or_it_is_said_that_they_do_not(cameras, numbered, warned, recwarn):
    assert number_cameras({labels.normal(camera) for camera in cameras}) == numbered
    assert len(recwarn) == warned


def test_identities_of_any_size_and_script_are_numbered_in_order(root, read_back):
    names = ["99999999999999999999", "7", "007", "\u5f20 \u4f1f", "two\nlines"]
    files = ["anna/c3_0.jpg", "anna/c3_1.PNG", "bert/c3_0.jpg", "cleo/c3_0.jpg", "dora/c3_0.jpg"]
    table = write_csv(root, *(f'{file},"{name}",1,gallery' for file, name in zip(files, names, strict=True)))
    table.write_text(table.read_text().replace("path,person,camera", "path,person,camera,split", 1))
    found = build(root, None, csv=table).info.metadata["identities"]
    assert found == {"7": 1, "99999999999999999999": 2, "two lines": 3, "\u5f20 \u4f1f": 4}


def test_one_camera_for_all_is_named_by_a_setting_and_scored_with_it(root):
    table = write_csv(root, "anna/c3_0.jpg,1,", "anna/c3_1.PNG,1,", "bert/c3_0.jpg,2,yard")
    with pytest.raises(DatasetError, match=r"row 2 of .* has no camera"):
        build(root, None, csv=table)
    builder = build(root, None, csv=table, camera="door")
    assert builder.info.metadata["cameras"] == {"door": 1, "yard": 2}
    assert builder.info.metadata["protocols"]["same_camera"]["same_camera"] is True
    without = write_csv(root, "anna/c3_0.jpg,1", "bert/c3_0.jpg,2", header="path,person")
    assert build(root, None, csv=without, camera=1).info.metadata["cameras"] == {"1": 1}
    for camera in (0, "0", 0.0):
        assert make(root, None, csv=without, camera=camera).builder_config.rows[0].camera == "0"
    with pytest.raises(DatasetError, match=r"has no column camera: .*; if one camera took all images, set camera to 1"):
        make(root, None, csv=without)
    assert {row.camera for row in make(root, r"(?P<person>[^/]+)/", camera="1").builder_config.rows} == {"1"}


def test_files_of_every_name_are_trained_on(tmp_path, write_image, read_back):
    names = ["1_c1_e\u0301.jpg", "1_c1_\u00e9.jpg", "1_c1_\u5f20\n\x1b.jpg", os.fsdecode(b"1_c1_\xff.jpg")]
    content = write_image(tmp_path / "images/1_c2.jpg/x.jpg")
    for name in names:
        (tmp_path / "images" / name).write_bytes(content)
    pattern = r"(?P<person>\d)_c(?P<camera>\d)"
    files = {file for split in read_back(build(tmp_path / "images", pattern)).values() for file in split}
    assert files == {*names[:3], r"1_c1_\xff.jpg", "1_c2.jpg/x.jpg"}


def test_a_file_that_vanishes_is_named(root, monkeypatch):
    builder = make(root)
    (root / "anna/c3_0.jpg").unlink()
    with pytest.raises(DatasetError, match=r"the image .*anna/c3_0\.jpg is no longer there"):
        tfds_builders.prepare(builder)
    listed = folder_dataset_builder.images_below
    monkeypatch.setattr(folder_dataset_builder, "images_below", lambda *args: [*listed(*args), "anna/c3_0.jpg"])
    with pytest.raises(DatasetError, match=r"the image .*anna/c3_0\.jpg is no longer there, though it was listed"):
        make(root)
