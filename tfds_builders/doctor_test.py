"""The doctor: everything that is wrong at once, why nothing matches, which images are damaged."""

import dataclasses

import pytest

from tfds_builders import DATASETS, builder, builder_class
from tfds_builders.__main__ import main
from tfds_builders.base import MULTI_QUERY, Record
from tfds_builders.doctor import Diagnosis, examine, first_trial, look_at_protocol
from tfds_builders.market1501.market1501_dataset_builder import Builder as Market
from tfds_builders.viper.viper_dataset_builder import Builder as Viper

PATTERN = r"(?P<split>\w+)/(?P<person>\d+)_c(?P<camera>\d)"


@pytest.fixture
def viper(tmp_path, monkeypatch, write_image):
    root = tmp_path / "manual/VIPeR"
    for identity in range(8):
        write_image(root / f"cam_a/{identity:03d}_45.bmp")
        write_image(root / f"cam_b/{identity:03d}_90.bmp")
    monkeypatch.setattr(Viper, "COUNTS", {"cam_a": 8, "cam_b": 8})
    monkeypatch.setattr(Viper, "TEST_IDENTITIES", 4)
    monkeypatch.setattr(Viper, "VALIDATION_IDENTITIES", 2)
    return root


def examined(tmp_path, spec="viper", **options):
    return examine(spec, data_dir=tmp_path / "data", manual_dir=tmp_path / "manual", **options)


