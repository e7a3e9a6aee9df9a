import json

import numpy as np
import pytest

from tf_reid.metrics.protocols import of_validation, train_mask, trials

# Persons 1 to 6 have two images in camera 1 and three in camera 2; the distractor 0 has four, in camera 2.
IDENTITY = np.concatenate([np.repeat(np.arange(1, 7), 5), np.zeros(4, int)])
CAMERA = np.concatenate([np.tile([1, 1, 2, 2, 2], 6), np.full(4, 2)])
SPLIT = np.array(["train"] * len(IDENTITY))
PROTOCOL = {
    "kind": "trials",
    "query_cameras": [1],
    "gallery_cameras": [2],
    "test_identities": [[1, 2, 3], [4, 6]],
    "distractors": [0],
    "shots": None,
    "both_directions": False,
    "description": "two rounds",
}


def test_market_follows_the_split():
    split = np.array(["train", "query", "gallery", "gallery", "query"])
    (trial,) = trials([1, 2, 2, -1, 3], [1, 1, 2, 2, 1], split, {"kind": "market"})
    assert (trial.query.tolist(), trial.gallery.tolist()) == ([1, 4], [2, 3])
    assert trial.query.dtype == trial.gallery.dtype == np.int64
    assert trial.same_camera_ignored
    assert train_mask([1, 2, 2, -1, 3], split, {"kind": "market"}).tolist() == [
        True,
        False,
        False,
        False,
        False,
    ]


def test_images_of_the_querys_own_camera_count_where_the_protocol_says_so():
    (trial,) = trials([1, 1], [1, 1], np.array(["query", "gallery"]), {"kind": "market", "same_camera": True})
    assert (trial.query.tolist(), trial.gallery.tolist(), trial.same_camera_ignored) == ([0], [1], False)


@pytest.mark.parametrize("missing", ["query", "gallery"])
def test_market_without_a_part_says_which(missing):
    split = np.array(["train", {"query": "gallery", "gallery": "query"}[missing]])
    with pytest.raises(ValueError, match=f"No record has the split '{missing}'; the splits there are: .*train"):
        trials([1, 2], [1, 2], split, {"kind": "market"})


def test_trials_take_their_identities_and_every_distractor():
    first, second = trials(IDENTITY, CAMERA, SPLIT, json.loads(json.dumps(PROTOCOL)))
    for trial, identities in ((first, {1, 2, 3}), (second, {4, 6})):
        assert set(IDENTITY[trial.query]) == identities
        assert set(IDENTITY[trial.gallery]) == identities | {0}
        assert set(CAMERA[trial.query]) == {1} and set(CAMERA[trial.gallery]) == {2}
        assert len(trial.query) == 2 * len(identities) and len(trial.gallery) == 3 * len(identities) + 4
        assert not trial.same_camera_ignored
    assert [(trial.name, trial.number) for trial in (first, second)] == [("trial 0", 0), ("trial 1", 1)]


def test_both_directions_exchange_the_cameras():
    found = trials(IDENTITY, CAMERA, SPLIT, {**PROTOCOL, "both_directions": True, "distractors": []})
    assert [(trial.name, trial.number) for trial in found] == [
        ("trial 0", 0),
        ("trial 0, reversed", 0),
        ("trial 1", 1),
        ("trial 1, reversed", 1),
    ]
    np.testing.assert_array_equal(found[0].query, found[1].gallery)
    np.testing.assert_array_equal(found[0].gallery, found[1].query)


def test_a_camera_on_both_sides_is_ignored_for_its_own_queries():
    protocol = {**PROTOCOL, "query_cameras": [1, 2], "gallery_cameras": [2]}
    assert all(trial.same_camera_ignored for trial in trials(IDENTITY, CAMERA, SPLIT, protocol))


