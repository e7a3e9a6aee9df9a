"""Only models that the user has named are opened for a gallery."""

import types
from pathlib import Path

import pytest

from tf_reid.config import ConfigError
from tf_reid.gallery import known_models


@pytest.fixture
def state(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


def built_by(source):
    return types.SimpleNamespace(about={"source": str(source)})


def test_a_model_is_known_once_it_was_named(state, tmp_path, monkeypatch):
    gallery = built_by(tmp_path / "runs" / "a")
    with pytest.raises(
        ConfigError, match=r"mine was built by the model .*runs/a, which you have not named .* --run or"
    ):
        known_models.source_of(gallery, "mine")
    monkeypatch.chdir(tmp_path)
    known_models.remember(Path("runs/a"))
    assert known_models.source_of(gallery, "mine") == tmp_path / "runs" / "a"
    assert known_models.known_source_of(built_by(tmp_path / "runs" / "ab")) is None
    (kept,) = (state / "tf_reid" / "known_models").iterdir()
    assert kept.read_text() == f"{tmp_path}/runs/a\n"


def test_where_nothing_can_be_kept_the_model_has_to_be_named_again(state, monkeypatch):
    state.write_text("a file in the place of the folder")
    known_models.remember(Path("runs/a"))
    assert known_models.known_source_of(built_by("runs/a")) is None
    assert known_models.known_source_of(built_by("a\0b")) is None


def test_a_relative_state_folder_does_not_count(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", "here")
    monkeypatch.setenv("HOME", str(tmp_path))
    known_models.remember(Path("runs/a"))
    assert len(list((tmp_path / ".local/state/tf_reid/known_models").iterdir())) == 1
