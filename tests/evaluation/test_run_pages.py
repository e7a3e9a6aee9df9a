"""The curves of several runs on one page."""

import json

import pytest

from tf_reid.config import ConfigError
from tf_reid.evaluation import run_pages


def test_cmc_curves_of_several_runs_carry_the_runs_names(tmp_path):
    for number, name in enumerate(("first", "second")):
        (tmp_path / name).mkdir()
        metrics = {"raw": {"cmc": [number, 50.0]}, "learned": {"cmc": [number, 60.0]}}
        (tmp_path / name / "metrics.json").write_text(json.dumps(metrics))
    alone = run_pages.cmc_curves([tmp_path / "first"])
    assert alone == {"raw": [0, 50.0], "learned": [0, 60.0]}
    both = run_pages.cmc_curves([tmp_path / "first", tmp_path / "second"])
    assert list(both) == ["first: raw", "first: learned", "second: raw", "second: learned"]
    assert both["second: learned"] == [1, 60.0]


def test_runs_of_one_name_keep_their_own_curves(tmp_path):
    folders = [tmp_path / "street" / "0", tmp_path / "viper" / "0", tmp_path / "third"]
    for number, folder in enumerate(folders):
        folder.mkdir(parents=True)
        (folder / "metrics.json").write_text(json.dumps({"raw": {"cmc": [number]}}))
    assert run_pages.cmc_curves(folders) == {f"{folders[0]}: raw": [0], f"{folders[1]}: raw": [1], "third: raw": [2]}


def test_a_run_that_was_not_scored_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"first holds no metrics.json; score it with"):
        run_pages.cmc_curves([tmp_path / "first"])
