"""Features are kept with a run, taken where they still hold, made anew where they do not."""

import errno
import json
import os
import time

import keras
import numpy as np
import pytest
from conftest import SIZE, extract_roles, make_records

from tf_reid.data.records import Records
from tf_reid.evaluation import extraction, feature_store
from tf_reid.evaluation.feature_store import Store, can_keep
from tf_reid.metrics.protocols import Trial


@pytest.fixture
def records():
    return make_records(np.arange(9), np.ones(9, np.int64))


@pytest.fixture
def looked_at(monkeypatch):
    """The records that go through an encoder."""
    seen, original = [], extraction.feature_batches

    def watched(encoder, records, *rest):
        seen.extend(int(name.split(".")[0]) for name in records.file)
        return original(encoder, records, *rest)

    monkeypatch.setattr(extraction, "feature_batches", watched)
    return seen


def extracted(encoder, records, folder, query, gallery, **options):
    trial = Trial("", np.array(query), np.array(gallery), False)
    encoders = encoder if isinstance(encoder, dict) else {"image": encoder}
    store = Store(folder) if folder else None
    found = extract_roles(encoders, records, [trial], store=store, **options)
    if store:
        store.remove_the_rest()
    return found


def kept(folder):
    """What the lists of filled rows say, by role; every file belongs to one of them."""
    lists = {path.name.split("_")[0]: json.loads(path.read_text()) for path in folder.glob("*.json")}
    assert {path.name for path in folder.glob("*.npy")} == {one["features"] for one in lists.values()}
    assert len(list(folder.iterdir())) == 2 * len(lists)
    return {role: one["rows"] for role, one in lists.items()}


def test_a_second_scoring_looks_at_new_images_alone(records, encoder, tmp_path, looked_at, monkeypatch):
    monkeypatch.setattr(feature_store, "ROWS", 2)
    expected, _ = extracted(encoder, records, None, range(9), range(9))
    looked_at.clear()
    first, _ = extracted(encoder, records, tmp_path, [1, 2], [4, 5, 6], batch_size=2)
    assert looked_at == [1, 2, 4, 5, 6]
    assert kept(tmp_path) == {"image": [[1, 3], [4, 7]]}
    again, _ = extracted(encoder, records, tmp_path, [5], [2, 4])
    assert looked_at == [1, 2, 4, 5, 6]
    more, _ = extracted(encoder, records, tmp_path, [0, 1], [4, 8])
    assert looked_at == [1, 2, 4, 5, 6, 0, 8]
    for found, rows in ((first, [1, 2, 4, 5, 6]), (again, [1, 2, 4, 5, 6]), (more, [0, 1, 2, 4, 5, 6, 8])):
        assert isinstance(found, np.memmap) and found.shape == (9, 5) and found.dtype == np.float32
        np.testing.assert_allclose(found[rows], expected[rows], atol=1e-5)
    assert kept(tmp_path) == {"image": [[0, 3], [4, 7], [8, 9]]}


@pytest.mark.parametrize("change", ["weights", "flip", "images", "other records", "activation", "format"])
def test_what_no_longer_holds_is_made_anew(change, records, encoder, tmp_path, looked_at, monkeypatch):
    old, _ = extracted(encoder, records, tmp_path, [1], [2, 3])
    old, options = old[1:4].copy(), {}
    if change == "weights":
        encoder.set_weights([2 * values for values in encoder.get_weights()])
    elif change == "flip":
        options = {"flip": True}
    elif change == "activation":
        layers = [keras.Input((*SIZE, 3)), keras.layers.Flatten(), keras.layers.Dense(5, activation="relu")]
        other = keras.Sequential(layers)
        other.set_weights(encoder.get_weights())
        encoder = other
    elif change == "format":
        monkeypatch.setattr(feature_store, "FORMAT", feature_store.FORMAT + 1)
    elif change == "images":
        records.images[8] = records.images[8] + b" "
    else:
        records = records.take(np.arange(8))
    looked_at.clear()
    new, _ = extracted(encoder, records, tmp_path, [1], [2], **options)
    assert looked_at == [1, 2]
    expected, _ = extracted(encoder, records, None, [1], [2], **options)
    np.testing.assert_allclose(new[1:3], expected[1:3], atol=1e-5)
    assert np.allclose(new[1:3], old[:2], atol=1e-5) == (change not in ("weights", "flip", "activation"))
    assert len(new) == len(records)
    assert kept(tmp_path) == {"image": [[1, 3]]}  # of what was there before nothing is left


def test_an_encoder_is_known_again_whatever_was_made_before_it(records, tmp_path, looked_at):
    def made():
        keras.utils.set_random_seed(0)
        images = keras.Input((*SIZE, 3))
        x = keras.layers.Dense(5)(keras.layers.Flatten()(images))
        return keras.Model(images, keras.layers.Add()([x, keras.layers.ReLU()(x)]))

    extracted(made(), records, tmp_path, [1], [2])
    extracted(made(), records, tmp_path, [1], [2])
    assert looked_at == [1, 2]


def test_a_writing_that_fails_leaves_what_was_there(records, encoder, tmp_path, monkeypatch):
    extracted(encoder, records, tmp_path, [1], [2])

    def broken(encoder, records, *_):
        yield np.zeros((1, 5), np.float32)
        raise OSError("the disk is full")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="the disk is full"):
        patch.setattr(extraction, "feature_batches", broken)
        extracted(encoder, records, tmp_path, [1], [3, 4])
    assert kept(tmp_path) == {"image": [[1, 3]]}
    found, _ = extracted(encoder, records, tmp_path, [1], [2])
    expected, _ = extracted(encoder, records, None, [1], [2])
    np.testing.assert_allclose(found[1:3], expected[1:3], atol=1e-5)


