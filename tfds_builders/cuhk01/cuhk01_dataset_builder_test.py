"""CUHK01 on a tiny tree in the official layout."""

import tfds_builders
from tfds_builders.cuhk01.cuhk01_dataset_builder import Builder


def test_official_counts():
    assert Builder.COUNTS == {"campus": 3884}
    assert Builder.TEST_IDENTITIES == {"split_486": 486, "split_100": 100}


def test_splits_views_and_protocols(tmp_path, monkeypatch, write_image, read_back):
    for identity in range(1, 6):
        for image in range(1, 5):
            write_image(tmp_path / f"manual/campus/{identity:04d}{image:03d}.png")
    monkeypatch.setattr(Builder, "COUNTS", {"campus": 20})
    monkeypatch.setattr(Builder, "TEST_IDENTITIES", {"split_486": 3, "split_100": 1})
    builder = tfds_builders.builder("cuhk01", data_dir=tmp_path / "data")
    splits = read_back(tfds_builders.prepare(builder, tmp_path / "manual"))

    assert {split: len(examples) for split, examples in splits.items()} == {
        "train": 8,
        "query": 6,
        "gallery": 6,
    }
    assert {(file[-7:-4], e["camera"]) for file, e in splits["query"].items()} == {("001", 1), ("002", 1)}
    assert {(file[-7:-4], e["camera"]) for file, e in splits["gallery"].items()} == {("003", 2), ("004", 2)}
    for examples in splits.values():
        for file, example in examples.items():
            assert example["image"] == (tmp_path / "manual" / file).read_bytes()

    metadata = builder.info.metadata
    assert metadata["default_protocol"] == "split_486"
    assert {e["identity"] for e in splits["query"].values()} == set(
        metadata["protocols"]["split_486"]["test_identities"][0]
    )
    shots = {name: protocol["shots"] for name, protocol in metadata["protocols"].items()}
    assert shots == {"split_486": 1, "split_486_multi": None, "split_100": 1, "split_100_multi": None}
    assert {len(trial) for trial in metadata["protocols"]["split_100"]["test_identities"]} == {1}
