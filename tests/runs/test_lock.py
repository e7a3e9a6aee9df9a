"""One training at a time in a folder."""

import errno
import os
import shutil

import pytest

from tf_reid.config import ConfigError
from tf_reid.runs import lock


def test_a_second_training_is_refused_while_the_first_lasts(tmp_path):
    run = tmp_path / "run"
    with lock.training(run):
        (run / "config.yaml").touch()
        sentence = rf"in use by another training \(process {os.getpid()} on .+\); wait"
        with pytest.raises(ConfigError, match=sentence), lock.training(run):
            pytest.fail("there are two")
    with lock.training(run):
        pass


def test_a_folder_that_stays_empty_is_removed(tmp_path):
    with pytest.raises(ValueError, match="refused"), lock.training(tmp_path / "run"):
        raise ValueError("refused")
    assert not (tmp_path / "run").exists()


def test_a_folder_that_vanishes_hides_no_error(tmp_path):
    with pytest.raises(ValueError, match="the reason"), lock.training(tmp_path / "run"):
        shutil.rmtree(tmp_path / "run")
        raise ValueError("the reason")


def test_a_file_system_without_locks_is_no_obstacle(tmp_path, monkeypatch, capsys):
    def unsupported(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock.fcntl, "flock", unsupported)
    with lock.training(tmp_path / "run"):
        assert "this file system has no locks (No locks available)" in capsys.readouterr().out
