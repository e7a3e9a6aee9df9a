"""What may be trained on and scored, the run's folder, the strategy."""

import json

import numpy as np
import pytest
import tensorflow as tf
from conftest import SIZE, make_records, stage_configs

from tf_reid import config as configuration
from tf_reid import runs
from tf_reid.config import Config, ConfigError, Data, Evaluate
from tf_reid.methods import METHODS

PERSON, CAMERA = np.repeat(np.arange(1, 7), 2), np.tile([1, 2], 6)
THREE_TRIALS = {
    "kind": "trials",
    "test_persons": [[1, 2], [3, 4], [5, 6]],
    "query_cameras": [1],
    "gallery_cameras": [2],
    "both_directions": True,
}


def records(name="a", protocols=None):
    """Six persons, each seen once by either camera."""
    found = make_records(PERSON, CAMERA, name=name, protocols=protocols or {"three": THREE_TRIALS})
    object.__setattr__(found, "default_protocol", next(iter(found.protocols)))
    return found


def settings(method="identity", steps=10, protocol=None, **data):
    return Config(
        data=Data(**{"source": "a", "image_size": list(SIZE)} | data),
        method={"name": method},
        stages=stage_configs(METHODS[method], steps=steps),
        evaluate=Evaluate(protocol=protocol),
    )


def fair(config):
    """The fair trials of a run whose source (and target, if it has one) is `records()`."""
    domains = {"source": records("a")} | ({"target": records("b")} if config.data.target else {})
    return runs.fair_trials(config, list(domains.values())[-1], runs.training_records(config, domains))


def numbers(config):
    """The rounds it may be scored in."""
    return numbers_of(fair(config))


def numbers_of(trials):
    """Both directions of a round are there, or neither."""
    found = [trial.number for trial in trials]
    assert found[::2] == found[1::2]
    return found[::2]


# --------------------------------------------------------------------- fair trials


@pytest.mark.parametrize("trial", [0, 2])
def test_a_source_is_scored_in_its_own_trial_alone_and_with_none_it_was_trained_on(trial):
    config = settings(trial=trial)
    (number,) = numbers(config)
    assert number == trial
    trained = set(runs.training_records(config, {"source": records()})["source"].person)
    tested = {p for t in fair(config) for p in PERSON[t.query]}
    assert trained | tested == set(range(1, 7)) and not trained & tested


def test_a_source_trained_on_as_a_whole_is_not_scored():
    with pytest.raises(ConfigError, match=r"Every trial of .* trained on; set data\.source_split=train"):
        fair(settings(source_split="all"))


def test_a_target_whose_training_images_were_seen_is_scored_in_its_own_trial():
    config = settings("simpgan", target="b", trial=1)
    assert numbers(config) == [1]
    seen = runs.training_records(config, {"target": records("b")})["target"]
    assert not set(seen.person) & set(PERSON[fair(config)[0].query])


def test_scoring_by_another_protocol_than_trained_with_keeps_trained_persons_out():
    protocols = {"three": THREE_TRIALS, "one": THREE_TRIALS | {"test_persons": [[1, 6]]}}
    both = records(protocols=protocols)
    seen = runs.training_records(settings(protocol="three"), {"source": both})
    with pytest.raises(ConfigError, match=r"keep evaluate\.protocol as it was in training"):
        runs.fair_trials(settings(protocol="one"), both, seen)


def test_a_target_seen_as_a_whole_without_its_labels_is_scored_in_every_trial():
    assert numbers(settings("simpgan", target="b", target_split="all")) == [0, 1, 2]
    assert numbers(settings("simpgan", target="b", target_split="all", source_split="all")) == [0, 1, 2]


@pytest.mark.parametrize("split", ["train", "all"])
def test_a_target_never_trained_on_is_scored_in_every_trial(split):
    assert numbers(settings("identity", target="b", target_split=split)) == [0, 1, 2]
    direct = settings("simpgan", target="b", target_split=split)
    direct.stages["translation"].steps = 0
    assert numbers(direct) == [0, 1, 2]


@pytest.mark.parametrize("steps", [0, 10])
@pytest.mark.parametrize("split", ["train", "all"])
def test_a_target_that_is_the_source_as_well_is_scored_without_its_labelled_persons(steps, split):
    same = records()
    domains = {"source": same, "target": same}
    config = settings("simpgan", steps=steps, source="a", target="a", target_split=split)
    assert numbers_of(runs.fair_trials(config, same, runs.training_records(config, domains))) == [0]
    config.data.source_split = "all"
    with pytest.raises(ConfigError, match=r"set data\.source_split=train"):
        runs.fair_trials(config, same, runs.training_records(config, domains))


