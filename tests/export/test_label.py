"""Canary, promotion and rollback: labels are put on any exported version."""

import pytest

from export import deployment, label
from tf_reid.config import ConfigError


@pytest.fixture
def folder(tmp_path):
    """Four versions of one model, as four exports leave them, and one of another."""
    for version in (1, 2, 3, 4):
        (tmp_path / "reid" / str(version)).mkdir(parents=True)
        (tmp_path / "reid" / str(version) / "saved_model.pb").touch()
        deployment.write(tmp_path)
    (tmp_path / "other" / "7").mkdir(parents=True)
    (tmp_path / "other" / "7" / "saved_model.pb").touch()
    deployment.write(tmp_path)
    return tmp_path


def served(folder):
    return deployment.read_models_config(folder / "serving" / "models.config")["reid"]


def test_exports_keep_the_stable_version_and_move_the_canary(folder):
    assert served(folder) == ([1, 4], {"stable": 1, "canary": 4})


def test_a_version_in_between_becomes_canary_is_promoted_and_rolled_back(folder, capsys):
    label.main([str(folder), "reid", "canary", "2"])
    assert served(folder) == ([1, 2], {"stable": 1, "canary": 2})
    printed = capsys.readouterr().out
    assert "reid: exported 1, 2, 3, 4; served 1, 2" in printed and "canary      2" in printed
    assert "other: exported 7; served 7" in printed and "within 30 seconds" in printed
    label.main([str(folder), "reid", "stable", "2"])
    assert served(folder) == ([2], {"stable": 2, "canary": 2})
    label.main([str(folder), "reid", "canary", "3"])
    label.main([str(folder), "reid", "stable", "1"])
    assert served(folder) == ([1, 3], {"stable": 1, "canary": 3})


def test_a_label_of_ones_own_stays_over_an_export(folder):
    label.main([str(folder), "reid", "last-year", "2"])
    deployment.write(folder)
    assert served(folder) == ([1, 2, 4], {"stable": 1, "last-year": 2, "canary": 4})


def test_the_folder_alone_is_listed_and_left_as_it_is(folder, capsys):
    config = folder / "serving" / "models.config"
    before = config.read_bytes()
    assert label.main([str(folder)])["reid"].versions == [1, 4]
    assert config.read_bytes() == before and "stable      1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["nothing", "canary", "1"], "serves no model nothing; its models are other, reid"),
        (["reid", "canary", "9"], "reid has no version 9; its versions are 1, 2, 3, 4"),
    ],
)
def test_a_missing_model_or_version_changes_nothing(folder, line, message):
    config = folder / "serving" / "models.config"
    before = config.read_bytes()
    with pytest.raises(ConfigError, match=message):
        label.main([str(folder), *line])
    assert config.read_bytes() == before


def test_a_half_given_label_is_refused(folder, capsys):
    with pytest.raises(SystemExit):
        label.main([str(folder), "reid", "canary"])
    assert "name a model, a label and a version" in capsys.readouterr().err