def test_a_full_disk_is_an_error_before_anything_is_written_to_memory(records, encoder, tmp_path, monkeypatch):
    def full(descriptor, offset, length):
        assert (offset, length) == (0, os.fstat(descriptor).st_size) and length > 9 * 5 * 4
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(OSError, match="No space left on device"):
        extracted(encoder, records, tmp_path, [1], [2])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("same", [True, False])
def test_two_evaluations_at_once_vouch_for_their_own_arrays_alone(same, records, encoder, tmp_path, monkeypatch):
    extracted(encoder, records, tmp_path, [1], [2])
    other = keras.models.clone_model(encoder)
    other.set_weights([values * (1 if same else 2) for values in encoder.get_weights()])
    original, whole = extraction.feature_batches, records

    def interrupted(encoder, records, *rest):
        """While the first looks at its images, the second begins, ends, and clears up."""
        with monkeypatch.context() as patch:
            patch.setattr(extraction, "feature_batches", original)
            extracted(other, whole, tmp_path, [1, 7], [8])
        yield from original(encoder, records, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(extraction, "feature_batches", interrupted)
        found, _ = extracted(encoder, records, tmp_path, [1, 3], [4])
    for one in (encoder, other):
        expected, _ = extracted(one, records, None, range(9), range(9))
        again, _ = extracted(one, records, tmp_path, [1, 3, 7], [4, 8])
        np.testing.assert_allclose(again[[1, 3, 4, 7, 8]], expected[[1, 3, 4, 7, 8]], atol=1e-5)
        if one is encoder:
            np.testing.assert_allclose(found[[1, 3, 4]], expected[[1, 3, 4]], atol=1e-5)


def test_an_array_that_went_away_is_made_anew(records, encoder, tmp_path, looked_at):
    extracted(encoder, records, tmp_path, [1], [2])
    next(tmp_path.glob("*.npy")).unlink()
    extracted(encoder, records, tmp_path, [1], [2])
    assert looked_at == [1, 2, 1, 2] and kept(tmp_path) == {"image": [[1, 3]]}


def test_what_killed_processes_left_is_removed_and_what_is_being_written_is_not(records, encoder, tmp_path):
    for name, age in ((".image_0_1.npy", 0), (".image_0_2.npy", feature_store.ABANDONED + 60), ("raw_image.npy", 0)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    extracted(encoder, records, tmp_path, [1], [2])
    (tmp_path / ".image_0_1.npy").unlink()
    assert kept(tmp_path) == {"image": [[1, 3]]}


def test_representations_of_the_same_encoders_share_their_features(records, encoder, tmp_path, looked_at):
    store, trial = Store(tmp_path), Trial("", np.array([0, 1]), np.array([1, 2]), False)
    other = keras.models.clone_model(encoder)
    for _ in range(2):
        extract_roles({"probe": encoder, "gallery": other}, records, [trial], store=store)
    assert looked_at == [0, 1, 1, 2]


def test_of_encoders_that_are_called_together_only_missing_rows_are_looked_at(records, encoder, tmp_path, looked_at):
    other = keras.Model(encoder.input, keras.layers.Dense(3)(encoder.output))
    sets, store = {"a": {"image": encoder}, "b": {"image": other}}, Store(tmp_path)

    def together(query, gallery):
        trial = Trial("", np.array(query), np.array(gallery), False)
        return extraction.extract_together(sets, records, [trial], SIZE, store=store)

    extracted(encoder, records, tmp_path, [1], [2])
    looked_at.clear()
    together([1], [2])
    assert looked_at == [1, 2]  # by the second encoder alone
    found = together([1], [2, 4])
    assert looked_at == [1, 2, 4]  # by both
    for name, encoders in sets.items():
        expected, _ = extracted(encoders["image"], records, None, [1], [2, 4])
        np.testing.assert_allclose(found[name][0][[1, 2, 4]], expected[[1, 2, 4]], atol=1e-5)
    store.remove_the_rest()
    assert len(list(tmp_path.iterdir())) == 4


def test_each_role_has_a_file(records, encoder, tmp_path, looked_at):
    other = keras.models.clone_model(encoder)
    query, gallery = extracted({"probe": encoder, "gallery": other}, records, tmp_path, [0, 1], [1, 2])
    assert kept(tmp_path) == {"probe": [[0, 2]], "gallery": [[1, 3]]}
    assert looked_at == [0, 1, 1, 2] and not np.allclose(query[1], gallery[1])

    modality = np.where(np.arange(9) % 2, "infrared", "rgb")
    mixed = Records(**{**records.__dict__, "modality": modality})
    found, _ = extracted({"rgb": encoder, "ir": other}, mixed, tmp_path, range(4), range(4))
    expected, _ = extracted({"rgb": encoder, "ir": other}, mixed, None, range(4), range(4))
    np.testing.assert_allclose(found[:4], expected[:4], atol=1e-5)
    assert kept(tmp_path) == {"image": [[0, 4]]}


def test_only_what_keras_models_make_is_kept(encoder):
    assert can_keep({"rgb": encoder, "ir": encoder})
    assert not can_keep({"probe": encoder, "gallery": lambda images: images})
