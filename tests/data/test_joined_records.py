"""Several data sets as one."""

import dataclasses

import numpy as np
import pytest
from conftest import make_records

from tf_reid.data.joined_records import joined


def first():
    return dataclasses.replace(
        make_records([-1, 0, 3, 3, 9], [1, 2, 1, 2, 2], ["gallery", "gallery", "query", "gallery", "train"], name="a"),
        identity_labels={3: "Ada"},
        camera_labels={1: "door"},
    )


def second():
    found = make_records([0, 3, 3, 4], [0, 0, 1, 1], name="b", protocols={"other": {"kind": "market"}})
    return dataclasses.replace(found, identity_labels={3: "Bob"}, camera_labels={0: "hall"})


def test_identities_and_cameras_of_different_data_sets_are_kept_apart():
    both = joined([first(), second()])
    assert both.identity.tolist() == [-1, 0, 3, 3, 9, 0, 12, 12, 13]  # 9 is added; distractors and junk stay
    assert both.camera.tolist() == [1, 2, 1, 2, 2, 3, 3, 4, 4]
    assert both.file.tolist() == [*(f"{i}.png" for i in range(5)), *(f"2:{i}.png" for i in range(4))]
    assert both.split.tolist()[:5] == first().split.tolist()
    assert list(both.images) == [*first().images, *second().images]
    assert (both.identity_labels, both.camera_labels) == ({3: "Ada", 12: "Bob"}, {1: "door", 3: "hall"})
    assert both.protocols == first().protocols and both.population == "a"
    assert (both.name, both.scored_name) == ("a + b", "a")
    assert both.data_sets == [("a", 5), ("b", 4)]


def test_identities_are_known_by_the_numbers_of_their_own_population():
    both = joined([first(), second()])
    assert both.numbers_in("a").tolist() == [-1, -1, 3, 3, 9, -1, -1, -1, -1]
    assert both.numbers_in("b").tolist() == [-1, -1, -1, -1, -1, -1, 3, 3, 4]
    assert both.take(both.identity > 3).numbers_in("b").tolist() == [-1, 3, 3, 4]
    assert both.take(slice(3, 7)).is_scored.tolist() == [True, True, False, False]
    assert first().numbers_in("a").tolist() == [-1, -1, 3, 3, 9] and (first().numbers_in("b") == -1).all()
    assert first().is_scored.all()


def test_a_population_in_two_data_sets_is_the_same_people_before_the_same_cameras():
    """Its highest number may come late: no other identity gets one of its numbers."""
    again = make_records([3, 20], [2, 7], name="a, more", population="a")
    every = joined([first(), second(), again])
    assert every.identity[-2:].tolist() == [3, 20] and every.camera[-2:].tolist() == [2, 7]
    assert every.numbers_in("a")[-2:].tolist() == [3, 20]
    assert every.identity[5:9].tolist() == [0, 23, 23, 24] and every.camera[5:9].tolist() == [8, 8, 9, 9]
    assert not every.is_scored[-2:].any()  # of the first data set alone
    reverse = joined([again, second(), first()])
    assert reverse.identity[2:6].tolist() == [0, 23, 23, 24] and reverse.camera[2:6].tolist() == [8, 8, 9, 9]


def test_numbers_that_would_not_fit_are_refused():
    large = make_records([2**62], [1], name="large")
    other = make_records([2**62], [1], name="other")
    with pytest.raises(ValueError, match="large and other are too large to be kept apart"):
        joined([large, other])
    assert joined([large, dataclasses.replace(other, population="large")]).identity.dtype == np.int64
