"""Features of all records in order, by role."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import SIZE, extract_roles, make_records

from tf_reid.data import pipeline
from tf_reid.data.records import Records
from tf_reid.evaluation import extraction
from tf_reid.metrics.protocols import Trial


@pytest.fixture(scope="module")
def records():
    return make_records(np.arange(1, 8), np.ones(7, np.int64))


def pixels(records):
    return tf.concat(list(pipeline.image_batches(records, SIZE, 64)), axis=0)


def index_of(images):
    """The record an image is: `make_records` paints its index in red."""
    return tf.round((images[:, 0, 0, :1] + 1.0) * 127.5)


def test_features_are_the_encoders_of_every_record_in_order_with_a_last_partial_batch(records, encoder):
    found = extraction.extract(encoder, records, SIZE, batch_size=3)
    assert found.shape == (7, 5) and found.dtype == np.float32
    np.testing.assert_allclose(found, encoder(pixels(records)), atol=1e-5)
    order = extraction.extract(index_of, records, SIZE, batch_size=3)
    np.testing.assert_array_equal(order[:, 0], np.arange(7))


def test_flip_averages_an_image_and_its_mirror_image(records, encoder):
    images = pixels(records)
    straight, mirrored = encoder(images).numpy(), encoder(tf.reverse(images, axis=[2])).numpy()
    assert np.abs(straight - mirrored).max() > 0.1
    found = extraction.extract(encoder, records, SIZE, batch_size=4, flip=True)
    np.testing.assert_allclose(found, (straight + mirrored) / 2, atol=1e-5)


def whole(query=range(7), gallery=range(7), **rules):
    return [Trial("", np.array(query), np.array(gallery), False, **rules)]


def test_one_encoder_serves_query_and_gallery(records):
    query, gallery = extract_roles({"image": index_of}, records, whole())
    np.testing.assert_array_equal(query[:, 0], np.arange(7))
    assert gallery is query


def test_probe_and_gallery_have_an_encoder_each(records):
    encoders = {"gallery": lambda images: index_of(images) + 100.0, "probe": index_of}
    query, gallery = extract_roles(encoders, records, whole(), batch_size=3)
    np.testing.assert_array_equal(query[:, 0], np.arange(7))
    np.testing.assert_array_equal(gallery[:, 0], np.arange(7) + 100)


@pytest.mark.parametrize("infrared", [[1, 4, 5], [], range(7)])
def test_every_image_goes_through_the_encoder_of_its_modality(records, infrared):
    modality = np.full(7, "rgb", dtype="<U8")
    modality[list(infrared)] = "infrared"
    mixed = Records(**{**records.__dict__, "modality": modality})
    encoders = {"rgb": index_of, "ir": lambda images: -1.0 - index_of(images)}
    query, gallery = extract_roles(encoders, mixed, whole(), batch_size=2)
    expected = np.where(modality == "infrared", -1 - np.arange(7), np.arange(7))
    np.testing.assert_array_equal(query[:, 0], expected)
    np.testing.assert_array_equal(gallery, query)


class Watched:
    """An encoder that knows which images it was given."""

    def __init__(self):
        self.seen = []

    def __call__(self, images):
        tf.py_function(lambda found: self.seen.extend(found.numpy()[:, 0].astype(int).tolist()), [index_of(images)], [])
        return index_of(images)


def test_only_images_that_a_trial_needs_are_looked_at_and_each_once(records):
    trials = [*whole([1, 3], [4, 5], averaged=[np.array([1, 2]), np.array([3])]), *whole([3], [5, 6])]
    image, probe, gallery = Watched(), Watched(), Watched()
    found, _ = extract_roles({"image": image}, records, trials, batch_size=2)
    assert image.seen == [1, 2, 3, 4, 5, 6]
    np.testing.assert_array_equal(found[1:, 0], np.arange(1, 7))
    extract_roles({"probe": probe, "gallery": gallery}, records, trials)
    assert (probe.seen, gallery.seen) == ([1, 2, 3], [4, 5, 6])


def two_ends(encoder):
    """The encoder, and another that goes on from its features: both begin with one input tensor."""
    return encoder, keras.Model(encoder.input, keras.layers.Dense(3)(encoder.output))


def test_encoders_of_one_input_are_called_together_and_give_the_features_of_each(records, encoder):
    first, second = two_ends(encoder)
    sets = {"a": {"image": first}, "b": {"image": second}, "again": {"image": first}}
    assert len({extraction.trunk(encoders) for encoders in sets.values()}) == 1
    joint, ends = extraction.joined((first, second))
    assert joint.output_shape == (None, 8) and ends.tolist() == [5]
    for flip in (False, True):
        found = extraction.extract_together(sets, records, whole(), SIZE, batch_size=3, flip=flip)
        for name, encoders in sets.items():
            alone = extraction.extract(encoders["image"], records, SIZE, batch_size=3, flip=flip)
            np.testing.assert_allclose(found[name][0], alone, atol=1e-6)
        assert found["again"][0] is found["a"][0]


def test_encoders_of_other_inputs_or_roles_are_not_of_one_trunk(encoder):
    first, second = two_ends(encoder)
    other = keras.models.clone_model(encoder)
    keys = [{"image": first}, {"image": other}, {"probe": first}, {"image": index_of}, {"rgb": first, "ir": other}]
    assert len({extraction.trunk(key) for key in keys}) == len(keys)
    assert extraction.trunk({"image": first}) == extraction.trunk({"image": second})
