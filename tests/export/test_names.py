"""Names of models and labels: what would leave the folder, or break a server's files, is refused before any work."""

import os
import subprocess

import pytest
import yaml

from export import __main__ as command
from export import deployment, label, names
from tf_reid.config import ConfigError

BAD = ["", ".", "..", "../x", "/etc", "a/b", "a b", "a\n", "reid\n", "-rf", ".hidden", "_a", "reid'", 'a"b', "a;b"]
BAD += [
    "$(id)",
    "a:b",
    "{a}",
    "Männer",
    "reid\u202e",
    "a" * 101,
    "con",
    "NUL.x",
    "com1",
    "a\\b",
    "%2e",
    "a\0b",
    "\u0661",
]
GOOD = ["reid", "1", "Reid-2.0_x", "a" * 100, "null", "console", "1e3"]


@pytest.mark.parametrize("name", [*BAD, "serving", "Serving"])
def test_a_bad_name_is_refused_before_the_run_is_read(tmp_path, name):
    with pytest.raises(ConfigError, match=r"^--name: .* cannot be a model's name.*give another with --name"):
        command.main(["--run", str(tmp_path / "none"), "--to", str(tmp_path / "models"), f"--name={name}"])
    assert not (tmp_path / "models").exists()


def test_a_runs_folder_with_a_bad_name_asks_for_another(tmp_path):
    with pytest.raises(ConfigError, match=r"name of the run's folder: 'my run \[1\]' cannot .* with --name"):
        command.main(["--run", str(tmp_path / "my run [1]"), "--to", str(tmp_path / "models")])


def test_a_folder_whose_name_is_no_utf8_is_refused(tmp_path):
    to = os.fsdecode(bytes(tmp_path) + b"/bad\xff")
    with pytest.raises(ConfigError, match=r"--to: '.*bad.udcff' is no UTF-8; choose a folder of another name"):
        command.main(["--run", "runs/reid", "--to", to])


@pytest.mark.parametrize("name", GOOD)
def test_good_names_pass_and_the_files_hold_them_as_they_are(tmp_path, name):
    (tmp_path / name / "1").mkdir(parents=True)
    (tmp_path / name / "1" / "saved_model.pb").touch()
    names.check_model_name(name, "--name")
    deployment.write(tmp_path)
    label.main([str(tmp_path), name, name, "1"])
    assert set(deployment.served_models(tmp_path)[name].labels) == {"stable", "canary", name}
    deployed, _ = yaml.safe_load_all((tmp_path / "serving" / "kubernetes.yaml").read_text())
    assert f"/v1/models/{name} HTTP" in str(deployed)


@pytest.mark.parametrize("name", BAD)
def test_a_label_follows_the_same_rule(tmp_path, name):
    with pytest.raises(ConfigError, match="cannot be a label"):
        names.check_label(name)


def test_a_search_that_would_answer_nothing_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="--top 0: search answers one match or more"):
        command.main(["--run", "runs/reid", "--to", str(tmp_path), "--top", "0"])


def test_a_name_with_a_role_may_not_be_too_long(tmp_path):
    assert not names.is_name("a" * 98 + "_rgb")


def test_models_config_that_names_another_folder_is_refused(tmp_path):
    (tmp_path / "serving").mkdir()
    text = deployment.models_config({"../outside": {"stable": 1}})
    (tmp_path / "serving" / "models.config").write_text(text)
    with pytest.raises(ConfigError, match=r"models.config: '../outside' cannot be the name"):
        deployment.served_models(tmp_path)


@pytest.mark.parametrize("name", ["a b", "$(touch x)", "²", "serving"])
def test_other_folders_beside_the_models_are_no_models(tmp_path, name):
    for folder in (name, "reid"):
        for version in ("1", "007", "²", "9" * 30):
            (tmp_path / folder / version).mkdir(parents=True)
            (tmp_path / folder / version / "saved_model.pb").touch()
    assert deployment.exported_versions(tmp_path) == {"reid": [1]}


def test_the_probe_quotes_what_it_asks_for(tmp_path):
    command = deployment.ready(["'; touch escaped; '"], 1)
    subprocess.run(["bash", "-c", command], cwd=tmp_path, stderr=subprocess.DEVNULL)
    assert os.listdir(tmp_path) == []
