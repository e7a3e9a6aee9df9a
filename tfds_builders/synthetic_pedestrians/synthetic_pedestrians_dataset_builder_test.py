"""Synthetic pedestrians with few identities and a renderer that says what it was asked for."""

import functools
import subprocess

import cv2
import numpy as np
import pytest

import tfds_builders
from tfds_builders import base
from tfds_builders.synthetic_pedestrians import synthetic_pedestrians_dataset_builder as module
from tfds_builders.synthetic_pedestrians.rendering import lookalikes, render
from tfds_builders.synthetic_pedestrians.rendering_process import images_of
from tfds_builders.synthetic_pedestrians.synthetic_pedestrians_dataset_builder import Builder


def flat_color(place, identity, camera, shot, seed=0):
    return np.full((128, 64, 3), (40 * identity, 30 * camera, 100 * shot), np.uint8)


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    monkeypatch.setattr(Builder, "TRAIN_IDENTITIES", 3)
    monkeypatch.setattr(Builder, "TEST_IDENTITIES", 2)
    monkeypatch.setattr(Builder, "MORE_IDENTITIES", 4)
    monkeypatch.setattr(Builder, "MANY_TRAIN_IDENTITIES", 5)
    monkeypatch.setattr(module, "render", flat_color)
    return tmp_path


def build(tiny, place, kind="images"):
    return tfds_builders.prepare(tfds_builders.builder(f"synthetic_pedestrians/{place}", kind=kind, data_dir=tiny))


def test_official_sizes():
    assert (Builder.TRAIN_IDENTITIES, Builder.TEST_IDENTITIES, Builder.SHOTS) == (150, 100, 2)
    assert Builder.MANY_TRAIN_IDENTITIES + Builder.TEST_IDENTITIES == 1000


def test_the_many_identities_are_none_of_the_few(tmp_path):
    """So one may train on `street_1000` and test on `street`, whose population it is."""
    few, more, many = (
        tfds_builders.builder(f"synthetic_pedestrians/{variant}", data_dir=tmp_path)
        for variant in ("street", "street_night", "street_1000")
    )
    assert few.population == more.population == many.population
    numbers = [{record.identity for record in builder.read(None)[0]} for builder in (few, more, many)]
    assert (len(numbers[0]), len(numbers[1]), len(numbers[2])) == (250, 500, 1000)
    assert not (numbers[0] | numbers[1]) & numbers[2]
    # Nor are the nearest of them of one group, which is dressed alike.
    assert not set(lookalikes("city", max(numbers[1]))) & set(lookalikes("city", min(numbers[2])))


def test_the_many_identities_are_mostly_to_train_on(tiny, read_back):
    splits, cameras = read_back(build(tiny, "street_1000")), (1, 2, 3, 4)
    found = {
        split: sorted((e["identity"], e["camera"]) for e in examples.values()) for split, examples in splits.items()
    }
    assert found == {
        "train": [(identity, camera) for identity in range(1001, 1006) for camera in cameras for _ in "01"],
        "query": [(identity, camera) for identity in (1006, 1007) for camera in cameras],
        "gallery": [(identity, camera) for identity in (1006, 1007) for camera in cameras],
    }
    metadata = tfds_builders.builder("synthetic_pedestrians/street_1000", data_dir=tiny).info.metadata
    assert metadata["default_protocol"] == "market"
    assert metadata["protocols"]["two_cameras"]["test_identities"] == [[1006, 1007]]


@pytest.mark.parametrize(
    "place, cameras, modality",
    [
        ("street", {1, 2, 3, 4}, {0}),
        ("station", {1, 2, 3, 4}, {0}),
        ("night", {5, 6}, {1}),
    ],
)
def test_every_identity_is_seen_twice_by_every_camera(tiny, read_back, place, cameras, modality):
    splits = read_back(build(tiny, place))
    found = {
        split: {(e["identity"], e["camera"], file[-5]) for file, e in examples.items()}
        for split, examples in splits.items()
    }
    assert found == {
        "train": {(identity, camera, shot) for identity in (1, 2, 3) for camera in cameras for shot in "01"},
        "query": {(identity, camera, "0") for identity in (4, 5) for camera in cameras},
        "gallery": {(identity, camera, "1") for identity in (4, 5) for camera in cameras},
    }
    assert {e["modality"] for examples in splits.values() for e in examples.values()} == modality


