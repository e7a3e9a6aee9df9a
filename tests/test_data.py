"""Samplers and the training pipeline."""

import cv2
import numpy as np
import pytest
import tensorflow as tf
from conftest import SIZE, make_records, stage_of

from tf_reid import data

PERSON = [1, 1, 1, 2, 2, 3, 4, 4, 4, 4]
CAMERA = [1, 1, 2, 1, 2, 1, 3, 3, 3, 3]


def pair_epoch(share=0.5, batch=8, seed=0):
    records = make_records(PERSON, CAMERA)
    return records, data.pairs(records, stage_of(batch, positive_share=share))(np.random.default_rng(seed))["source"]


def batches(records, sampler, start=0, steps=6, seed=0, flip=False, pad=0):
    return data.training_batches(
        records, sampler, seed=seed, stage=0, start=start, steps=steps, image_size=SIZE, flip=flip, pad=pad
    )


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_the_share_of_positive_pairs_is_as_asked(share):
    records, drawn = pair_epoch(share)
    same = records.person[drawn[..., 0]] == records.person[drawn[..., 1]]
    assert same.mean() == share


def test_positive_pairs_are_two_images_from_two_cameras_wherever_the_person_has_two():
    records, drawn = pair_epoch(1.0)
    a, b = drawn.reshape(-1, 2).T
    assert (a != b).all()
    for person in (1, 2):
        mask = records.person[a] == person
        assert mask.any() and (records.camera[a] != records.camera[b])[mask].all()


def test_a_person_with_one_image_never_leads_a_positive_pair_but_is_a_negative():
    records, positive = pair_epoch(1.0)
    assert 3 not in records.person[positive]
    _, negative = pair_epoch(0.0)
    assert 3 in records.person[negative[..., 0]]


def test_every_image_leads_equally_often_and_epochs_differ():
    records = make_records(PERSON * 4, CAMERA * 4)
    sampler = data.pairs(records, stage_of(8, positive_share=0.0))
    rng = np.random.default_rng(0)
    first, second = sampler(rng)["source"], sampler(rng)["source"]
    assert len(np.unique(first[..., 0])) == len(records)
    assert (first != second).any()


def test_no_possible_pair_is_said_clearly():
    with pytest.raises(ValueError, match="no person has two training images"):
        data.pairs(make_records([1, 2, 3], [1, 1, 1]), stage_of(4))
    with pytest.raises(ValueError, match="only one person"):
        data.pairs(make_records([1, 1], [1, 2]), stage_of(4))


def test_the_target_is_drawn_without_its_labels():
    source = make_records(PERSON, CAMERA)
    target = make_records([7, 7, 8, 9, 9, 9], [1, 2, 1, 1, 1, 2])
    shuffled = make_records([9, 9, 7, 8, 7, 9], [2, 1, 1, 1, 2, 1])
    drawn = [
        data.pairs_of_two_domains(source, stage_of(4), t)(np.random.default_rng(0))["target"]
        for t in (target, shuffled)
    ]
    np.testing.assert_array_equal(*drawn)
    assert set(drawn[0].ravel()) == set(range(6))


def test_persons_come_once_an_epoch_with_an_image_of_either_modality():
    records = make_records([1, 1, 1, 2, 2, 3, 4, 4, 5, 5], [1, 2, 6, 1, 6, 1, 1, 6, 2, 6])
    records.modality[records.camera == 6] = "infrared"
    drawn = data.modalities(records, stage_of(4))(np.random.default_rng(0))["source"]
    assert drawn.shape == (2, 2, 2)  # person 3 has no infrared image
    np.testing.assert_array_equal(records.person[drawn[..., 0]], records.person[drawn[..., 1]])
    assert sorted(records.person[drawn[..., 0]].ravel()) == [1, 2, 4, 5]
    assert set(records.modality[drawn[..., 0]].ravel()) == {"rgb"}
    assert set(records.modality[drawn[..., 1]].ravel()) == {"infrared"}


def test_all_images_of_a_person_are_drawn_in_the_course_of_the_epochs():
    records = make_records([1, 1, 1, 2, 2], [1, 2, 6, 1, 6])
    records.modality[records.camera == 6] = "infrared"
    sampler, rng = data.modalities(records, stage_of(4)), np.random.default_rng(0)
    assert {int(i) for _ in range(20) for i in sampler(rng)["source"].ravel()} == set(range(5))


def test_the_lower_of_two_cameras_is_the_probe_view():
    records = make_records([1, 1, 1, 2, 2, 3, 3, 3], [7, 4, 4, 4, 7, 7, 4, 7])
    drawn = data.views(records, stage_of(8, images_per_view=2))(np.random.default_rng(0))["source"]
    assert drawn.shape == (1, 4, 2)
    assert set(records.camera[drawn[..., 0]].ravel()) == {4} and set(records.camera[drawn[..., 1]].ravel()) == {7}
    person = records.person[drawn[0]]
    np.testing.assert_array_equal(person[:, 0], person[:, 1])
    assert person[0, 0] == person[1, 0] != person[2, 0] == person[3, 0]
    both = data.views(records.take([1, 2, 0, 5, 7, 6]), stage_of(8, images_per_view=2))
    drawn = both(np.random.default_rng(0))["source"][0]
    assert set(drawn[:, 0]) == {0, 1, 5} and set(drawn[:, 1]) == {2, 3, 4}  # no image twice while there are others