@pytest.mark.parametrize("shots", [1, 2, 5])
def test_shots_thin_out_identities_but_not_distractors(shots):
    for trial in trials(IDENTITY, CAMERA, SPLIT, {**PROTOCOL, "shots": shots}):
        ids, counts = np.unique(IDENTITY[trial.gallery], return_counts=True)
        assert dict(zip(ids.tolist(), counts.tolist(), strict=True)) == {
            0: 4,
            **{int(identity): min(shots, 3) for identity in set(IDENTITY[trial.query])},
        }
        assert len(set(trial.gallery.tolist())) == len(trial.gallery)
        assert set(CAMERA[trial.gallery]) == {2}


def test_shots_spare_distractors_that_have_a_name():
    protocol = {**PROTOCOL, "test_identities": [[1]], "distractors": [0, 2], "shots": 1}
    (trial,) = trials(IDENTITY, CAMERA, SPLIT, protocol)[:1]
    kept = IDENTITY[trial.gallery].tolist()
    assert kept.count(1) == 1 and kept.count(2) == np.sum((IDENTITY == 2) & (CAMERA == 2)) > 1


def test_shots_are_drawn_by_the_seed_alone():
    identity, camera = np.repeat(np.arange(1, 41), 10), np.tile([1] * 5 + [2] * 5, 40)
    protocol = {**PROTOCOL, "test_identities": [list(range(1, 41))] * 2, "shots": 1, "both_directions": True}

    def galleries(seed):
        return [trial.gallery.tolist() for trial in trials(identity, camera, None, protocol, seed)]

    assert galleries(3) == galleries(3)
    assert galleries(3) != galleries(4)
    assert galleries(3)[0] != galleries(3)[2]  # the same persons in another round: other images
    shorter = {**protocol, "test_identities": protocol["test_identities"][:1]}
    assert trials(identity, camera, None, shorter, 3)[0].gallery.tolist() == galleries(3)[0]


@pytest.mark.parametrize("seed", range(10))
def test_training_never_sees_a_test_identity(seed):
    random = np.random.default_rng(seed)
    identity, camera = random.integers(-1, 30, 300), random.integers(1, 3, 300)
    order = random.permutation(np.arange(1, 30)).tolist()
    protocol = {
        **PROTOCOL,
        "test_identities": [order[:10], order[10:20]],
        "validation_identities": [order[10:13], order[:3]],
        "distractors": [0, order[28]],
        "both_directions": True,
    }
    for trial in trials(identity, camera, None, protocol):
        mask = train_mask(identity, None, protocol, trial.number)
        assert mask.dtype == bool and mask.any()
        assert not mask[trial.query].any() and not mask[trial.gallery].any()
        trained = set(identity[mask].tolist())
        kept_out = {*protocol["test_identities"][trial.number], *protocol["validation_identities"][trial.number]}
        assert trained == set(range(1, 30)) & set(identity.tolist()) - kept_out - {order[28]}


# --------------------------------------------------------------------- draws


def random_records(seed, cameras=3):
    random = np.random.default_rng(seed)
    return random.integers(-1, 12, 300), random.integers(1, cameras + 1, 300)


def test_the_draws_of_published_tables_stay_as_they_are():
    identity, camera = random_records(0)
    protocol = {**PROTOCOL, "gallery_cameras": [2, 3], "shots": 1, "both_directions": True}
    found = trials(identity, camera, None, protocol, seed=5)
    for trial, number, direction in zip(found, (0, 0, 1, 1), (0, 1, 0, 1), strict=True):
        random = np.random.default_rng([5, number, direction])
        identities, cameras = protocol["test_identities"][number], ([2, 3], [1])[direction]
        own = [np.flatnonzero((identity == p) & np.isin(camera, cameras)) for p in identities]
        drawn = [random.choice(indices, 1, replace=False) for indices in own]
        distractors = np.flatnonzero((identity == 0) & np.isin(camera, cameras))
        np.testing.assert_array_equal(trial.gallery, np.sort(np.concatenate([distractors, *drawn])))


