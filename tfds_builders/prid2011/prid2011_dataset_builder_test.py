"""PRID 2011 on a tiny tree in the official layout."""

import tfds_builders
from tfds_builders.prid2011.prid2011_dataset_builder import Builder


def test_official_counts():
    assert Builder.COUNTS == {"cam_a": 385, "cam_b": 749}
    assert (Builder.SHARED, Builder.TEST_IDENTITIES) == (200, 100)


def test_only_shared_identities_are_sought_among_all_of_camera_b(tmp_path, monkeypatch, write_image, read_back):
    for part, count in {"cam_a": 6, "cam_b": 9}.items():
        for identity in range(1, count + 1):
            write_image(tmp_path / f"manual/prid_2011/single_shot/{part}/person_{identity:04d}.png")
    monkeypatch.setattr(Builder, "COUNTS", {"cam_a": 6, "cam_b": 9})
    monkeypatch.setattr(Builder, "SHARED", 4)
    monkeypatch.setattr(Builder, "TEST_IDENTITIES", 2)
    builder = tfds_builders.builder("prid2011", data_dir=tmp_path / "data")
    splits = read_back(tfds_builders.prepare(builder, tmp_path / "manual"))

    protocol = builder.info.metadata["protocols"]["split_100"]
    test = set(protocol["test_identities"][0])
    assert protocol["distractors"] == [5, 6, 7, 8, 9]
    assert {identity for trial in protocol["test_identities"] for identity in trial} <= {1, 2, 3, 4}
    assert {(e["identity"], e["camera"]) for e in splits["query"].values()} == {(identity, 1) for identity in test}
    assert {(e["identity"], e["camera"]) for e in splits["gallery"].values()} == {
        (identity, 2) for identity in test | {5, 6, 7, 8, 9}
    }
    assert {(e["identity"], e["camera"]) for e in splits["train"].values()} == {
        (identity, camera) for identity in {1, 2, 3, 4} - test for camera in (1, 2)
    }
    stored = splits["query"][f"cam_a/person_{min(test):04d}.png"]["image"]
    assert stored == (tmp_path / f"manual/prid_2011/single_shot/cam_a/person_{min(test):04d}.png").read_bytes()
