"""What the losses of several steps are shown as, where the steps differ."""

from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from tf_reid.runs.callbacks import Losses, NotFinite

MODEL = SimpleNamespace(stage="joint", learning_rates=dict)


@pytest.fixture
def losses(tmp_path):
    return Losses(MODEL, 10, 0, 5, tf.summary.create_file_writer(str(tmp_path / "tensorboard")), tmp_path)


def shown(losses, monkeypatch):
    """Tag -> value, of the curves that the next line of the log writes."""
    found = {}
    monkeypatch.setattr(tf.summary, "scalar", lambda tag, value: found.update({tag: value}))
    losses.act(5)
    return found


def test_a_loss_that_begins_or_ends_within_a_window_is_the_mean_over_its_own_steps(losses, monkeypatch):
    losses.add(1, {"all": tf.constant(1.0), "before": tf.constant(7.0)})
    losses.add(3, {"all": tf.constant([2.0, 3.0]), "after": tf.constant([4.0, 5.0])})
    losses.add(5, {"all": tf.constant([4.0, 5.0]), "after": tf.constant([6.0, 7.0])})
    assert shown(losses, monkeypatch) == {"joint/after": 5.5, "joint/all": 3.0, "joint/before": 7.0}
    assert shown(losses, monkeypatch) == {}


def test_a_loss_that_begins_within_a_window_is_checked_there(losses):
    losses.add(2, {"all": tf.constant([1.0, 2.0])})
    losses.add(4, {"all": tf.constant([3.0, 4.0]), "after": tf.constant([1.0, np.nan])})
    with pytest.raises(NotFinite, match="The loss after of stage joint is nan at step 4;"):
        losses.act(5)


def test_the_first_step_of_a_call_that_broke_a_loss_is_named(losses):
    losses.add(2, {"all": tf.constant([1.0, 2.0])})
    losses.add(5, {"all": tf.constant([3.0, np.inf, np.nan])})
    with pytest.raises(NotFinite, match="The loss all of stage joint is inf at step 4;"):
        losses.act(5)