def test_what_was_fitted_to_the_targets_training_images_is_not_scored_on_them():
    direct = settings("simpgan", steps=0, target="b")
    domains = {"source": records("a"), "target": records("b")}
    seen = runs.training_records(direct, domains)
    assert numbers_of(runs.fair_trials(direct, domains["target"], seen, adapted=True)) == [0]
    assert numbers_of(runs.fair_trials(direct, domains["target"], seen)) == [0, 1, 2]


def test_an_unknown_protocol_is_named_with_those_there_are():
    both = records(protocols={"one": THREE_TRIALS, "two": THREE_TRIALS | {"test_persons": [[1, 6]]}})
    assert runs.protocol_of(both, None)["test_persons"] == THREE_TRIALS["test_persons"]
    assert runs.protocol_of(both, "two")["test_persons"] == [[1, 6]]
    with pytest.raises(ConfigError, match=r"evaluate\.protocol: a has no 'three', but one, two"):
        runs.protocol_of(both, "three")


# --------------------------------------------------------------------- training records


def test_distractors_and_junk_are_never_in_a_source_and_junk_never_in_a_target():
    person = np.array([1, 1, 0, -1, 2, 2, 0, -1])
    split = ["train"] * 4 + ["query", "gallery", "gallery", "gallery"]
    domains = {name: make_records(person, np.ones(8, np.int64), split, name=name) for name in ("source", "target")}
    found = runs.training_records(settings(target="b", source_split="all", target_split="all"), domains)
    assert found["source"].person.tolist() == [1, 1, 2, 2]
    assert found["target"].person.tolist() == [1, 1, 0, 2, 2, 0]
    found = runs.training_records(settings(target="b"), domains)
    assert found["source"].person.tolist() == [1, 1]
    assert found["target"].person.tolist() == [1, 1, 0]


def test_the_protocol_asked_for_decides_what_the_scored_domain_trains_on():
    protocols = {"three": THREE_TRIALS, "one": THREE_TRIALS | {"test_persons": [[1, 6]]}}
    domains = {name: records(name, protocols) for name in ("source", "target")}

    def persons(config):
        return {domain: sorted(set(r.person.tolist())) for domain, r in runs.training_records(config, domains).items()}

    both = settings("simpgan", target="b", protocol="one")
    assert persons(both) == {"source": [3, 4, 5, 6], "target": [2, 3, 4, 5]}
    domains.pop("target")
    assert persons(settings(protocol="one")) == {"source": [2, 3, 4, 5]}


def test_no_image_to_train_on_is_said_with_the_key():
    whole = records("grid", {"whole": THREE_TRIALS | {"test_persons": [list(range(1, 7))]}})
    with pytest.raises(ConfigError, match=r"grid has no training image; set data\.target_split=all"):
        runs.training_records(settings("simpgan", target="b"), {"target": whole})


# --------------------------------------------------------------------- the folder


@pytest.fixture
def simple():
    """A configuration as a file gives it."""
    return lambda *overrides: configuration.load("configs/identity.yaml", overrides, METHODS)


def test_a_runs_folder_says_what_it_is_and_reads_back(tmp_path, simple):
    config = simple("run.seed=3")
    runs.open_run(tmp_path / "runs" / "mine", config, {"source": records()})
    assert runs.load_run(tmp_path / "runs" / "mine") == config
    written = json.loads((tmp_path / "runs" / "mine" / "environment.json").read_text())
    assert set(written) >= {"command", "revision", "python", "packages", "devices", "cpu", "cpu_cores"}
    runs.open_run(tmp_path / "runs" / "mine", config, {"source": records()})  # the same settings: goes on
    trained_on = json.loads((tmp_path / "runs" / "mine" / "data.json").read_text())
    assert trained_on == {"source": runs.fingerprint(records())}