def test_street_and_night_together_have_more_identities_to_train_on(tiny, read_back):
    splits, cameras = read_back(build(tiny, "street_night")), (1, 2, 3, 4, 5, 6)
    found = {
        split: sorted((e["identity"], e["camera"]) for e in examples.values()) for split, examples in splits.items()
    }
    twice = [(identity, camera) for identity in (1, 2, 3) for camera in cameras] * 2
    assert found == {
        "train": sorted(twice + [(identity, camera) for identity in (6, 7, 8, 9) for camera in cameras]),
        "query": [(identity, camera) for identity in (4, 5) for camera in cameras],
        "gallery": [(identity, camera) for identity in (4, 5) for camera in cameras],
    }
    assert {(e["camera"] > 4) == e["modality"] for e in splits["train"].values()} == {True}


def test_infrared_cameras_are_scored_against_colour_ones(tiny):
    metadata = build(tiny, "street_night").info.metadata
    assert metadata["default_protocol"] == "all_single"
    single, multi = (metadata["protocols"][name] for name in ("all_single", "all_multi"))
    for protocol in (single, multi):
        assert (protocol["query_cameras"], protocol["gallery_cameras"]) == ([5, 6], [1, 2, 3, 4])
        assert protocol["test_identities"] == [[4, 5]] and protocol["cmc"] == "identity"
    assert (single["shots"], single["shots_per_camera"], single["repeats"]) == (1, True, 10)
    assert multi["shots"] is None


def test_two_cameras_of_street_are_a_protocol(tiny):
    protocol = build(tiny, "street").info.metadata["protocols"]["two_cameras"]
    assert (protocol["query_cameras"], protocol["gallery_cameras"]) == ([1], [2])
    assert (protocol["shots"], protocol["repeats"], protocol["test_identities"]) == (1, 10, [[4, 5]])


def test_image_is_the_one_rendered(tiny, read_back):
    examples = read_back(build(tiny, "street"))["gallery"]
    data = examples["street/0005_c4_1.jpg"]["image"]
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert pixels.shape == (128, 64, 3)
    assert np.abs(pixels.astype(int) - flat_color("street", 5, 4, 1)).max() < 4  # JPEG


def test_renderer_agrees_with_the_builder(tmp_path, monkeypatch, read_back):
    monkeypatch.setattr(Builder, "TRAIN_IDENTITIES", 1)
    monkeypatch.setattr(Builder, "TEST_IDENTITIES", 1)
    first, second = (read_back(build(tmp_path / copy, "night")) for copy in ("first", "second"))
    assert first == second
    assert len({e["image"] for examples in first.values() for e in examples.values()}) == 8


def test_many_images_are_rendered_by_processes_and_are_the_same(tmp_path, monkeypatch, read_back):
    monkeypatch.setattr(Builder, "TRAIN_IDENTITIES", 1)
    monkeypatch.setattr(Builder, "TEST_IDENTITIES", 1)
    here = read_back(build(tmp_path / "here", "night"))
    started = []
    monkeypatch.setattr(module, "BLOCK", 3)
    monkeypatch.setattr(module, "images_of", lambda block: (started.append(len(block)), images_of(block))[1])
    assert read_back(build(tmp_path / "there", "night")) == here
    assert sorted(started) == [1, 3]  # the four images to train on; the queries and the gallery are few


def test_a_process_that_cannot_render_is_an_error():
    record = base.Record(1, 1, "a.jpg", functools.partial(render, "moon", 1, 1, 0))
    with pytest.raises(subprocess.CalledProcessError):
        images_of([record])


def test_a_variant_must_be_named(tmp_path):
    with pytest.raises(tfds_builders.DatasetError, match="choose one of synthetic_pedestrians/street"):
        tfds_builders.builder("synthetic_pedestrians", data_dir=tmp_path)
    with pytest.raises(tfds_builders.DatasetError, match="no variant moon"):
        tfds_builders.builder("synthetic_pedestrians/moon", data_dir=tmp_path)
