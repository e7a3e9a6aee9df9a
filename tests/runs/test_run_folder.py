"""The run's folder."""

import dataclasses
import json
import os

import numpy as np
import pytest
import yaml
from conftest import make_records

from tf_reid import config as configuration
from tf_reid.config import ConfigError
from tf_reid.methods import METHODS
from tf_reid.runs import run_folder
from tf_reid.runs.fingerprints import fingerprint


def records():
    """Six identities, each seen once by either camera."""
    return make_records(np.repeat(np.arange(1, 7), 2), np.tile([1, 2], 6), name="a")


@pytest.fixture
def simple():
    """A configuration as a file gives it."""
    return lambda *overrides: configuration.load("identity", overrides, METHODS)


def test_a_runs_folder_says_what_it_is_and_reads_back(tmp_path, simple):
    config = simple("run.seed=3")
    run_folder.open_run(tmp_path / "runs" / "mine", config, {"source": records()})
    assert run_folder.load_run(tmp_path / "runs" / "mine") == config
    written = json.loads((tmp_path / "runs" / "mine" / "environment.json").read_text())
    assert set(written) >= {"command", "revision", "python", "packages", "devices", "gpus", "cpu", "cpu_cores"}
    assert written["cpu"] and len(written["gpus"]) == sum("GPU" in name for name in written["devices"])
    run_folder.open_run(tmp_path / "runs" / "mine", config, {"source": records()})  # the same settings: goes on
    trained_on = json.loads((tmp_path / "runs" / "mine" / "data.json").read_text())
    assert trained_on == {"source": fingerprint(records())}


def test_every_setting_that_differs_is_named(tmp_path, simple):
    run_folder.open_run(tmp_path / "run", simple(), {})
    with pytest.raises(ConfigError) as error:
        run_folder.check_run(tmp_path / "run", simple("run.seed=3", "stages.classifier.steps=7"))
    for part in ("run.seed was 0 and is now 3", "stages.classifier.steps was", "is now 7", "choose another --run"):
        assert part in str(error.value)
    assert "image_size" not in str(error.value)
    assert run_folder.load_run(tmp_path / "run") == simple()  # and the old ones stand


def test_a_run_that_is_older_than_a_setting_goes_on_with_its_default(tmp_path, simple):
    run_folder.open_run(tmp_path / "run", simple(), {})
    path = tmp_path / "run" / "config.yaml"
    older = yaml.safe_load(path.read_text())
    del older["stages"]["classifier"]["optimizers"]["classifier"]["ema_momentum"]
    path.write_text(yaml.safe_dump(older))
    run_folder.open_run(tmp_path / "run", simple(), {})
    with pytest.raises(ConfigError, match=r"ema_momentum was 0\.0 and is now 0\.5"):
        run_folder.check_run(tmp_path / "run", simple("stages.classifier.optimizers.classifier.ema_momentum=0.5"))


def test_validation_identities_of_an_older_run_are_read_by_their_old_name(tmp_path, simple):
    run_folder.open_run(tmp_path / "run", simple("data.validation=3"), {})
    path = tmp_path / "run" / "config.yaml"
    path.write_text(path.read_text().replace("validation:", "validation_identities:"))
    assert run_folder.load_run(tmp_path / "run").data.validation == 3
    run_folder.check_run(tmp_path / "run", simple("data.validation=3"))
    with pytest.raises(ConfigError, match=r"data\.validation was 3 and is now 0"):
        run_folder.check_run(tmp_path / "run", simple())


def test_the_protocol_of_a_run_stays_what_it_was_trained_with(tmp_path, simple):
    """It decides what is trained on: under another one, identities of the training would be tested."""
    run_folder.open_run(tmp_path / "run", simple(), {})
    with pytest.raises(ConfigError, match=r"evaluate\.protocol was None and is now 'market'"):
        run_folder.check_run(tmp_path / "run", simple("evaluate.protocol=market"))
    run_folder.check_run(tmp_path / "run", simple("evaluate.flip=true"))  # changes only how it is scored
    with pytest.raises(ConfigError, match=r"evaluate\.flip was False and is now True"):  # but where scores choose
        run_folder.check_run(tmp_path / "run", simple("evaluate.flip=true", "run.validate_every=5"))


