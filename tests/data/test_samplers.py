"""Which images form a batch."""

import numpy as np
import pytest
from conftest import make_records, stage_of

from tf_reid.data import samplers
from tf_reid.data.joined_records import joined
from tf_reid.methods.base import Stage

IDENTITY = [1, 1, 1, 2, 2, 3, 4, 4, 4, 4]
CAMERA = [1, 1, 2, 1, 2, 1, 3, 3, 3, 3]


def pair_epoch(share=0.5, batch=8, seed=0):
    records = make_records(IDENTITY, CAMERA)
    sampler = samplers.pairs(records, stage_of(batch, positive_fraction=share))
    return records, sampler(np.random.default_rng(seed))["source"]


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_the_share_of_positive_pairs_is_as_asked(share):
    records, drawn = pair_epoch(share)
    same = records.identity[drawn[..., 0]] == records.identity[drawn[..., 1]]
    assert same.mean() == share


def test_positive_pairs_are_two_images_from_two_cameras_wherever_the_identity_has_two():
    records, epochs = make_records(IDENTITY, CAMERA), [pair_epoch(1.0, seed=seed)[1] for seed in range(10)]
    a, b = np.stack(epochs).reshape(-1, 2).T
    assert (a != b).all()
    for identity in (1, 2):
        mask = records.identity[a] == identity
        assert mask.any() and (records.camera[a] != records.camera[b])[mask].all()


def test_pairs_of_one_identity_and_of_two_are_mixed_over_an_epoch():
    records = make_records(IDENTITY * 8, CAMERA * 8)
    drawn = samplers.pairs(records, stage_of(8))(np.random.default_rng(0))["source"]
    same = records.identity[drawn[..., 0]] == records.identity[drawn[..., 1]]
    assert len(drawn) == 20 and {0.0, 1.0} != set(same.mean(axis=1)) and 0 < same[:10].mean() < 1


def test_an_identity_with_one_image_never_leads_a_positive_pair_but_is_a_negative():
    records, positive = pair_epoch(1.0)
    assert 3 not in records.identity[positive]
    _, negative = pair_epoch(0.0)
    assert 3 in records.identity[negative[..., 0]]


def test_every_image_leads_equally_often_and_epochs_differ():
    records = make_records(IDENTITY * 4, CAMERA * 4)
    sampler = samplers.pairs(records, stage_of(8, positive_fraction=0.0))
    rng = np.random.default_rng(0)
    first, second = sampler(rng)["source"], sampler(rng)["source"]
    assert len(np.unique(first[..., 0])) == len(records)
    assert (first != second).any()


def test_no_possible_pair_is_said_clearly():
    with pytest.raises(ValueError, match="no identity has two training images"):
        samplers.pairs(make_records([1, 2, 3], [1, 1, 1]), stage_of(4))
    with pytest.raises(ValueError, match="only one identity"):
        samplers.pairs(make_records([1, 1], [1, 2]), stage_of(4))


def test_the_target_is_drawn_without_its_labels():
    source = make_records(IDENTITY, CAMERA)
    target = make_records([7, 7, 8, 9, 9, 9], [1, 2, 1, 1, 1, 2])
    shuffled = make_records([9, 9, 7, 8, 7, 9], [2, 1, 1, 1, 2, 1])
    drawn = [
        samplers.pairs_of_two_domains(source, stage_of(4), t)(np.random.default_rng(0))["target"]
        for t in (target, shuffled)
    ]
    np.testing.assert_array_equal(*drawn)
    assert set(drawn[0].ravel()) == set(range(6))


def test_identities_come_once_an_epoch_with_an_image_of_either_modality():
    records = make_records([1, 1, 1, 2, 2, 3, 4, 4, 5, 5], [1, 2, 6, 1, 6, 1, 1, 6, 2, 6])
    records.modality[records.camera == 6] = "infrared"
    drawn = samplers.modalities(records, stage_of(4))(np.random.default_rng(0))["source"]
    assert drawn.shape == (2, 2, 2)  # person 3 has no infrared image
    np.testing.assert_array_equal(records.identity[drawn[..., 0]], records.identity[drawn[..., 1]])
    assert sorted(records.identity[drawn[..., 0]].ravel()) == [1, 2, 4, 5]
    assert set(records.modality[drawn[..., 0]].ravel()) == {"rgb"}
    assert set(records.modality[drawn[..., 1]].ravel()) == {"infrared"}


