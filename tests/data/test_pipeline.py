"""The training pipeline."""

import cv2
import numpy as np
import pytest
import tensorflow as tf
from conftest import SIZE, make_records, stage_of
from odd_images import exif, picture, saved, stored, with_exif

from tf_reid.data import decoding, pipeline, samplers
from tfds_builders import DatasetError, images

IDENTITY = [1, 1, 1, 2, 2, 3, 4, 4, 4, 4]
CAMERA = [1, 1, 2, 1, 2, 1, 3, 3, 3, 3]


def batches(records, sampler, start=0, steps=6, seed=0, stage=0, flip=False, pad=0, **more):
    place = {"seed": seed, "stage": stage, "start": start, "steps": steps}
    return pipeline.training_batches(records, sampler, **place, image_size=SIZE, flip=flip, pad=pad, **more)


def test_batches_hold_the_drawn_images_and_labels_from_0():
    records = make_records(IDENTITY, CAMERA)
    sampler = samplers.pairs(records, stage_of(8))
    expected = sampler(np.random.default_rng([0, 0, 0]))["source"]
    batch = next(iter(batches({"source": records}, sampler)))
    assert batch["source"].shape == (4, 2, *SIZE, 3) and batch["source"].dtype == np.float32
    np.testing.assert_array_equal(pipeline.to_uint8(batch["source"])[:, :, 0, 0, 0], expected[0])
    np.testing.assert_array_equal(batch["source_identity"], records.identity[expected[0]] - 1)
    assert batch["source"].numpy().min() >= -1 and batch["source"].numpy().max() <= 1


def test_a_batch_is_a_function_of_seed_stage_and_step():
    domains = {"source": make_records(IDENTITY, CAMERA), "target": make_records([0] * 12, [1] * 12)}
    sampler = samplers.pairs_of_two_domains(domains["source"], stage_of(4), domains["target"])
    whole = list(batches(domains, sampler, flip=True, pad=3).as_numpy_iterator())
    later = list(batches(domains, sampler, start=4, flip=True, pad=3).as_numpy_iterator())
    others = [
        next(batches(domains, sampler, flip=True, pad=3, **place).as_numpy_iterator())
        for place in ({"seed": 1}, {"stage": 1})
    ]
    assert len(whole) == 6 and len(later) == 2
    for a, b in zip(whole[4:], later, strict=True):
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])
    assert all((other["source"] != whole[0]["source"]).any() for other in others)


def test_few_images_that_are_read_often_are_decoded_once(monkeypatch):
    encoded = make_records(IDENTITY, CAMERA, size=(64, 32)).images
    decoded = []
    monkeypatch.setattr(tf.io, "decode_image", lambda *a, to=tf.io.decode_image, **k: decoded.append(a) or to(*a, **k))
    once, seldom = (
        pipeline._reader(encoded, SIZE, reads=len(encoded) + 1),
        pipeline._reader(encoded, SIZE, reads=len(encoded)),
    )
    monkeypatch.setattr(pipeline, "DECODED_BYTES", len(encoded) * 3 * SIZE[0] * SIZE[1] - 1)
    many = pipeline._reader(encoded, SIZE, reads=len(encoded) + 1)
    for read, decodes in ((once, False), (seldom, True), (many, True)):
        decoded.clear()
        found = read(tf.constant([3, 5]))
        assert bool(decoded) == decodes
        assert found.shape == (2, *SIZE, 3) and found.dtype == tf.uint8
        np.testing.assert_array_equal(found, once(tf.constant([3, 5])))


def test_augmentation_mirrors_and_shifts_within_its_margin():
    records = make_records(IDENTITY, CAMERA)
    original = pipeline.to_uint8(np.concatenate(list(pipeline.image_batches(records, SIZE, 64))))
    sampler = samplers.pairs(records, stage_of(8))
    seen, shifts = {"mirrored": 0, "shifted": 0, "all": 0}, set()
    for batch in batches({"source": records}, sampler, steps=12, flip=True, pad=2):
        for image in pipeline.to_uint8(batch["source"]).reshape(-1, *SIZE, 3):
            index = image[..., 0].max()
            found = []
            for mirrored in (False, True):
                source = original[index][:, ::-1] if mirrored else original[index]
                padded = np.pad(source, [(2, 2), (2, 2), (0, 0)], mode="edge")
                for y in range(5):
                    for x in range(5):
                        if np.array_equal(padded[y : y + SIZE[0], x : x + SIZE[1]], image):
                            found.append((mirrored, (y, x) != (2, 2)))
                            shifts |= {("down", y), ("across", x)}
            assert len(found) == 1
            seen["all"] += 1
            seen["mirrored"] += found[0][0]
            seen["shifted"] += found[0][1]
    assert 0.3 < seen["mirrored"] / seen["all"] < 0.7 and seen["shifted"] > 0.8 * seen["all"]
    assert len(shifts) == 10  # as far as the margin goes, to every side


def test_an_image_is_grey_by_a_draw_of_its_own():
    images = tf.constant(np.random.default_rng(0).integers(256, size=(200, *SIZE, 3), dtype=np.uint8))
    draws = np.random.default_rng(1).random((200, 4), dtype=np.float32)
    found = pipeline._augmented(images, draws, flip=True, pad=0, grey=0.3).numpy()
    np.testing.assert_array_equal((np.ptp(found, axis=-1) == 0).all(axis=(1, 2)), draws[:, 3] < 0.3)
    without = pipeline._augmented(images, draws, flip=True, pad=0, grey=0.0).numpy()
    coloured = draws[:, 3] >= 0.3
    np.testing.assert_array_equal(found[coloured], without[coloured])