def test_a_data_set_that_changed_is_refused(tmp_path, simple):
    """One more identity may change which ones are for training and for test."""
    before, after = records(), records().take(np.arange(2, 12))
    run_folder.open_run(tmp_path / "run", simple(), {"source": before})
    run_folder.check_data(tmp_path / "run", {"source": records()})
    with pytest.raises(
        ConfigError, match=r"trained on 12 images of 6 identities of a, .* 10 images of 5 identities of a"
    ):
        run_folder.open_run(tmp_path / "run", simple(), {"source": after})


def test_the_same_images_are_known_in_another_place(tmp_path, simple, capsys):
    run, moved = tmp_path / "run", simple("data.source={name: folder, root: /new, pattern: p}")
    run_folder.open_run(run, simple("data.source={name: folder, root: /old, pattern: p}"), {"source": records()})
    run_folder.open_run(run, moved, {"source": dataclasses.replace(records(), name="folder/new-images-0123")})
    assert "have another place" in capsys.readouterr().out
    assert run_folder.load_run(run).data.source["root"] == "/new"
    run_folder.open_run(run, moved, {"source": records()})
    assert capsys.readouterr().out == ""

    other = records()
    other.images[3] += b" "  # of the same files, identities and cameras
    with pytest.raises(ConfigError, match=r"the data set has changed\. Restore it, .* --set data\.source="):
        run_folder.open_run(run, simple("data.source={name: folder, root: /other, pattern: p}"), {"source": other})
    assert run_folder.load_run(run).data.source["root"] == "/new"


@pytest.mark.parametrize("change", ["data.target=a", "data.target=null data.source=a", "run.seed=1 data.source=c"])
def test_what_is_more_than_another_place_is_refused(tmp_path, simple, change):
    """As the source became another data set than the target, whose identities it trains on."""
    run_folder.open_run(tmp_path / "run", simple("data.source=a", "data.target=b"), {"source": records()})
    run_folder.check_run(tmp_path / "run", simple("data.source=c", "data.target=b"))
    with pytest.raises(ConfigError, match="holds a run with other settings"):
        run_folder.check_run(tmp_path / "run", simple("data.source=a", "data.target=b", *change.split()))


def test_the_data_sets_of_a_list_may_have_other_places_and_no_other_roles(tmp_path, simple):
    run = tmp_path / "run"
    run_folder.open_run(run, simple("data.source=[a, b]", "data.target=[b, c]"), {"source": records()})
    run_folder.check_run(run, simple("data.source=[d, e]", "data.target=[e, f]"))
    for source, target in (("[d, e]", "[f, g]"), ("[d, d]", "[d, e]"), ("[a]", "[b, c]"), ("a", "[b, c]")):
        with pytest.raises(ConfigError, match="holds a run with other settings"):
            run_folder.check_run(run, simple(f"data.source={source}", f"data.target={target}"))
    with pytest.raises(ConfigError, match="balance was 'images' and is now 'equal'"):
        run_folder.check_run(run, simple("data.source=[a, b]", "data.target=[b, c]", "data.balance=equal"))


def test_a_run_of_an_older_version_is_compared_as_far_as_it_can_be(tmp_path, simple):
    before = dataclasses.replace(records(), name="folder/crops-images-0123456789ab/1.0.0")
    run_folder.open_run(tmp_path / "run", simple(), {"source": before})
    older = json.loads((tmp_path / "run" / "data.json").read_text())
    del older["source"]["content"]
    (tmp_path / "run" / "data.json").write_text(json.dumps(older))
    touched = dataclasses.replace(before, name="folder/crops-images-ba9876543210/1.0.0")
    run_folder.check_data(tmp_path / "run", {"source": touched})
    with pytest.raises(ConfigError, match="the data set has changed"):
        run_folder.check_data(tmp_path / "run", {"source": dataclasses.replace(before, name="cuhk03/detected/1.0.0")})
    with pytest.raises(ConfigError, match="holds a run with other settings"):
        run_folder.check_run(tmp_path / "run", simple("data.source=c"))


