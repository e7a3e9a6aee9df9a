"""What a grid of settings trains, and what it chooses."""

import json
from pathlib import Path

import pytest

from tf_reid import config as configuration
from tf_reid.config import ConfigError
from tf_reid.methods import METHODS
from tf_reid.runs import side_by_side, tuning
from tf_reid.runs.tuning import Over


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("method.dropout=0,0.5", ("0", "0.5")),
        ("data.image_size=[64, 32],[128,64]", ("[64, 32]", "[128, 64]")),
        ("method.weights=null,imagenet,'a,b'", ("null", "imagenet", "a,b")),
        ("stages.classifier.optimizers.classifier={name: sgd},{name: adam}", ("{name: sgd}", "{name: adam}")),
        ("run.deterministic=true", ("true",)),
        ("stages.classifier.optimizers.classifier.learning_rate=1.0e-5,0.1", ("1.0e-05", "0.1")),
    ],
)
def test_values_are_written_as_in_a_list_of_yaml(text, values):
    over = Over.read(text)
    assert over == Over(text.partition("=")[0], values)
    for value in values:  # as `--set` reads them
        overridden = {"method": {"name": "identity"}}
        configuration._override(overridden, f"method.x={value}")
        assert tuning._as_text(overridden["method"]["x"]) == value


@pytest.mark.parametrize("text", ["method.dropout", "=1,2", "method.dropout=", "method.dropout=[1,2", "a=1],[2"])
def test_what_is_no_list_of_values_is_refused(text):
    with pytest.raises(ConfigError, match=r"--over takes key=value,value, such as method\.dropout=0,0\.5; got "):
        Over.read(text)


def cells(*overs, seeds=(0,), settings=("data.validation=30",), root="runs/tune"):
    return tuning.cells("identity", [Over.read(over) for over in overs], seeds, settings, Path(root))


def test_every_value_is_trained_with_every_other_and_every_seed_and_scored_on_validation_alone():
    made = cells("method.dropout=0,0.5", "data.image_size=[64,32],[128,64]", seeds=(3, 4))
    assert len({cell.folder for cell in made}) == len(made) == 8
    assert made[0].settings[:2] == ("data.validation=30", "method.dropout=0")
    assert made[1].choice == ("method.dropout=0", "data.image_size=[64, 32]") and made[1].seed == 4
    for cell in made:
        assert cell.settings[-2:] == (f"run.seed={cell.seed}", "evaluate.identities=validation")
    assert cells("method.dropout=0.5")[0].folder == Path("runs/tune/method.dropout=0.5-0")
    assert len({cell.folder for cell in cells("method.weights='a/b','a b'")}) == 2  # alike but for what a name lacks


@pytest.mark.parametrize(
    ("overs", "settings", "message"),
    [
        (["run.seed=0,1"], [], r"--over run\.seed: name seeds with --seeds"),
        (["validation=10,20"], [], r"--over validation: all trainings are scored on the same identities"),
        (["method.dropout=0,1"], ["method.dropout=0"], r"--over method\.dropout: this setting is there twice"),
        (["method.dropout=0", "method.dropout=1"], [], r"--over method\.dropout: this setting is there twice"),
        (["data.source.root=a,b"], [], r"--over data\.source\.root: it decides which identities are held out"),
        (["data.source_split=train,all"], [], r"--over data\.source_split: it decides which identities are held out"),
        (["data.source=viper,grid"], [], r"--over data\.source: it decides which identities are held out"),
        (["method.dropout=0,0"], [], r"--over method\.dropout=0,0: a value is there twice"),
        (["keep=best,last", "run.keep=last"], [], r"--over run\.keep: this setting is there twice"),
        (["run.keep=best,last"], ["keep=last"], r"--over run\.keep: this setting is there twice"),
        (["data={source: a},{source: b}"], [], r"--over data: all trainings are scored on the same identities"),
        (["run={seed: 1},{seed: 2}"], [], r"--over run: name seeds with --seeds"),
        (["stages.x={steps: 1}", "stages.x.steps=2"], [], r"--over stages\.x\.steps: this setting is there twice"),
        (["stages.x.steps=2", "stages.x={steps: 1}"], [], r"--over stages\.x: this setting is there twice"),
        (["stages.x={steps: 1}"], ["stages.x.steps=2"], r"--over stages\.x: this setting is there twice"),
    ],
)
def test_what_a_grid_cannot_vary_is_refused(overs, settings, message):
    with pytest.raises(ConfigError, match=message):
        cells(*overs, settings=settings)


def test_a_seed_that_is_there_twice_or_set_is_refused():
    with pytest.raises(ConfigError, match=r"--seeds 0 0: a seed is there twice"):
        cells("method.dropout=0", seeds=(0, 0))
    with pytest.raises(ConfigError, match=r"--set run\.seed: name seeds with --seeds"):
        cells("method.dropout=0", settings=("seed=3",))


