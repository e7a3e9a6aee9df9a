"""Commands side by side divide the machine, and end where they are stopped."""

import os
import threading
import time

import pytest

from tf_reid.runs import side_by_side


def test_commands_at_once_divide_the_machine(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert side_by_side.part_of_machine(0, 1, ["0", "1"]) == {}
    parts = [side_by_side.part_of_machine(number, 2, ["4", "5", "6"]) for number in range(2)]
    assert [part["CUDA_VISIBLE_DEVICES"] for part in parts] == ["4,6", "5"]
    assert {part["TF_NUM_INTRAOP_THREADS"] for part in parts} == {"4"}
    assert side_by_side.part_of_machine(2, 3, ["4"])["CUDA_VISIBLE_DEVICES"] == "4"
    assert "CUDA_VISIBLE_DEVICES" not in side_by_side.part_of_machine(0, 2, [])


def test_a_stopped_command_ends_its_trainings(tmp_path):
    workers = side_by_side.Workers(1)
    log = tmp_path / "run.log"
    failures = []

    def call():
        try:
            workers.call(["python", "-c", ENDLESS], log)
        except side_by_side.Failed as error:
            failures.append(error)

    waiting = threading.Thread(target=call)
    waiting.start()
    while not workers.processes or "ready" not in (log.read_text() if log.exists() else ""):
        assert waiting.is_alive()
    workers.stop()
    waiting.join(timeout=20)
    assert not waiting.is_alive() and len(failures) == 1
    with pytest.raises(side_by_side.Failed, match="stopped"):
        workers.call(["python", "-c", "pass"], log)


def test_a_training_waits_for_the_one_that_it_needs_and_for_no_other(tmp_path):
    made, other_is_made = [], threading.Event()

    class Named(side_by_side.Training):
        needed: tuple["Named", ...] = ()

        def before(self):
            return self.needed

        def make(self, workers):
            if self.folder.name == "slow":
                assert other_is_made.wait(timeout=20)
                time.sleep(0.2)  # in which the one that needs this must not begin
            made.append(self.folder.name)
            if self.folder.name == "other":
                other_is_made.set()

    slow, other, needing = (Named(tmp_path / name, "config", ()) for name in ("slow", "other", "needing"))
    needing.needed = (slow,)
    assert side_by_side.make_all([slow, other, needing], 2, side_by_side.Workers(2)) == []
    assert made == ["other", "slow", "needing"]


def test_a_command_that_begins_while_the_others_are_stopped_is_ended_too(tmp_path, monkeypatch):
    workers = side_by_side.Workers(1)

    class Process:
        ended = 0

        def __init__(self, *_words, **_options):
            workers.stop()  # which does not know of it yet

        def terminate(self):
            self.ended = 143

        def wait(self):
            return self.ended

    monkeypatch.setattr(side_by_side.subprocess, "Popen", Process)
    with pytest.raises(side_by_side.Failed, match="exit status 143"):
        workers.call(["python", "-c", "pass"], tmp_path / "run.log")


ENDLESS = "import time; print('ready', flush=True); time.sleep(60)"