def test_two_views_of_a_person_whom_many_cameras_see_stay_the_same_two():
    records = make_records([1] * 6 + [2] * 6 + [3], [1, 2, 3, 4, 5, 6] * 2 + [1])
    sampler, rng = data.views(records, stage_of(4)), np.random.default_rng(0)
    drawn = np.concatenate([sampler(rng)["source"].reshape(-1, 2) for _ in range(20)])
    for person in (1, 2):
        assert len(np.unique(drawn[records.person[drawn[:, 0]] == person], axis=0)) == 1
    assert 3 not in records.person[drawn]


@pytest.mark.parametrize("sampler", ["modalities", "views"])
def test_too_few_persons_on_both_sides_is_said_clearly(sampler):
    with pytest.raises(ValueError, match=r"takes 4 persons seen in .* but there are 0; choose"):
        data.SAMPLERS[sampler](make_records([1, 1, 2, 3], [1, 1, 1, 1]), stage_of(8))


def test_batches_hold_the_drawn_images_and_labels_from_0():
    records = make_records(PERSON, CAMERA)
    sampler = data.pairs(records, stage_of(8))
    expected = sampler(np.random.default_rng([0, 0, 0]))["source"]
    batch = next(iter(batches({"source": records}, sampler)))
    assert batch["source"].shape == (4, 2, *SIZE, 3) and batch["source"].dtype == np.float32
    np.testing.assert_array_equal(data.to_uint8(batch["source"])[:, :, 0, 0, 0], expected[0])
    np.testing.assert_array_equal(batch["source_person"], records.person[expected[0]] - 1)
    assert batch["source"].numpy().min() >= -1 and batch["source"].numpy().max() <= 1


def test_a_batch_is_a_function_of_seed_and_step():
    domains = {"source": make_records(PERSON, CAMERA), "target": make_records([0] * 12, [1] * 12)}
    sampler = data.pairs_of_two_domains(domains["source"], stage_of(4), domains["target"])
    whole = list(batches(domains, sampler, flip=True, pad=3).as_numpy_iterator())
    later = list(batches(domains, sampler, start=4, flip=True, pad=3).as_numpy_iterator())
    other = next(batches(domains, sampler, seed=1, flip=True, pad=3).as_numpy_iterator())
    assert len(whole) == 6 and len(later) == 2
    for a, b in zip(whole[4:], later, strict=True):
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])
    assert (other["source"] != whole[0]["source"]).any()


def test_few_images_that_are_read_often_are_decoded_once(monkeypatch):
    images = make_records(PERSON, CAMERA, size=(64, 32)).images
    decoded = []
    monkeypatch.setattr(tf.io, "decode_image", lambda *a, to=tf.io.decode_image, **k: decoded.append(a) or to(*a, **k))
    once, seldom = data._reader(images, SIZE, reads=len(images) + 1), data._reader(images, SIZE, reads=len(images))
    monkeypatch.setattr(data, "DECODED_BYTES", len(images) * 3 * SIZE[0] * SIZE[1] - 1)
    many = data._reader(images, SIZE, reads=len(images) + 1)
    for read, decodes in ((once, False), (seldom, True), (many, True)):
        decoded.clear()
        found = read(tf.constant([3, 5]))
        assert bool(decoded) == decodes
        assert found.shape == (2, *SIZE, 3) and found.dtype == tf.uint8
        np.testing.assert_array_equal(found, once(tf.constant([3, 5])))


def test_augmentation_mirrors_and_shifts_within_its_margin():
    records = make_records(PERSON, CAMERA)
    original = data.to_uint8(np.concatenate(list(data.image_batches(records, SIZE, 64))))
    sampler = data.pairs(records, stage_of(8))
    seen = {"mirrored": 0, "shifted": 0, "all": 0}
    for batch in batches({"source": records}, sampler, steps=12, flip=True, pad=2):
        for image in data.to_uint8(batch["source"]).reshape(-1, *SIZE, 3):
            index = image[..., 0].max()
            found = []
            for mirrored in (False, True):
                source = original[index][:, ::-1] if mirrored else original[index]
                padded = np.pad(source, [(2, 2), (2, 2), (0, 0)], mode="edge")
                for y in range(5):
                    for x in range(5):
                        if np.array_equal(padded[y : y + SIZE[0], x : x + SIZE[1]], image):
                            found.append((mirrored, (y, x) != (2, 2)))
            assert len(found) == 1
            seen["all"] += 1
            seen["mirrored"] += found[0][0]
            seen["shifted"] += found[0][1]
    assert 0.3 < seen["mirrored"] / seen["all"] < 0.7 and seen["shifted"] > 0.8 * seen["all"]


def test_images_of_another_size_are_resized():
    records = make_records([1, 2], [1, 1], size=(64, 32))
    (batch,) = data.image_batches(records, SIZE, 8)
    expected = cv2.resize(
        cv2.imdecode(np.frombuffer(records.images[1], np.uint8), 1)[..., ::-1],
        SIZE[::-1],
        interpolation=cv2.INTER_AREA,
    )
    assert batch.shape == (2, *SIZE, 3)
    assert np.abs(data.to_uint8(batch)[1].astype(int) - expected).mean() < 20