def test_images_of_another_size_are_resized():
    records = make_records([1, 2], [1, 1], size=(64, 32))
    (batch,) = pipeline.image_batches(records, SIZE, 8)
    expected = cv2.resize(
        cv2.imdecode(np.frombuffer(records.images[1], np.uint8), 1)[..., ::-1],
        SIZE[::-1],
        interpolation=cv2.INTER_AREA,
    )
    assert batch.shape == (2, *SIZE, 3)
    assert np.abs(pipeline.to_uint8(batch)[1].astype(int) - expected).mean() < 20


def test_erasing_takes_a_rectangle_of_the_asked_share_of_images():
    images, draws = tf.ones((400, 32, 16, 3)), np.random.default_rng(0).random((400, 5), dtype=np.float32)
    found = pipeline.erased(images, draws, 0.5, tf.constant([-1.0, 0.0, 0.5])).numpy()
    gone = (found != 1.0).any(axis=-1)
    assert (gone.any(axis=(1, 2)) == (draws[:, 0] < 0.5)).all()
    assert np.abs(found[gone] - [-1.0, 0.0, 0.5]).max() == 0.0
    for mask in gone[gone.any(axis=(1, 2))]:
        rows, columns = mask.any(axis=1), mask.any(axis=0)
        assert mask.sum() == rows.sum() * columns.sum()  # a rectangle
        assert (np.diff(np.flatnonzero(rows)) == 1).all() and (np.diff(np.flatnonzero(columns)) == 1).all()
        assert mask.mean() < 0.45
    assert 0.15 < gone[gone.any(axis=(1, 2))].mean() < 0.25  # 2 to 40 %, less what is cut at the border
    assert not (pipeline.erased(images, draws, 0.0, tf.zeros(3)).numpy() != 1.0).any()


def test_a_rectangle_is_as_high_and_wide_as_its_draws_say_and_may_lie_at_the_border():
    draws = tf.constant([[0.0, 0.25, 0.9, 0.999, 0.999], [0.0, 0.25, 0.9, 0.0, 0.0]])
    found = pipeline.erased(tf.ones((2, 64, 32, 3)), draws, 1.0, tf.zeros(3)).numpy()[..., 0] == 0.0
    last, first = ([np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0)] for mask in found)
    # 11.5 % of the area, 3.03 times as high as wide.
    assert [len(side) for side in last] == [len(side) for side in first] == [27, 9]
    assert [side[-1] for side in last] == [63, 31] and [side[0] for side in first] == [0, 0]


@pytest.mark.parametrize("grey", [0.0, 0.5])
def test_the_pipeline_erases_a_fraction_of_the_images_and_draws_as_before_without(grey):
    domains = {"source": make_records(IDENTITY * 4, CAMERA * 4)}
    sampler = samplers.pairs(domains["source"], stage_of(8))
    plain = next(batches(domains, sampler, grey=grey).as_numpy_iterator())
    none = next(batches(domains, sampler, grey=grey, erase=0.0).as_numpy_iterator())
    np.testing.assert_array_equal(none["source"], plain["source"])
    whole = np.concatenate([b["source"] for b in batches(domains, sampler, grey=0.0).as_numpy_iterator()])
    erased, again = (
        np.concatenate([b["source"] for b in batches(domains, sampler, erase=0.5).as_numpy_iterator()])
        for _ in range(2)
    )
    np.testing.assert_array_equal(erased, again)
    gone = (erased != whole).any(axis=-1).reshape(-1, *SIZE)
    assert 0.3 < gone.any(axis=(1, 2)).mean() < 0.7
    mean = np.array([0.485, 0.456, 0.406]) * 2.0 - 1.0
    np.testing.assert_allclose(erased.reshape(-1, *SIZE, 3)[gone] - mean, 0.0, atol=1e-6)


def test_a_data_set_that_an_earlier_version_built_is_read_by_the_same_rules():
    turned = with_exif(saved(stored(picture(*SIZE), 6), "JPEG", quality=98, subsampling=0), exif(6))
    rgba = np.dstack([picture(*SIZE), np.full(SIZE, 128, np.uint8)])
    records = make_records([1, 2, 3], [1, 1, 1])
    records.images[1], records.images[2] = turned, saved(rgba, "PNG")
    found = pipeline.to_uint8(pipeline.all_images(records, SIZE))
    for image, content in zip(found, records.images, strict=True):
        np.testing.assert_array_equal(image, images.pixels(content))
    assert np.abs(found[1].astype(int) - picture(*SIZE)).mean() < 5


def test_an_image_that_an_earlier_version_stored_and_that_is_refused_is_named():
    records = make_records([1, 1, 2, 2], [1, 2, 1, 2], name="street/2.0.0")
    records.images[1] = with_exif(saved(picture(), "JPEG"), exif(6))[:-40]
    message = r"street/2\.0\.0: the image 1\.png is damaged: Premature end .*: build the data set again"
    with pytest.raises(DatasetError, match=message):
        pipeline.all_images(records, SIZE)
    with pytest.raises(DatasetError, match=message):
        batches({"source": records}, samplers.pairs(records, stage_of(8)))


def test_plain_images_are_decoded_as_they_always_were():
    """By TensorFlow's own reader, and resized with antialiasing: results of training must not change by a bit."""
    for content in (saved(picture(61, 37), "JPEG"), saved(picture(61, 37), "PNG"), saved(picture(*SIZE), "JPEG")):
        pixels = tf.io.decode_image(content, channels=3, expand_animations=False)
        if pixels.shape[:2] != SIZE:
            pixels = tf.cast(
                tf.clip_by_value(tf.round(tf.image.resize(pixels, SIZE, antialias=True)), 0, 255), tf.uint8
            )
        for decoder in (decoding.plain_decoder(SIZE), decoding.decoder(SIZE)):
            np.testing.assert_array_equal(decoder(tf.constant(content)), pixels)
