"""What a fixed set of pairs or triplets must be, whatever the data set."""

import collections

import pytest

from tfds_builders import DatasetError
from tfds_builders.base import Record
from tfds_builders.pairs import PER_CAMERA, draw_pairs, draw_triplets


def records(identities, cameras, shots=1):
    return [
        Record(identity, camera, f"{identity}_{camera}_{shot}", None)
        for identity in identities
        for camera in cameras
        for shot in range(shots)
    ]


def test_triplets_cross_cameras_and_keep_them_uninformative():
    triplets = draw_triplets(records(range(1, 9), (1, 2, 3), shots=2), 100)
    assert len(triplets) == 100
    for anchor, positive, negative in triplets:
        assert anchor.identity == positive.identity != negative.identity
        assert anchor.camera != positive.camera == negative.camera
    assert len({(anchor, positive) for anchor, positive, _ in triplets}) == 100


def test_pairs_are_balanced_also_by_camera_and_identity():
    pairs = draw_pairs(records(range(1, 9), (1, 2, 3)), 60)
    cameras = collections.Counter((same, a.camera, b.camera) for a, b, same in pairs)
    identities = collections.Counter((same, a.identity) for a, b, same in pairs)
    assert len(pairs) == 60
    for a in (1, 2, 3):
        for b in (1, 2, 3):
            assert cameras[0, a, b] == cameras[1, a, b]
    assert {identities[0, identity] for identity in range(1, 9)} <= {3, 4}
    assert {identities[1, identity] for identity in range(1, 9)} <= {3, 4}


def test_draw_is_seeded_and_independent_of_the_records_order():
    images = records(range(1, 9), (1, 2))
    assert draw_triplets(images, 10) == draw_triplets(images[::-1], 10)
    assert draw_triplets(images, 10) != draw_triplets(images, 10, seed=1)


def test_small_set_gives_all_it_has():
    assert len(draw_triplets(records((1, 2), (1, 2)), 1000)) == 4


def test_long_tracks_are_thinned_within_each_camera():
    images = records((1, 2), (1,), shots=3000) + records((1, 2), (2,))
    triplets = draw_triplets(images, 1000)
    assert (
        len(triplets) == 2 * 2 * PER_CAMERA
    )  # both identities, both orders, each kept image of camera 1 with that of 2
    assert all(anchor.camera != positive.camera for anchor, positive, _ in triplets)


def test_distractors_and_lone_images_take_no_part():
    images = records((1, 2), (1, 2)) + records((0,), (1, 2), shots=5) + records((3,), (1,))
    used = {record.identity for triplet in draw_triplets(images, 100) for record in triplet}
    assert used == {1, 2}


def test_one_camera_gives_two_shots_of_it():
    for anchor, positive, negative in draw_triplets(records((1, 2), (1,), shots=2), 100):
        assert anchor.file != positive.file
        assert positive.identity != negative.identity


def test_error_where_no_identity_has_two_images():
    with pytest.raises(DatasetError, match=r"tiny, split train: .* no identity has two images"):
        draw_triplets(records((1, 2, 3), (1,)), 10, name="tiny, split train")


def test_error_where_there_is_one_identity():
    with pytest.raises(DatasetError, match="no camera sees two identities"):
        draw_triplets(records((1,), (1, 2)), 10)