def test_repeats_draw_each_rounds_gallery_anew_and_the_first_as_without():
    identity, camera = random_records(1)
    once = trials(identity, camera, None, {**PROTOCOL, "shots": 2, "both_directions": True})
    found = trials(identity, camera, None, {**PROTOCOL, "shots": 2, "both_directions": True, "repeats": 3})
    assert [trial.name for trial in found[:6]] == [
        "trial 0",
        "trial 0, draw 1",
        "trial 0, draw 2",
        "trial 0, reversed",
        "trial 0, draw 1, reversed",
        "trial 0, draw 2, reversed",
    ]
    assert [trial.number for trial in found] == [0] * 6 + [1] * 6
    for single, repeated in zip(once, found[::3], strict=True):
        np.testing.assert_array_equal(single.gallery, repeated.gallery)
    assert len({tuple(trial.gallery.tolist()) for trial in found}) == 12
    for trial in found:
        assert max(np.unique(identity[trial.gallery][identity[trial.gallery] > 0], return_counts=True)[1]) == 2


def test_shots_of_each_identity_and_camera():
    identity, camera = random_records(2)
    protocol = {**PROTOCOL, "gallery_cameras": [2, 3], "shots": 2, "shots_per_camera": True}
    for trial in trials(identity, camera, None, protocol):
        labels, counts = np.unique(
            np.stack([identity[trial.gallery], camera[trial.gallery]]), axis=1, return_counts=True
        )
        for (one, place), count in zip(labels.T.tolist(), counts, strict=True):
            there = np.sum((identity == one) & (camera == place))
            assert count == (there if one == 0 else min(2, there))


def test_sysu_like_named_galleries_ignored_cameras_and_cmc_by_identity():
    # Cameras 3 and 6 are infrared; every person has two images in each of four cameras.
    identity, camera = np.repeat([1, 2, 3], 8), np.tile([1, 2, 3, 6], 6)
    file = np.array([f"cam{c}/{p:04d}/{i}.jpg" for i, (p, c) in enumerate(zip(identity, camera, strict=True))])
    visible = np.flatnonzero((identity > 1) & (camera <= 2))
    draws = [visible[::2].tolist(), visible[[3, 0, 4]].tolist()]
    protocol = {
        "kind": "trials",
        "test_identities": [[2, 3], [2, 3]],
        "query_cameras": [3, 6],
        "gallery_cameras": [1, 2],
        "gallery_files": [file[draw].tolist() for draw in draws],
        "ignored_cameras": [[3, 2]],
        "cmc": "identity",
    }
    found = trials(identity, camera, None, json.loads(json.dumps(protocol)), file=file)
    for trial, draw in zip(found, draws, strict=True):
        assert set(camera[trial.query]) == {3, 6} and set(identity[trial.query]) == {2, 3} and len(trial.query) == 8
        assert trial.gallery.tolist() == sorted(draw)
        assert trial.ignored_cameras == ((3, 2),) and trial.cmc == "identity" and not trial.same_camera_ignored
    assert set(identity[train_mask(identity, None, protocol, 1)]) == {1}
    with pytest.raises(ValueError, match=r"The gallery of trial 1 names 1 files that no record has, such as gone\.jpg"):
        trials(identity, camera, None, protocol | {"gallery_files": [["cam1/0002/8.jpg"], ["gone.jpg"]]}, file=file)
    with pytest.raises(ValueError, match="needs the records' file names"):
        trials(identity, camera, None, protocol)


def test_regdb_like_both_directions_with_all_images():
    identity, camera = np.repeat([1, 2, 3, 4], 6), np.tile([1, 1, 1, 2, 2, 2], 4)
    protocol = {**PROTOCOL, "test_identities": [[1, 2], [3, 4]], "distractors": None, "both_directions": True}
    found = trials(identity, camera, None, protocol)
    assert [(len(trial.query), len(trial.gallery)) for trial in found] == [(6, 6)] * 4
    assert [set(camera[trial.query]) for trial in found] == [{1}, {2}] * 2
    assert not any(trial.same_camera_ignored for trial in found)


