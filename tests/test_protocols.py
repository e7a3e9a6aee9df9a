import json

import numpy as np
import pytest

from tf_reid.protocols import train_mask, trials

# Persons 1 to 6 have two images in camera 1 and three in camera 2; the distractor 0 has four, in camera 2.
PERSON = np.concatenate([np.repeat(np.arange(1, 7), 5), np.zeros(4, int)])
CAMERA = np.concatenate([np.tile([1, 1, 2, 2, 2], 6), np.full(4, 2)])
SPLIT = np.array(["train"] * len(PERSON))
PROTOCOL = {
    "kind": "trials",
    "query_cameras": [1],
    "gallery_cameras": [2],
    "test_persons": [[1, 2, 3], [4, 6]],
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


@pytest.mark.parametrize("missing", ["query", "gallery"])
def test_market_without_a_part_says_which(missing):
    split = np.array(["train", {"query": "gallery", "gallery": "query"}[missing]])
    with pytest.raises(ValueError, match=f"No record has the split '{missing}'; the splits there are: .*train"):
        trials([1, 2], [1, 2], split, {"kind": "market"})


def test_trials_take_their_persons_and_every_distractor():
    first, second = trials(PERSON, CAMERA, SPLIT, json.loads(json.dumps(PROTOCOL)))
    for trial, persons in ((first, {1, 2, 3}), (second, {4, 6})):
        assert set(PERSON[trial.query]) == persons
        assert set(PERSON[trial.gallery]) == persons | {0}
        assert set(CAMERA[trial.query]) == {1} and set(CAMERA[trial.gallery]) == {2}
        assert len(trial.query) == 2 * len(persons) and len(trial.gallery) == 3 * len(persons) + 4
        assert not trial.same_camera_ignored
    assert [(trial.name, trial.number) for trial in (first, second)] == [("trial 0", 0), ("trial 1", 1)]


def test_both_directions_exchange_the_cameras():
    found = trials(PERSON, CAMERA, SPLIT, {**PROTOCOL, "both_directions": True, "distractors": []})
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
    assert all(trial.same_camera_ignored for trial in trials(PERSON, CAMERA, SPLIT, protocol))


@pytest.mark.parametrize("shots", [1, 2, 5])
def test_shots_thin_out_persons_but_not_distractors(shots):
    for trial in trials(PERSON, CAMERA, SPLIT, {**PROTOCOL, "shots": shots}):
        ids, counts = np.unique(PERSON[trial.gallery], return_counts=True)
        assert dict(zip(ids.tolist(), counts.tolist(), strict=True)) == {
            0: 4,
            **{int(person): min(shots, 3) for person in set(PERSON[trial.query])},
        }
        assert len(set(trial.gallery.tolist())) == len(trial.gallery)
        assert set(CAMERA[trial.gallery]) == {2}


def test_shots_spare_distractors_that_have_a_name():
    protocol = {**PROTOCOL, "test_persons": [[1]], "distractors": [0, 2], "shots": 1}
    (trial,) = trials(PERSON, CAMERA, SPLIT, protocol)[:1]
    kept = PERSON[trial.gallery].tolist()
    assert kept.count(1) == 1 and kept.count(2) == np.sum((PERSON == 2) & (CAMERA == 2)) > 1


def test_shots_are_drawn_by_the_seed_alone():
    person, camera = np.repeat(np.arange(1, 41), 10), np.tile([1] * 5 + [2] * 5, 40)
    protocol = {**PROTOCOL, "test_persons": [list(range(1, 41))] * 2, "shots": 1, "both_directions": True}

    def galleries(seed):
        return [trial.gallery.tolist() for trial in trials(person, camera, None, protocol, seed)]

    assert galleries(3) == galleries(3)
    assert galleries(3) != galleries(4)
    assert galleries(3)[0] != galleries(3)[2]  # the same persons in another round: other images
    shorter = {**protocol, "test_persons": protocol["test_persons"][:1]}
    assert trials(person, camera, None, shorter, 3)[0].gallery.tolist() == galleries(3)[0]


@pytest.mark.parametrize("seed", range(10))
def test_training_never_sees_a_test_person(seed):
    random = np.random.default_rng(seed)
    person, camera = random.integers(-1, 30, 300), random.integers(1, 3, 300)
    order = random.permutation(np.arange(1, 30)).tolist()
    protocol = {
        **PROTOCOL,
        "test_persons": [order[:10], order[10:20]],
        "validation_persons": [order[10:13], order[:3]],
        "distractors": [0, order[28]],
        "both_directions": True,
    }
    for trial in trials(person, camera, None, protocol):
        mask = train_mask(person, None, protocol, trial.number)
        assert mask.dtype == bool and mask.any()
        assert not mask[trial.query].any() and not mask[trial.gallery].any()
        trained = set(person[mask].tolist())
        kept_out = {*protocol["test_persons"][trial.number], *protocol["validation_persons"][trial.number]}
        assert trained == set(range(1, 30)) & set(person.tolist()) - kept_out - {order[28]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "sysu"}, "Unknown protocol kind 'sysu'"),
        ({"kind": None}, "Unknown protocol kind None"),
        ({"test_persons": []}, "under 'test_persons'"),
        ({"query_cameras": None}, "under 'query_cameras'"),
        ({"validation_persons": [[5]]}, "'validation_persons' has 1 lists"),
        ({"query_cameras": [7]}, r"The query of trial 0 is empty.*cameras \[7\].*\[1, 2\]"),
        ({"test_persons": [[1], [99]]}, "The query of trial 1 is empty"),
        ({"gallery_cameras": [7]}, "The gallery of trial 0 is empty"),
    ],
)
def test_a_bad_protocol_says_what_is_wrong(change, message):
    with pytest.raises(ValueError, match=message):
        trials(PERSON, CAMERA, SPLIT, PROTOCOL | change)


@pytest.mark.parametrize(("protocol", "trial"), [(PROTOCOL, 2), (PROTOCOL, -1), ({"kind": "market"}, 1)])
def test_train_mask_of_no_trial(protocol, trial):
    with pytest.raises(ValueError, match=f"There is no trial {trial}"):
        train_mask(PERSON, SPLIT, protocol, trial)