def finish(cell, score, rank1=50.0):
    cell.scores.parent.mkdir(parents=True)
    cell.scores.write_text(json.dumps({"raw": {"mAP": score, "rank1": rank1}, "other": {"mAP": 1.0, "rank1": 1.0}}))


def test_the_highest_mean_over_the_seeds_is_chosen_of_what_is_complete(tmp_path):
    made = cells("method.dropout=0,0.5,0.7", seeds=(0, 1), root=tmp_path)
    for cell, score in zip(made, (10.0, 20.0, 18.0, 14.0, 99.0), strict=False):
        finish(cell, score)
    lines = tuning.lines(made)
    assert tuning.best(lines, "mAP").choice == ("method.dropout=0.5",)
    text = tuning.markdown(lines, "mAP")
    assert "| `method.dropout=0` | 50.0 ± 0.0 | 15.0 ± 5.0 | 2 of 2 |" in text
    assert "| `method.dropout=0.5` **best** | 50.0 ± 0.0 | 16.0 ± 2.0 | 2 of 2 |" in text
    assert "| `method.dropout=0.7` | 50.0 | 99.0 | 1 of 2 |" in text
    assert tuning.comma_separated(lines).splitlines()[2] == "method.dropout=0,mAP,15.0,5.0,2,2"
    assert tuning.best(tuning.lines(made[-1:]), "mAP") is None
    not_finite = tuning.Line((), {"mAP": [float("nan"), 1.0]}, 2)
    assert tuning.best([not_finite, *lines], "mAP").choice == ("method.dropout=0.5",)
    equal = [tuning.Line((choice,), {"mAP": [50.0]}, 1) for choice in ("first", "second")]
    assert tuning.best(equal, "mAP").choice == ("first",)


def test_a_representation_that_the_method_lacks_is_refused_once_the_first_training_ends(tmp_path):
    overs = [Over.read("method.dropout=0,0.5")]
    first, second = tuning.cells("identity", overs, [0], [], tmp_path, "translated")
    finish(first, 10.0)
    workers = side_by_side.Workers(1)
    with pytest.raises(ConfigError, match=r"--representation translated: .*dropout=0-0 has none .* it has raw, other"):
        side_by_side.make_all([first, second], 1, workers)
    assert workers.stopped and not second.log.exists()


def test_the_final_command_holds_no_identity_out_and_chooses_nothing_by_one():
    settings = ["data.validation=30", "run.validate_every=5", "run.keep=best"]
    settings.append("stages.classifier.early_stop={watch: mAP}")
    settings.append("method.dropout=0.5")
    config = configuration.load("identity", settings, METHODS)
    command = tuning.final_command("identity", config, settings, Path("runs/x"))
    assert command.startswith("python -m tf_reid.train --config identity --run runs/x --set method.dropout=0.5 ")
    *_, dropout, none, every, keep, stop = command.split()
    assert (dropout, none, every) == ("method.dropout=0.5", "data.validation=0", "run.validate_every=0")
    assert (keep, stop) == ("run.keep=last", "stages.classifier.early_stop=null")
    own = configuration.load("view_adaptation_viper", [], METHODS)  # whose protocol holds out identities
    assert tuning.final_command("x", own, ["a=1", "b=2"], Path("r")).endswith("--run r --set a=1 b=2")
    pretrained = configuration.load("pretrain", [], METHODS)  # which is scored on validation identities
    last = tuning.final_command("pretrain", pretrained, ["evaluate.identities=validation"], Path("r")).split("--set ")[
        1
    ]
    assert last == "data.validation=0 evaluate.identities=test"


def test_a_part_of_what_is_set_may_be_varied():
    (made, _) = cells("stages.x.early_stop.patience=2,3", settings=("stages.x.early_stop={watch: mAP}",))
    assert made.choice == ("stages.x.early_stop.patience=2",)


def test_the_final_command_keeps_validation_identities_of_a_target_held_out():
    """Their labels train nothing, and another trial may test them."""
    settings = ["data.validation=30", "evaluate.identities=validation", "run.validate_every=5", "keep=best"]
    config = configuration.load("simpgan", settings, METHODS)
    command = tuning.final_command("simpgan", config, settings, Path("r")).split("--set ")[1]
    assert command == "data.validation=30 run.validate_every=5 keep=best evaluate.identities=test"


def test_progress_is_what_a_log_says_last(tmp_path):
    (cell,) = cells("method.dropout=0", root=tmp_path)
    assert cell.progress() == "waiting"
    cell.log.write_text("Training on the CPU.\n")
    assert cell.progress() == "begins"
    bars = "classifier:   0%|          | 0/450 [00:00<?]", "classifier:  27%|██▋ | 120/450 [00:10<00:27, loss=1.2]"
    cell.log.write_text("\r".join(bars))
    assert cell.progress() == "classifier 120/450"
    finish(cell, 1.0)
    assert cell.progress() == "finished"