def test_all_images_of_an_identity_are_drawn_in_the_course_of_the_epochs():
    records = make_records([1, 1, 1, 2, 2], [1, 2, 6, 1, 6])
    records.modality[records.camera == 6] = "infrared"
    sampler, rng = samplers.modalities(records, stage_of(4)), np.random.default_rng(0)
    assert {int(i) for _ in range(20) for i in sampler(rng)["source"].ravel()} == set(range(5))


def test_the_lower_of_two_cameras_is_the_probe_view():
    records = make_records([1, 1, 1, 2, 2, 3, 3, 3], [7, 4, 4, 4, 7, 7, 4, 7])
    drawn = samplers.views(records, stage_of(8, images_per_view=2))(np.random.default_rng(0))["source"]
    assert drawn.shape == (1, 4, 2)
    assert set(records.camera[drawn[..., 0]].ravel()) == {4} and set(records.camera[drawn[..., 1]].ravel()) == {7}
    identity = records.identity[drawn[0]]
    np.testing.assert_array_equal(identity[:, 0], identity[:, 1])
    assert identity[0, 0] == identity[1, 0] != identity[2, 0] == identity[3, 0]
    both = samplers.views(records.take([1, 2, 0, 5, 7, 6]), stage_of(8, images_per_view=2))
    drawn = both(np.random.default_rng(0))["source"][0]
    assert set(drawn[:, 0]) == {0, 1, 5} and set(drawn[:, 1]) == {2, 3, 4}  # no image twice while there are others


def test_the_views_of_each_of_several_data_sets_are_its_own():
    """Cameras 1 and 2 of the first one are its two views, though the other data set has more cameras."""
    two, three = make_records([1, 1, 2, 2], [1, 2, 2, 1]), make_records([1, 1, 2, 2], [1, 2, 3, 1], name="other")
    both = joined([two, three])
    for sampler in (samplers.views, samplers.unpaired_views):
        draw, rng = sampler(both, stage_of(4)), np.random.default_rng(0)
        drawn = np.concatenate([draw(rng)["source"].reshape(-1, 2) for _ in range(20)])
        probe, gallery = (set(side[side < 4]) for side in drawn.T)
        assert (probe, gallery) == ({0, 3}, {1, 2})
        assert (drawn[:, 0] >= 4).any() and (drawn[:, 1] >= 4).any()
    one_camera = joined([two, make_records([1, 2], [5, 5], name="other")])
    with pytest.raises(ValueError, match="other: all training images are of camera"):
        samplers.unpaired_views(one_camera, stage_of(4))


def test_two_views_of_an_identity_whom_many_cameras_see_stay_the_same_two():
    records = make_records([1] * 6 + [2] * 6 + [3], [1, 2, 3, 4, 5, 6] * 2 + [1])
    sampler, rng = samplers.views(records, stage_of(4)), np.random.default_rng(0)
    drawn = np.concatenate([sampler(rng)["source"].reshape(-1, 2) for _ in range(20)])
    for identity in (1, 2):
        assert len(np.unique(drawn[records.identity[drawn[:, 0]] == identity], axis=0)) == 1
    assert 3 not in records.identity[drawn]


def test_unmatched_views_are_drawn_without_regard_to_identity():
    records = make_records([1, 1, 2, 2, 3, 3, 4, 4, 4], [7, 4] * 4 + [4])
    sampler, rng = samplers.unmatched_views(records, stage_of(4)), np.random.default_rng(0)
    drawn = np.concatenate([sampler(rng)["source"] for _ in range(10)])
    assert drawn.shape == (20, 2, 2)  # five gallery images, two in a step
    assert set(drawn[..., 0].ravel()) == {1, 3, 5, 7, 8} and set(drawn[..., 1].ravel()) == {0, 2, 4, 6}
    probes, gallery = (records.identity[drawn[..., view]] for view in (0, 1))
    assert any(set(a) != set(b) for a, b in zip(probes, gallery, strict=True))
    with pytest.raises(ValueError, match="no training identity is seen in two views"):
        samplers.unmatched_views(make_records([1, 2], [1, 2]), stage_of(4))


def test_either_half_of_the_images_of_many_cameras_has_seen_all_cameras():
    records = make_records(np.arange(60), np.repeat([1, 2, 3], 20))
    sampler, rng = samplers.unpaired_views(records, stage_of(20)), np.random.default_rng(0)
    first, second = (set(sampler(rng)["source"][..., view].ravel()) for view in (0, 1))
    assert len(first) == len(second) == 30 and not first & second
    assert set(records.camera[list(first)]) == set(records.camera[list(second)]) == {1, 2, 3}