def test_every_setting_that_differs_is_named(tmp_path, simple):
    runs.open_run(tmp_path / "run", simple(), {})
    with pytest.raises(ConfigError) as error:
        runs.check_run(tmp_path / "run", simple("run.seed=3", "stages.classifier.steps=7"))
    for part in ("run.seed was 0 and is now 3", "stages.classifier.steps was", "is now 7", "choose another --run"):
        assert part in str(error.value)
    assert "image_size" not in str(error.value)
    assert runs.load_run(tmp_path / "run") == simple()  # and the old ones stand


def test_a_run_that_is_older_than_a_setting_goes_on_with_its_default(tmp_path, simple):
    runs.open_run(tmp_path / "run", simple(), {})
    path = tmp_path / "run" / "config.yaml"
    path.write_text(path.read_text().replace(", ema_momentum: 0.0", ""))
    assert "ema_momentum" not in path.read_text()
    runs.open_run(tmp_path / "run", simple(), {})
    with pytest.raises(ConfigError, match=r"ema_momentum was 0\.0 and is now 0\.5"):
        runs.check_run(tmp_path / "run", simple("stages.classifier.optimizers.classifier.ema_momentum=0.5"))


def test_the_protocol_of_a_run_stays_what_it_was_trained_with(tmp_path, simple):
    """It decides what is trained on: under another one, trained persons would be tested."""
    runs.open_run(tmp_path / "run", simple(), {})
    with pytest.raises(ConfigError, match=r"evaluate\.protocol was None and is now 'market'"):
        runs.check_run(tmp_path / "run", simple("evaluate.protocol=market"))
    runs.check_run(tmp_path / "run", simple("evaluate.flip=true"))  # changes only how it is scored


def test_a_data_set_that_changed_is_refused(tmp_path, simple):
    """One more person may deal training and test persons anew."""
    before, after = records(), records().take(np.arange(2, 12))
    runs.open_run(tmp_path / "run", simple(), {"source": before})
    runs.check_data(tmp_path / "run", {"source": records()})
    with pytest.raises(ConfigError, match=r"trained on 12 images of 6 persons of a, .*\(10 of 5 of a\)"):
        runs.open_run(tmp_path / "run", simple(), {"source": after})


def test_a_classifier_of_other_images_is_refused(tmp_path, simple):
    before = tmp_path / "before"
    runs.open_run(before, simple(), {"source": records()})
    config = settings("simpgan")
    config.method["classifier"] = str(before)
    config.data.image_size = simple().data.image_size
    runs.check_classifier(config, records())
    with pytest.raises(ConfigError, match=r"method\.classifier: .*before was trained on 12 images of 6 persons of a, "):
        runs.check_classifier(config, records().take(np.arange(2, 12)))
    config.data.image_size = [32, 16]
    with pytest.raises(ConfigError, match=r"before was trained at data\.image_size=.*, this run has \[32, 16\]"):
        runs.check_classifier(config, records())
    runs.check_classifier(settings("identity"), records())  # takes no classifier


def test_a_folder_of_other_things_is_left_alone(tmp_path, simple):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(ConfigError, match=r"holds other things and no config\.yaml"):
        runs.check_run(tmp_path, simple())
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_no_run_is_said_with_what_to_do(tmp_path):
    with pytest.raises(ConfigError, match=r"There is no run in .*nowhere \(no config\.yaml\); train one with --run"):
        runs.load_run(tmp_path / "nowhere")


def test_a_text_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "new" / "metrics.json"
    runs.write_text(path, "old")
    seen = []

    def killed(beside, goal):
        seen.append((beside.read_text(), goal.read_text()))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(runs.os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            runs.write_text(path, "new")
    assert seen == [("new", "old")] and path.read_text() == "old"
    runs.write_text(path, "new")
    assert path.read_text() == "new" and [p.name for p in path.parent.iterdir()] == ["metrics.json"]


# --------------------------------------------------------------------- the strategy


def test_one_is_one_device():
    strategy = runs.make_strategy("one")
    assert strategy is tf.distribute.get_strategy() and strategy.num_replicas_in_sync == 1


def test_auto_is_all_gpus_or_one_cpu():
    gpus = len(tf.config.list_logical_devices("GPU"))
    assert runs.make_strategy("auto").num_replicas_in_sync == max(1, gpus)


def test_mirrored_takes_every_device(two_replicas, monkeypatch):
    asked = []
    monkeypatch.setattr(tf.distribute, "MirroredStrategy", lambda devices: asked.append(devices) or two_replicas)
    assert runs.make_strategy("mirrored") is two_replicas
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    assert asked == [[device.name for device in devices]]