def test_cuhk03_like_one_image_an_identity_drawn_ten_times():
    identity, camera = np.repeat(np.arange(1, 9), 10), np.tile([1] * 5 + [2] * 5, 8)
    protocol = {**PROTOCOL, "test_identities": [[1, 2, 3], [4, 5, 6]], "distractors": None, "shots": 1, "repeats": 10}
    found = trials(identity, camera, None, protocol)
    assert [trial.number for trial in found] == [0] * 10 + [1] * 10
    for trial in found:
        assert identity[trial.gallery].tolist() == ([1, 2, 3], [4, 5, 6])[trial.number]
        assert set(camera[trial.gallery]) == {2} and len(trial.query) == 15
    assert len({tuple(trial.gallery.tolist()) for trial in found[:10]}) > 5


TWO_RANDOM = {"kind": "trials", "test_identities": [[1, 2, 3, 4], [5]], "two_random_cameras": True, "repeats": 30}


@pytest.mark.parametrize("shots", [None, 1, 2])
def test_two_random_cameras_an_identity(shots):
    # Person 4 is seen by one camera, 5 and the others by three.
    identity = np.concatenate([np.repeat([1, 2, 3, 5], 12), np.full(6, 4), [0, 0]])
    camera = np.concatenate([np.tile(np.repeat([1, 2, 3], 4), 4), np.full(6, 2), [1, 3]])
    found = trials(identity, camera, None, TWO_RANDOM | {"shots": shots, "distractors": [0]})
    pairs = set()
    for trial in found:
        identities = [1, 2, 3] if trial.number == 0 else [5]
        assert sorted(identity[trial.query].tolist()) == identities
        assert not trial.same_camera_ignored
        for query in trial.query:
            own = trial.gallery[identity[trial.gallery] == identity[query]]
            (place,) = set(camera[own])
            assert place != camera[query] and len(own) == (shots or 4) == len(set(own.tolist()))
            pairs.add((int(camera[query]), int(place)))
        assert np.sum(identity[trial.gallery] == 0) == 2 and 4 not in identity[trial.gallery]
    assert pairs == {(a, b) for a in (1, 2, 3) for b in (1, 2, 3) if a != b}
    again = trials(identity, camera, None, TWO_RANDOM | {"shots": shots, "distractors": [0]})
    assert all(np.array_equal(a.gallery, b.gallery) for a, b in zip(found, again, strict=True))
    with pytest.raises(ValueError, match="none of its 1 identities was seen by two cameras"):
        trials(identity, camera, None, TWO_RANDOM | {"test_identities": [[4]]})


def test_multi_query_averages_the_images_of_the_querys_identity_and_camera():
    identity, camera = [1, 1, 1, 1, 2, 1, 2, 1], [1, 1, 2, 1, 1, 2, 2, 1]
    split = np.array(["query", "multi_query", "multi_query", "multi_query", "query", "query", "gallery", "train"])
    (trial,) = trials(identity, camera, split, {"kind": "market", "multi_query": True, "cmc": "identity"})
    assert trial.query.tolist() == [0, 4, 5]
    assert [images.tolist() for images in trial.averaged] == [[0, 1, 3], [4], [5, 2]]
    assert trial.query_images.tolist() == [0, 1, 2, 3, 4, 5]
    assert trial.cmc == "identity"
    (single,) = trials(identity, camera, split, {"kind": "market"})
    assert single.averaged is None and single.query_images.tolist() == [0, 4, 5]
    part = trial.part(np.array([False, True, True]), np.array([True]))
    assert part.query.tolist() == [4, 5] and [images.tolist() for images in part.averaged] == [[4], [5, 2]]
    assert part.gallery.tolist() == [6] and part.cmc == "identity"
    assert trial.part(np.array([True, True, True]), np.array([False])).gallery.tolist() == []
    assert train_mask(identity, split, {"kind": "market", "multi_query": True}).tolist() == [False] * 7 + [True]
    with pytest.raises(ValueError, match="No record has the split 'multi_query'"):
        trials([1, 1], [1, 2], np.array(["query", "gallery"]), {"kind": "market", "multi_query": True})