@pytest.mark.parametrize("sampler", ["modalities", "views"])
def test_too_few_identities_on_both_sides_is_said_clearly(sampler):
    with pytest.raises(ValueError, match=r"needs 4 identities seen in .* but there are 0; choose"):
        samplers.SAMPLERS[sampler](make_records([1, 1, 2, 3], [1, 1, 1, 1]), stage_of(8))


def test_swaps_are_of_two_identities_with_another_image_of_either():
    records = make_records(IDENTITY, CAMERA)
    drawn = samplers.swaps(records, stage_of(8))(np.random.default_rng(0))["source"]
    assert drawn.shape == (4, 2, 4)  # nine images whose person has another, two rows a step
    a, b, of_a, of_b = (records.identity[column] for column in drawn.reshape(-1, 4).T)
    assert (a != b).all() and (a == of_a).all() and (b == of_b).all()
    assert (drawn[..., 0] != drawn[..., 2]).all() and (drawn[..., 1] != drawn[..., 3]).all()
    assert 3 not in a and len(set(drawn[..., 0].ravel())) == 8


def test_swaps_that_cannot_be_drawn_are_refused():
    with pytest.raises(ValueError, match="multiple of 4"):
        samplers.swaps(make_records(IDENTITY, CAMERA), stage_of(6))
    with pytest.raises(ValueError, match="fewer than two identities have two training images"):
        samplers.swaps(make_records([1, 1, 2, 3], [1, 2, 1, 1]), stage_of(8))


def test_single_images_come_once_an_epoch_in_an_order_of_their_own():
    records = make_records(IDENTITY, CAMERA)
    sampler, rng = samplers.single_images(records, stage_of(4)), np.random.default_rng(0)
    first, second = sampler(rng)["source"], sampler(rng)["source"]
    assert first.shape == (2, 4) and len(np.unique(first)) == 8  # of ten images; what fills no batch waits
    assert (first != second).any()


def test_a_row_is_one_identity_and_a_batch_has_different_ones():
    records = make_records(IDENTITY + [5] * 4 + [6] * 4, CAMERA + [1] * 8)
    drawn = samplers.identities(records, stage_of(6, images_per_identity=3))(np.random.default_rng(0))["source"]
    assert drawn.shape == (3, 2, 3)  # six identities, two in a step
    rows = records.identity[drawn]
    assert (rows == rows[..., :1]).all() and sorted(rows[..., 0].ravel()) == [1, 2, 3, 4, 5, 6]
    for row in drawn.reshape(-1, 3):
        count = (records.identity == records.identity[row[0]]).sum()
        assert len(set(row)) == min(count, 3)  # no image twice while there are others


def test_images_are_repeated_where_an_identity_has_few_and_this_is_said():
    records, kind = make_records(IDENTITY, CAMERA), Stage(players=(), sampler="identities")
    stage = stage_of(8, images_per_identity=4)
    sampler, rng = samplers.of_stage(kind, stage, {"source": records}), np.random.default_rng(0)
    drawn = np.concatenate([sampler(rng)["source"].reshape(-1, 4) for _ in range(20)])
    assert set(drawn.ravel()) == set(range(len(IDENTITY)))
    pairs = drawn[records.identity[drawn[:, 0]] == 2]
    assert all(sorted(row) == [3, 3, 4, 4] for row in pairs)  # each as often as the other
    expected = "test: 3 of 4 identities have fewer than images_per_identity=4 images; a batch repeats theirs."
    assert samplers.repetition(kind, stage, records) == expected
    assert samplers.repetition(kind, stage, records.take(records.identity == 4)) is None
    assert samplers.repetition(Stage(players=(), sampler="pairs"), stage, records) is None


def test_batches_of_identities_that_cannot_be_drawn_are_refused():
    records = make_records(IDENTITY, CAMERA)
    with pytest.raises(ValueError, match="holds no whole rows of 4 images of an identity; use a multiple of 4"):
        samplers.identities(records, stage_of(6))
    with pytest.raises(ValueError, match="A batch_size of 4 holds 1 identities; the stage needs two or more"):
        samplers.identities(records, stage_of(4))
    with pytest.raises(ValueError, match="needs 5 identities of 2 images each, but there are 4"):
        samplers.identities(records, stage_of(10, images_per_identity=2))


def test_rows_are_as_long_as_what_stays_together():
    stage = stage_of(8, images_per_identity=4)
    lengths = {sampler: samplers.images_in_a_row(sampler, stage) for sampler in samplers.SAMPLERS}
    assert (lengths["pairs"], lengths["swaps"], lengths["single_images"], lengths["identities"]) == (2, 4, 1, 4)
