"""Features are kept with a run, taken where they still hold, made anew where they do not."""

import json

import keras
import numpy as np
import pytest
from conftest import SIZE, make_records

from tf_reid import data, feature_store, scoring
from tf_reid.feature_store import Store, can_keep
from tf_reid.protocols import Trial


@pytest.fixture
def records():
    return make_records(np.arange(9), np.ones(9, np.int64))


@pytest.fixture
def encoder():
    keras.utils.set_random_seed(0)
    images = keras.Input((*SIZE, 3))
    return keras.Model(images, keras.layers.Dense(5)(keras.layers.Flatten()(images)))


@pytest.fixture
def looked_at(monkeypatch):
    """The records that go through an encoder."""
    seen, original = [], scoring.feature_batches

    def watched(encoder, records, *rest):
        seen.extend(int(name.split(".")[0]) for name in records.file)
        return original(encoder, records, *rest)

    monkeypatch.setattr(scoring, "feature_batches", watched)
    return seen


def extracted(encoder, records, folder, query, gallery, **options):
    trial = Trial("", np.array(query), np.array(gallery), False)
    encoders = encoder if isinstance(encoder, dict) else {"image": encoder}
    store = Store(folder, "raw") if folder else None
    return scoring.extract_roles(encoders, records, [trial], SIZE, store=store, **options)


def test_a_second_scoring_looks_at_new_images_alone(records, encoder, tmp_path, looked_at, monkeypatch):
    monkeypatch.setattr(feature_store, "ROWS", 2)
    expected, _ = extracted(encoder, records, None, range(9), range(9))
    looked_at.clear()
    first, _ = extracted(encoder, records, tmp_path, [1, 2], [4, 5, 6], batch_size=2)
    assert looked_at == [1, 2, 4, 5, 6]
    assert json.loads((tmp_path / "raw_image.json").read_text())["rows"] == [[1, 3], [4, 7]]
    again, _ = extracted(encoder, records, tmp_path, [5], [2, 4])
    assert looked_at == [1, 2, 4, 5, 6]
    more, _ = extracted(encoder, records, tmp_path, [0, 1], [4, 8])
    assert looked_at == [1, 2, 4, 5, 6, 0, 8]
    for found, rows in ((first, [1, 2, 4, 5, 6]), (again, [1, 2, 4, 5, 6]), (more, [0, 1, 2, 4, 5, 6, 8])):
        assert isinstance(found, np.memmap) and found.shape == (9, 5) and found.dtype == np.float32
        np.testing.assert_allclose(found[rows], expected[rows], atol=1e-5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["raw_image.json", "raw_image.npy"]


@pytest.mark.parametrize("change", ["weights", "flip", "images", "other records"])
def test_what_no_longer_holds_is_made_anew(change, records, encoder, tmp_path, looked_at):
    old, _ = extracted(encoder, records, tmp_path, [1], [2, 3])
    old, options = old[1:4].copy(), {}
    if change == "weights":
        encoder.set_weights([2 * values for values in encoder.get_weights()])
    elif change == "flip":
        options = {"flip": True}
    elif change == "images":
        records.images[8] = records.images[8] + b" "
    else:
        records = records.take(np.arange(8))
    looked_at.clear()
    new, _ = extracted(encoder, records, tmp_path, [1], [2], **options)
    assert looked_at == [1, 2]
    expected, _ = extracted(encoder, records, None, [1], [2], **options)
    np.testing.assert_allclose(new[1:3], expected[1:3], atol=1e-5)
    assert np.allclose(new[1:3], old[:2], atol=1e-5) == (change not in ("weights", "flip"))
    assert len(new) == len(records)


def test_a_writing_that_fails_leaves_what_was_there(records, encoder, tmp_path, monkeypatch):
    extracted(encoder, records, tmp_path, [1], [2])

    def broken(encoder, records, *_):
        yield np.zeros((1, 5), np.float32)
        raise OSError("the disk is full")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="the disk is full"):
        patch.setattr(scoring, "feature_batches", broken)
        extracted(encoder, records, tmp_path, [1], [3, 4])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["raw_image.json", "raw_image.npy"]
    found, _ = extracted(encoder, records, tmp_path, [1], [2])
    expected, _ = extracted(encoder, records, None, [1], [2])
    np.testing.assert_allclose(found[1:3], expected[1:3], atol=1e-5)


def test_each_role_has_a_file(records, encoder, tmp_path, looked_at):
    other = keras.models.clone_model(encoder)
    query, gallery = extracted({"probe": encoder, "gallery": other}, records, tmp_path, [0, 1], [1, 2])
    assert {path.name for path in tmp_path.glob("*.npy")} == {"raw_probe.npy", "raw_gallery.npy"}
    assert looked_at == [0, 1, 1, 2] and not np.allclose(query[1], gallery[1])

    modality = np.where(np.arange(9) % 2, "infrared", "rgb")
    mixed = data.Records(**{**records.__dict__, "modality": modality})
    found, _ = extracted({"rgb": encoder, "ir": other}, mixed, tmp_path, range(4), range(4))
    expected, _ = extracted({"rgb": encoder, "ir": other}, mixed, None, range(4), range(4))
    np.testing.assert_allclose(found[:4], expected[:4], atol=1e-5)
    assert (tmp_path / "raw_image.npy").exists()


def test_only_what_weights_tell_is_kept(encoder):
    assert can_keep({"rgb": encoder, "ir": encoder, "similarity": lambda query, gallery: 0})
    assert not can_keep({"probe": encoder, "gallery": lambda images: images})