def test_a_sound_data_set_has_code_0_and_its_protocols_are_told(viper, tmp_path, capsys):
    assert main(["doctor", "viper", "--data-dir", str(tmp_path), "--manual-dir", str(viper.parent)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "viper: sound"
    assert lines[1].strip() == "train: 8 images, query: 4 images, gallery: 4 images"
    assert (
        "protocol random_316: its first trial has 4 queries, 4 of them with a match, and 4 gallery images" in lines[2]
    )
    assert lines[-1].strip() == "16 of 16 images were decoded, and all of those are sound"
    assert not (tmp_path / "viper").exists()  # nothing is built


def test_a_missing_folder_has_code_1_and_the_rest_is_looked_at_all_the_same(viper, tmp_path, capsys):
    for image in (viper / "cam_b").iterdir():
        image.unlink()
    (viper / "cam_b").rmdir()
    (viper / "cam_a/000_45.bmp").rename(viper / "cam_a/first.bmp")
    assert main(["doctor", "viper", "--data-dir", str(tmp_path), "--manual-dir", str(viper.parent)]) == 1
    out = capsys.readouterr().out
    assert "has no cam_b; give a complete copy" in out
    assert "not named like 001_45.bmp: first.bmp" in out
    assert "expected 8 images in cam_b, found 0" in out
    assert "expected 8 images in cam_a, found 7" in out


def test_no_copy_at_all(tmp_path):
    assert examined(tmp_path).problems == [
        f"there is no folder {tmp_path / 'manual'}: create it and {Viper.ARCHIVE.instructions}"
    ]
    (tmp_path / "data/downloads/manual").mkdir(parents=True)
    (problem,) = examine("viper", data_dir=tmp_path / "data").problems  # where a build would look
    assert problem.startswith(f"found neither VIPeR/ nor VIPeR.v1.0.zip nor VIPeR.zip in {tmp_path}/data/downloads")


@pytest.mark.parametrize(
    "spec", [spec for name in DATASETS if (cls := builder_class(name)).ARCHIVE for spec in cls.specs()]
)
def test_empty_folders_of_any_data_set_are_explained(tmp_path, spec):
    archive = builder(spec).archive
    for part in archive.holds:
        path = tmp_path / "manual" / archive.folder / part
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix:
            path.touch()
        else:
            path.mkdir()
    assert examined(tmp_path, spec).problems
    path.unlink() if path.suffix else path.rmdir()
    assert examined(tmp_path, spec).problems


def test_up_to_five_misnamed_files_are_named_and_all_counted(viper, tmp_path):
    for identity in range(7):
        (viper / f"cam_a/{identity:03d}_45.bmp").rename(viper / f"cam_a/p{identity}.bmp")
    problems = examined(tmp_path).problems
    assert (
        f"in {viper / 'cam_a'} 7 images are not named like 001_45.bmp: "
        "p0.bmp, p1.bmp, p2.bmp, p3.bmp, p4.bmp and 2 more"
    ) in problems


def test_a_miscount_is_told_for_every_part(tmp_path, monkeypatch, write_image):
    for part, names in {
        "bounding_box_train": ["0001_c1s1_000151_00.jpg"],
        "query": ["0002_c1s1_000151_00.jpg"],
        "bounding_box_test": ["0002_c2s1_000151_00.jpg"],
    }.items():
        for name in names:
            write_image(tmp_path / "manual/Market-1501-v15.09.15" / part / name)
    monkeypatch.setattr(Market, "VALIDATION_IDENTITIES", 1)
    diagnosis = examined(tmp_path, "market1501")
    found = [problem.split(":")[0] for problem in diagnosis.problems]
    assert found == [
        "expected 12936 images in bounding_box_train, found 1",
        "expected 3368 images in query, found 1",
        "expected 19732 images in bounding_box_test, found 1",
        "expected 15913 images in bounding_box_test without junk, found 1",
    ]
    assert any(note.startswith("protocol market: its first trial has 1 queries, 1 of") for note in diagnosis.notes)


def test_damaged_images_are_named(viper, tmp_path):
    for identity in range(7):
        (viper / f"cam_b/{identity:03d}_90.bmp").write_bytes(b"")
    (problem,) = examined(tmp_path).problems
    assert problem.startswith(
        "16 of 16 images were decoded, and 7 could not be: cam_b/000_90.bmp, cam_b/001_90.bmp, cam_b/002_90.bmp, "
        "cam_b/003_90.bmp, cam_b/004_90.bmp and 2 more; for one, the image "
    )


def test_a_sample_is_of_the_whole_data_set(viper, tmp_path, monkeypatch):
    monkeypatch.setattr("tfds_builders.doctor.SAMPLE", 8)
    for image in (viper / "cam_b").iterdir():  # the last of its images
        image.write_bytes(b"")
    (problem,) = examined(tmp_path).problems
    assert problem.startswith("8 of 16 images were decoded, and ") and "cam_b/" in problem


def test_a_sample_is_decoded_unless_all_are_asked_for(viper, tmp_path, monkeypatch):
    monkeypatch.setattr("tfds_builders.doctor.SAMPLE", 5)
    assert examined(tmp_path).notes[-1] == "5 of 16 images were decoded, and all of those are sound"
    assert examined(tmp_path).notes == examined(tmp_path).notes
    assert examined(tmp_path, every_image=True).notes[-1].startswith("16 of 16 images were decoded")


def folder(tmp_path, write_image, *files):
    for file in files:
        write_image(tmp_path / "images" / file)
    return {"name": "folder", "root": tmp_path / "images", "pattern": PATTERN}


@pytest.mark.parametrize(
    "files, reason",
    [
        (
            ["query/1_c1_a.jpg", "query/2_c1_a.jpg", "gallery/1_c1_b.jpg", "gallery/2_c1_b.jpg"],
            "all query and gallery images are of camera 1, and an image of the query's own identity and camera does "
            "not count",
        ),
        (
            ["query/1_c1.jpg", "gallery/2_c2.jpg", "gallery/3_c2.jpg"],
            "no identity is in both query and gallery: the queries show identities 1, the gallery 2, 3",
        ),
        (
            ["query/1_c1_a.jpg", "gallery/1_c1_b.jpg", "gallery/2_c2.jpg"],
            "all gallery images of a query's identity are of its own camera, or of one that the protocol ignores",
        ),
        (
            ["train/2_c1.jpg", "gallery/1_c1_b.jpg"],
            "no image has the split query; the splits there are gallery, train",
        ),
        (
            ["query/1_c1.jpg", "train/2_c1.jpg"],
            "no image has the split gallery; the splits there are query, train",
        ),
    ],
)
def test_why_no_query_has_a_match(tmp_path, write_image, files, reason):
    diagnosis = examined(tmp_path, folder(tmp_path, write_image, *files))
    assert diagnosis.problems == [f"protocol market: no query has a valid match: {reason}"]


def test_all_cameras_equal_in_a_folder_has_code_1(tmp_path, write_image, capsys):
    spec = folder(tmp_path, write_image, "query/1_c1_a.jpg", "gallery/1_c1_b.jpg", "other.jpg")
    arguments = ["--root", str(spec["root"]), "--pattern", PATTERN, "--data-dir", str(tmp_path / "data")]
    assert main(["doctor", "folder", *arguments]) == 1
    out = capsys.readouterr().out
    assert out.startswith("folder: 1 problem\n- protocol market: no query has a valid match: all query and gallery")
    assert "1 of 3 images do not match the pattern and are left out, such as other.jpg" in out


@pytest.mark.parametrize(
    ("files", "problems", "notes"),
    [
        (  # one camera for all
            [f"{identity}_c1_{shot}.jpg" for identity in (1, 2) for shot in (1, 2)],
            ["protocol market: no query has a valid match: all query and gallery images are of camera 1, and an "],
            ["1 of 2 protocols can be scored: set evaluate.protocol to same_camera"],
        ),
        (  # one image an identity
            [f"{identity}_c{identity}_1.jpg" for identity in (1, 2, 3)],
            ["protocol market: no query has a valid match: no image has the split gallery; "],
            [
                "no test identity has a second image, so no query has a match in the gallery; "
                "add images of each identity"
            ],
        ),
        (  # one identity
            ["1_c1_1.jpg", "1_c1_2.jpg", "1_c2_1.jpg", "1_c2_2.jpg"],
            [],
            ["there is only one identity: half of it is none, so no image is left to train on; add other identities"],
        ),
    ],
)
def test_small_folders_are_told_what_they_lack(tmp_path, write_image, files, problems, notes):
    spec = folder(tmp_path, write_image, *files) | {"pattern": r"(?P<person>\d+)_c(?P<camera>\d)"}
    found = examined(tmp_path, spec)
    assert len(found.problems) == len(problems)
    assert all(problem.startswith(start) for problem, start in zip(found.problems, problems, strict=True))
    assert set(notes) <= set(found.notes)


def test_a_folders_warnings_are_notes(tmp_path, write_image, recwarn):
    names = ("1_c1.jpg", "1_cx.jpg", "1_c2.jpg", "2_c1.jpg", "0_c1.jpg", "-1_c1.jpg", "cover.jpg", "pipe.jpg/1.txt")
    spec = folder(tmp_path, write_image, *names[:-1]) | {"pattern": r"(?P<person>\d+)_c(?P<camera>\w)"}
    (tmp_path / "images/pipe.jpg").symlink_to("nowhere")
    (tmp_path / "images/labels.csv").touch()
    notes = examined(tmp_path, spec).notes
    for start in (
        f"{tmp_path}/images/pipe.jpg is a link that leads nowhere",
        f"in {tmp_path}/images 1 file is left out, without an image's suffix, such as labels.csv",
        "1 of 7 images do not match the pattern and are left out, such as cover.jpg",
        "1 of 7 images have a minus sign before their identity, such as -1_c1.jpg, which counts",
        "1 image is of identity -1: junk",
        "1 image is of identity 0: a distractor",
        "the camera x has no number from 0 to 2^63 - 1, so all are numbered anew: 1 is 1, 2 is 2, x is 3",
    ):
        assert [note for note in notes if note.startswith(start)], start
    assert not [warning for warning in recwarn if "folder: " in str(warning.message)]


@pytest.mark.parametrize(
    ("count", "start"),
    [
        (1, "1 image is of identity 0: a distractor, which matches no query; if it is one of your"),
        (2, "2 images are of identity 0: distractors, which match no query; if it is one of your"),
    ],
)
def test_images_of_identity_0_are_told_to_be_distractors(tmp_path, write_image, count, start):
    distractors = [f"gallery/0_c{camera}.jpg" for camera in range(count)]
    found = examined(tmp_path, folder(tmp_path, write_image, "query/1_c1.jpg", "gallery/1_c2.jpg", *distractors))
    (note,) = (note for note in found.notes if "identity 0" in note)
    assert note.startswith(start)


def test_wrong_labels_of_a_folder_are_all_told(tmp_path, write_image):
    files = [f"probe/{identity}_c1.jpg" for identity in range(1, 8)]
    problems = examined(tmp_path, folder(tmp_path, write_image, *files, "query/1_c1.jpg", "gallery/1_c2.jpg")).problems
    assert len(problems) == 6
    assert problems[0].endswith("1_c1.jpg has the split 'probe': use train, query, gallery")
    assert problems[5] == "2 more images have such a label"


def test_unknown_name_is_one_sentence_and_code_1(tmp_path, capsys):
    assert main(["doctor", "vipr", "--data-dir", str(tmp_path)]) == 1
    assert "did you mean viper?" in capsys.readouterr().err


def records(identities, cameras, shots):
    return [
        Record(identity, camera, f"{identity}_{camera}_{shot}", None)
        for identity in identities
        for camera in cameras
        for shot in range(shots)
    ]


@pytest.mark.parametrize(
    "options, gallery",
    [
        ({}, 2 * 2 * 3 + 2 * 3),
        ({"shots": 1}, 2 + 2 * 3),
        ({"shots": 2, "shots_per_camera": True}, 2 * 2 * 2 + 2 * 3),
        ({"gallery_files": [["1_2_0", "2_3_1"], ["1_2_0"]]}, 2),
    ],
)
def test_the_first_trial_of_a_drawn_gallery(options, gallery):
    protocol = {
        "kind": "trials",
        "test_identities": [[1, 2], [3]],
        "query_cameras": [1],
        "gallery_cameras": [2, 3],
        "distractors": [9],
    }
    found = first_trial(records((1, 2, 3, 9), (1, 2, 3), 3), protocol | options)
    assert (len(found[0]), len(found[1])) == (2 * 3, gallery)


def test_the_first_trial_of_two_random_cameras():
    protocol = {"kind": "trials", "test_identities": [[1, 2, 3]], "two_random_cameras": True, "shots": 1}
    seen = records((1, 2), (1, 2, 3), 2) + records((3,), (1,), 2)
    query, gallery = first_trial(seen, protocol)
    assert [record.identity for record in query] == [record.identity for record in gallery] == [1, 2]
    assert all(one.camera != other.camera for one, other in zip(query, gallery, strict=True))
    diagnosis = Diagnosis()
    look_at_protocol("single_shot", protocol, records((1, 2), (1,), 2), diagnosis)
    assert diagnosis.problems[0].endswith("no query has a valid match: no test identity is seen by two cameras")


def test_multi_query_images_have_no_part_in_a_drawn_trial():
    drawn = {"kind": "trials", "test_identities": [[1, 2]], "query_cameras": [1], "gallery_cameras": [2]}
    more = [dataclasses.replace(record, split=MULTI_QUERY) for record in records((1, 2), (1, 2), 3)]
    query, gallery = first_trial(records((1, 2), (1, 2), 2) + more, drawn)
    assert (len(query), len(gallery)) == (4, 4)


def test_ignored_cameras_take_matches_away():
    protocol = {"kind": "trials", "test_identities": [[1]], "query_cameras": [3], "gallery_cameras": [2]}
    free, ignoring = Diagnosis(), Diagnosis()
    look_at_protocol("all", protocol, records((1,), (2, 3), 1), free)
    look_at_protocol("all", protocol | {"ignored_cameras": [[3, 2]]}, records((1,), (2, 3), 1), ignoring)
    assert free.problems == []
    assert ignoring.problems[0].endswith("or of one that the protocol ignores")


def test_cameras_that_nobody_is_seen_by():
    protocol = {"kind": "trials", "test_identities": [[1]], "query_cameras": [1], "gallery_cameras": [2]}
    diagnosis = Diagnosis()
    look_at_protocol("all", protocol, records((1,), (1, 4), 1), diagnosis)
    assert diagnosis.problems[0].endswith("no test identity has an image of camera 2; the cameras there are 1, 4")
