"""How often a batch shows each of several data sets."""

from types import SimpleNamespace

import numpy as np
import pytest
from conftest import make_records, stage_of

from tf_reid.data import balancing, samplers
from tf_reid.data.joined_records import joined


def of_size(identities, name):
    """Identities with two images by either camera, one of which sees infrared."""
    found = make_records(np.repeat(np.arange(1, identities + 1), 4), np.tile([1, 1, 2, 2], identities), name=name)
    found.modality[:] = np.where(found.camera == 1, "rgb", "infrared")
    return found


LARGE, SMALL = of_size(20, "large"), of_size(4, "small")
BOTH = joined([LARGE, SMALL])


def drawn(sampler, balance, domains=1, target=None, **stage):
    records = {"source": BOTH} | ({} if target is None else {"target": target})
    kind = SimpleNamespace(sampler=sampler, domains=domains)
    return balancing.sampler(balance, kind, stage_of(8, **stage), records)(np.random.default_rng(0))


@pytest.mark.parametrize("sampler", [name for name in samplers.SAMPLERS if name != "pairs_of_two_domains"])
def test_an_equal_balance_shows_either_data_set_as_often_in_every_batch(sampler):
    rows = drawn(sampler, "equal")["source"]
    of_small = BOTH.origin[rows] == 1
    of_small = of_small.reshape(*of_small.shape[:2], -1)
    assert (of_small == of_small[..., :1]).all()  # a row is of one data set
    assert (of_small[..., 0].mean(axis=1) == 0.5).all()
    if sampler != "views":
        assert of_small[0, :2, 0].tolist() == [False, True]
    unbalanced = BOTH.origin[drawn(sampler, "images")["source"]]
    assert unbalanced.mean() < 0.3
    as_today = samplers.SAMPLERS[sampler](BOTH, stage_of(8))(np.random.default_rng(0))["source"]
    np.testing.assert_array_equal(drawn(sampler, "images")["source"], as_today)


def test_rows_keep_their_meaning_in_an_equal_balance():
    rows = drawn("pairs", "equal", positive_fraction=1.0)["source"]
    assert (BOTH.identity[rows][..., 0] == BOTH.identity[rows][..., 1]).all()
    assert (BOTH.camera[rows][..., 0] != BOTH.camera[rows][..., 1]).all()
    views = drawn("views", "equal", images_per_view=2)["source"]  # two rows of an identity stay together
    identity = BOTH.identity[views].reshape(len(views), -1, 4)
    assert (identity == identity[..., :1]).all() and (identity[:, 0] != identity[:, 1]).all()


def test_the_next_identity_of_two_views_is_not_always_of_another_data_set():
    """View adaptation's negatives: with four identities in a batch, one of three others is of the same data set."""
    kind = SimpleNamespace(sampler="views", domains=1)
    draw = balancing.sampler("equal", kind, stage_of(16, images_per_view=2), {"source": BOTH})
    rows = np.concatenate([draw(np.random.default_rng(seed))["source"] for seed in range(40)])
    of_small = BOTH.origin[rows[:, ::2, 0]] == 1
    assert of_small.shape[1] == 4 and (of_small.mean(axis=1) == 0.5).all()
    assert (of_small == np.roll(of_small, -1, axis=1)).mean() == pytest.approx(1 / 3, abs=0.05)


def test_a_target_of_several_data_sets_is_balanced_as_well():
    epoch = drawn("pairs_of_two_domains", "equal", domains=2, target=joined([SMALL, LARGE, SMALL]))
    target = joined([SMALL, LARGE, SMALL]).origin[epoch["target"]]
    assert [(target == place).mean() for place in range(3)] == pytest.approx([1 / 3] * 3)
    assert (BOTH.origin[epoch["source"]] == 0).mean() == 0.5
    one_target = drawn("pairs_of_two_domains", "equal", domains=2, target=LARGE)
    assert one_target["target"].max() < len(LARGE) and (BOTH.origin[one_target["source"]] == 1).mean() == 0.5


def test_every_epoch_has_as_many_steps_and_each_image_of_the_larger_data_set():
    kind = SimpleNamespace(sampler="single_images", domains=1)
    draw = balancing.sampler("equal", kind, stage_of(8), {"source": BOTH})
    first, second = (draw(np.random.default_rng(seed))["source"] for seed in (0, 1))
    assert first.shape == second.shape == (20, 8) and (first != second).any()
    assert set(first[BOTH.origin[first] == 0]) == set(range(80))


def test_two_sources_of_the_same_people_have_no_equal_balance():
    kind = SimpleNamespace(sampler="pairs", domains=1)
    same = {"source": joined([LARGE, SMALL, LARGE])}
    balancing.sampler("images", kind, stage_of(8), same)
    with pytest.raises(ValueError, match=r"large and another data set of data\.source show the same people"):
        balancing.sampler("equal", kind, stage_of(8), same)


def test_a_data_set_that_is_too_small_for_a_batch_is_named():
    kind = SimpleNamespace(sampler="views", domains=1)
    with pytest.raises(ValueError, match=r"^small: .* needs 8 identities seen in two views"):
        balancing.sampler("equal", kind, stage_of(16), {"source": BOTH})
