"""Signals that ask a training to stop."""

import os
import signal
import sys

import pytest
import tensorflow as tf

from tf_reid.command_line import Terminated
from tf_reid.runs.stopping import Requested, StopRequests


@pytest.fixture
def stop():
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup may have started these tests
    yield StopRequests(tf.distribute.get_strategy())
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_is_kept_until_the_step_is_over(stop, number, status):
    before = signal.getsignal(number)
    with stop:
        stop.check()
        os.kill(os.getpid(), number)
        with pytest.raises(Requested):
            stop.check()
    ending = stop.end("stage a at step 3 of 5")
    assert isinstance(ending, Terminated) and ending.code == status and signal.getsignal(number) == before
    assert f"{number.name}: stage a at step 3 of 5 is saved. The same command resumes there." in ending.sentence


def test_ctrl_c_is_what_it_was_and_a_second_one_stops_at_once(stop):
    with stop:
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert isinstance(stop.end("it"), KeyboardInterrupt)


def test_a_long_evaluation_is_left_at_once(stop):
    with stop, pytest.raises(Requested), stop.interrupting():
        os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("the evaluation went on")


def test_several_workers_stop_where_one_gets_a_signal(stop):
    stop.several_workers = True
    stop._number_of_workers = lambda own: own
    stop.check()
    stop._number_of_workers = lambda own: own + 1  # another one got one
    with pytest.raises(Requested):
        stop.check()
    assert stop.end("it").code == 143


def test_an_ignored_signal_stays_ignored(stop):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with stop:
            os.kill(os.getpid(), signal.SIGHUP)
            stop.check()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_signal_that_comes_while_something_is_printed_is_kept(stop, monkeypatch, capfd):
    class Busy:
        def write(self, text):
            raise RuntimeError("reentrant call inside <_io.BufferedWriter name='<stderr>'>")

    with stop, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", Busy())
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Requested):
            stop.check()
    assert "\nSIGTERM: a checkpoint is saved after this step. A second signal" in capfd.readouterr().err
