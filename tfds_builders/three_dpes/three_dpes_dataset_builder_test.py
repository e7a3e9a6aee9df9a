"""3DPeS on a tiny tree in either layout."""

import pytest

import tfds_builders
from tfds_builders.doctor import examine
from tfds_builders.three_dpes.three_dpes_dataset_builder import Builder

SEEN_ONCE = 9  # of identities 1 to 9, each of the others in two sequences


@pytest.fixture(params=["3DPeS", "3DPeS/RGB"])
def tiny(tmp_path, monkeypatch, write_image, request):
    for identity in range(1, SEEN_ONCE + 1):
        for sequence in ("7", f"{identity}0", f"B_{identity}1")[: 1 if identity == SEEN_ONCE else 3]:
            write_image(tmp_path / f"manual/{request.param}/{identity}_{sequence}_FRAME_26_RGB.bmp")
    monkeypatch.setattr(Builder, "IMAGES", (25,))
    monkeypatch.setattr(Builder, "TEST_IDENTITIES", 4)
    return tmp_path


def build(tiny):
    return tfds_builders.prepare(tfds_builders.builder("three_dpes", data_dir=tiny / "data"), tiny / "manual")


def test_official_counts():
    assert Builder.IMAGES == (1012, 1011)
    assert (Builder.TEST_IDENTITIES, Builder.DRAWS) == (96, 10)


def test_a_sequence_is_a_camera_and_splits_follow_trial_0(tiny, read_back):
    builder = build(tiny)
    splits = read_back(builder)
    protocol = builder.info.metadata["protocols"]["random_96"]
    test = set(protocol["test_identities"][0])
    assert len(test) == 4 and SEEN_ONCE not in test
    assert len(protocol["test_identities"]) == 10 and len({tuple(sorted(t)) for t in protocol["test_identities"]}) > 1
    assert (protocol["two_random_cameras"], protocol["shots"], protocol["repeats"]) == (True, 1, 10)
    assert {split: {e["identity"] for e in examples.values()} for split, examples in splits.items()} == {
        "train": set(range(1, 10)) - test,
        "query": test,
        "gallery": test,
    }
    assert {e["camera"] for e in splits["query"].values()} == {7}
    assert {e["camera"] for e in splits["gallery"].values()} == {10 * t + more for t in test for more in (0, 1)}


def test_the_doctor_finds_the_identities_of_the_first_trial(tiny):
    diagnosis = examine("three_dpes", data_dir=tiny / "data", manual_dir=tiny / "manual")
    assert not diagnosis.problems
    assert any("random_96: its first trial has 4 queries, 4 of them with a match" in note for note in diagnosis.notes)


def test_an_incomplete_copy_is_refused(tiny):
    next((tiny / "manual/3DPeS").rglob("3_7_*.bmp")).unlink()
    with pytest.raises(tfds_builders.DatasetError, match=r"expected 25 images in .*3DPeS.*, found 24"):
        build(tiny)
