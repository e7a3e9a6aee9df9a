"""PRID 2011 on a tiny tree in the official layout."""

import tfds_builders
from tfds_builders.prid2011.prid2011_dataset_builder import Builder


def test_official_counts():
    assert Builder.COUNTS == {"cam_a": 385, "cam_b": 749}
    assert (Builder.SHARED, Builder.TEST_PERSONS) == (200, 100)


def test_only_shared_persons_are_sought_among_all_of_camera_b(tmp_path, monkeypatch, write_image, read_back):
    for part, count in {"cam_a": 6, "cam_b": 9}.items():
        for person in range(1, count + 1):
            write_image(tmp_path / f"manual/prid_2011/single_shot/{part}/person_{person:04d}.png")
    monkeypatch.setattr(Builder, "COUNTS", {"cam_a": 6, "cam_b": 9})
    monkeypatch.setattr(Builder, "SHARED", 4)
    monkeypatch.setattr(Builder, "TEST_PERSONS", 2)
    builder = tfds_builders.builder("prid2011", data_dir=tmp_path / "data")
    splits = read_back(tfds_builders.prepare(builder, tmp_path / "manual"))

    protocol = builder.info.metadata["protocols"]["split_100"]
    test = set(protocol["test_persons"][0])
    assert protocol["distractors"] == [5, 6, 7, 8, 9]
    assert {person for trial in protocol["test_persons"] for person in trial} <= {1, 2, 3, 4}
    assert {(e["person"], e["camera"]) for e in splits["query"].values()} == {(person, 1) for person in test}
    assert {(e["person"], e["camera"]) for e in splits["gallery"].values()} == {
        (person, 2) for person in test | {5, 6, 7, 8, 9}
    }
    assert {(e["person"], e["camera"]) for e in splits["train"].values()} == {
        (person, camera) for person in {1, 2, 3, 4} - test for camera in (1, 2)
    }
    stored = splits["query"][f"cam_a/person_{min(test):04d}.png"]["image"]
    assert stored == (tmp_path / f"manual/prid_2011/single_shot/cam_a/person_{min(test):04d}.png").read_bytes()