def test_a_classifier_of_other_images_is_refused(tmp_path, simple):
    before = tmp_path / "before"
    run_folder.open_run(before, simple(), {"source": records()})
    config = simple()
    config.method["classifier"] = str(before)
    run_folder.check_classifier(config, records())
    with pytest.raises(
        ConfigError, match=r"method\.classifier: .*before was trained on 12 images of 6 identities of a, "
    ):
        run_folder.check_classifier(config, records().take(np.arange(2, 12)))
    weights = before / "networks" / "classifier.weights.h5"
    weights.parent.mkdir()
    weights.touch()
    config.method["classifier"] = str(weights)  # a file of the run
    run_folder.check_classifier(config, records())
    with pytest.raises(ConfigError, match=r"method\.classifier: .*before was trained on 12 images of 6"):
        run_folder.check_classifier(config, records().take(np.arange(2, 12)))
    config.data.image_size = [32, 16]
    with pytest.raises(ConfigError, match=r"before was trained at data\.image_size=.*, but this run has \[32, 16\]"):
        run_folder.check_classifier(config, records())
    run_folder.check_classifier(simple(), records())  # takes no classifier


def test_a_folder_of_other_files_is_left_alone(tmp_path, simple):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(ConfigError, match=r"holds other files and no config\.yaml"):
        run_folder.check_run(tmp_path, simple())
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_start_that_was_killed_is_gone_on_with_and_cleared_up(tmp_path, simple):
    run_folder.open_run(tmp_path / "run", simple(), {"source": records()})
    (tmp_path / "run" / "config.yaml").unlink()
    (tmp_path / "run" / ".config.yaml.4711").write_text("half")  # as older versions wrote beside
    (tmp_path / "run" / ".unfinished_0123456789abcdef").write_text("half")
    os.utime(tmp_path / "run" / ".unfinished_0123456789abcdef", (0, 0))
    (tmp_path / "run" / "tensorboard").mkdir()
    run_folder.open_run(tmp_path / "run", simple("run.seed=3"), {"source": records()})
    assert run_folder.load_run(tmp_path / "run").run.seed == 3
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {"config.yaml", "data.json", "environment.json", "known_identities.json", "tensorboard"}


def test_checkpoints_without_their_settings_are_kept(tmp_path, simple):
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(ConfigError, match=r"the config\.yaml of their run is missing; restore it"):
        run_folder.check_run(tmp_path, simple())


@pytest.mark.parametrize("damage", ["", "[]", '{"source": {"name": "a"}}', '{"source": 1}', "[1]"])
def test_a_damaged_list_of_images_is_named(tmp_path, simple, damage):
    run_folder.open_run(tmp_path / "run", simple(), {"source": records()})
    (tmp_path / "run" / "data.json").write_text(damage)
    with pytest.raises(ConfigError, match=r"data\.json is damaged"):
        run_folder.check_data(tmp_path / "run", {"source": records()})


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[31m", "a\udcff"])
def test_a_folder_that_cannot_be_printed_is_refused(tmp_path, simple, name):
    with pytest.raises(ConfigError, match="a character that cannot be printed") as error:
        run_folder.check_run(tmp_path / name, simple())
    assert str(error.value).isprintable()


@pytest.mark.parametrize("content", ["", "method:", "[", "data: {}"])
def test_damaged_settings_of_a_run_are_named(tmp_path, content):
    (tmp_path / "config.yaml").write_text(content)
    with pytest.raises(ConfigError, match=r"config\.yaml"):
        run_folder.load_run(tmp_path)


def test_no_run_is_said_with_what_to_do(tmp_path):
    with pytest.raises(ConfigError, match=r"There is no run in .*nowhere \(no config\.yaml\); train one with --run"):
        run_folder.load_run(tmp_path / "nowhere")


@pytest.mark.parametrize("method", [5, True, [1], "identity", {1: 2}, {1: 2, "name": "identity"}, None])
def test_a_damaged_method_in_a_runs_settings_is_named(tmp_path, simple, method):
    run_folder.open_run(tmp_path, simple(), {})
    settings = yaml.safe_load((tmp_path / "config.yaml").read_text())
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings | {"method": method}))
    with pytest.raises(ConfigError, match=r"config\.yaml: method"):
        run_folder.load_run(tmp_path)