@pytest.mark.parametrize("options", [{"query_cameras": [1], "gallery_cameras": [2]}, {"two_random_cameras": True}])
def test_multi_query_images_have_no_part_in_other_trials(options):
    identity, camera = np.repeat([1, 2, 3], 6), np.tile([1, 1, 1, 2, 2, 2], 3)
    split = np.tile(["query", "multi_query", "multi_query", "gallery", "gallery", "multi_query"], 3)
    protocol = {"kind": "trials", "test_identities": [[1, 2]], **options}
    used = np.zeros(18, bool)
    for seed in range(20):
        (trial,) = trials(identity, camera, split, protocol, seed)
        used[trial.query] = used[trial.gallery] = True
    assert used.tolist() == ((identity < 3) & (split != "multi_query")).tolist()
    assert train_mask(identity, split, protocol).tolist() == ((identity == 3) & (split != "multi_query")).tolist()


def test_those_who_are_kept_out_are_trained_on_in_no_round_and_tested_in_theirs():
    protocol = PROTOCOL | {"validation_identities": [[4], [1]], "kept_out": [3, 5]}
    assert [sorted(set(IDENTITY[train_mask(IDENTITY, SPLIT, protocol, number)])) for number in (0, 1)] == [[6], [2]]
    assert set(IDENTITY[trials(IDENTITY, CAMERA, SPLIT, protocol)[0].query]) == {1, 2, 3}
    market = {"kind": "market", "kept_out": [2]}
    assert train_mask([1, 2, 3], ["train", "train", "query"], market).tolist() == [True, False, False]


def test_nobody_trains_on_distractors_that_a_protocol_of_trials_does_not_name():
    protocol = PROTOCOL | {"distractors": None}
    assert sorted(set(IDENTITY[train_mask(IDENTITY, SPLIT, protocol)])) == [4, 5, 6]


def test_validation_identities_have_a_gallery_of_their_own_alone():
    protocol = PROTOCOL | {"shots": 1, "repeats": 2, "cmc": "identity", "validation_identities": [[4], [5]]}
    validation = of_validation(protocol, np.array([5, 6]), np.array([1, 2]))
    found = trials(IDENTITY, CAMERA, SPLIT, validation)
    assert len(found) == 2 and {trial.cmc for trial in found} == {"identity"}
    for trial in found:
        assert set(IDENTITY[trial.query]) == {5, 6} and sorted(IDENTITY[trial.gallery]) == [5, 6]
        assert set(CAMERA[trial.query]) == {1} and set(CAMERA[trial.gallery]) == {2}


# --------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "sysu"}, "Unknown protocol kind 'sysu'"),
        ({"kind": None}, "Unknown protocol kind None"),
        ({"test_identities": []}, "under 'test_identities'"),
        ({"query_cameras": None}, "under 'query_cameras'"),
        ({"validation_identities": [[5]]}, "'validation_identities' has 1 lists"),
        ({"query_cameras": [7]}, r"The query of trial 0 is empty.*cameras \[7\].*\[1, 2\]"),
        ({"test_identities": [[1], [99]]}, "The query of trial 1 is empty"),
        ({"gallery_cameras": [7]}, "The gallery of trial 0 is empty"),
        ({"cmc": "tracklet"}, "'cmc' is 'image' or 'identity', not 'tracklet'"),
        ({"two_random_cameras": True}, "cannot have both 'two_random_cameras' and 'query_cameras'"),
        ({"gallery_files": [["a"], ["b"]]}, "cannot have both 'gallery_files' and 'distractors'"),
        ({"gallery_files": [["a"]], "distractors": None}, "'gallery_files' has 1 lists"),
        ({"gallery_files": [["a"], ["b"]], "distractors": None, "repeats": 2}, "nothing that 'repeats' could draw"),
    ],
)
def test_a_bad_protocol_says_what_is_wrong(change, message):
    with pytest.raises(ValueError, match=message):
        trials(IDENTITY, CAMERA, SPLIT, PROTOCOL | change)


@pytest.mark.parametrize(("protocol", "trial"), [(PROTOCOL, 2), (PROTOCOL, -1), ({"kind": "market"}, 1)])
def test_train_mask_of_no_trial(protocol, trial):
    with pytest.raises(ValueError, match=f"There is no trial {trial}"):
        train_mask(IDENTITY, SPLIT, protocol, trial)
