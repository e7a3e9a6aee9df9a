"""What the weights that a run starts from were trained on."""

import dataclasses
import json

import pytest
import yaml
from conftest import make_records

from tf_reid import config as configuration
from tf_reid.config import ConfigError
from tf_reid.data.joined_records import joined
from tf_reid.methods import METHODS
from tf_reid.runs import initial_weights, run_folder

VIPER = {"name": "viper", "terms": "free for research; cite the paper"}
KNOWN = {"viper": [1, 2], "grid": [4]}


@pytest.fixture
def weights(tmp_path):
    """A file of weights with a card."""
    data = {"sets": [VIPER], "initial_weights": [initial_weights.IMAGENET], "do_not_pass_on": ["viper", "imagenet"]}
    file = tmp_path / "a.weights.h5"
    file.write_bytes(b"")
    initial_weights.card_file(file).write_text(yaml.safe_dump({"data": data, "known_identities": KNOWN}))
    return file


def test_the_data_of_weights_are_known_by_their_card(weights):
    assert initial_weights.history(None) == {"sets": [], "do_not_pass_on": [], "known": {}}
    assert initial_weights.history("imagenet")["do_not_pass_on"] == ["imagenet"]
    known = {"sets": [VIPER, initial_weights.IMAGENET], "do_not_pass_on": ["viper", "imagenet"], "known": KNOWN}
    assert initial_weights.history(str(weights)) == known
    written = yaml.safe_load(initial_weights.card_file(weights).read_text())
    initial_weights.card_file(weights).write_text(yaml.safe_dump(written | {"weights": {"sha256": "of another file"}}))
    with pytest.raises(ConfigError, match=r"a\.card\.yaml is the card of another file than .*a\.weights\.h5"):
        initial_weights.history(str(weights))
    initial_weights.card_file(weights).write_text("data: []")
    with pytest.raises(ConfigError, match=r"a\.card\.yaml is no card that tf_reid\.pretrain wrote"):
        initial_weights.history(str(weights))
    initial_weights.card_file(weights).unlink()
    without_card = initial_weights.history(str(weights))
    assert without_card["do_not_pass_on"] == [str(weights)] and "no card" in without_card["sets"][0]["terms"]


def test_a_link_is_known_by_the_file_that_it_leads_to(weights, tmp_path):
    link = tmp_path / "current.weights.h5"
    link.symlink_to(weights)
    assert initial_weights.history(str(link)) == initial_weights.history(str(weights))

    run = tmp_path / "run"
    (run / "networks").mkdir(parents=True)
    (run / initial_weights.KNOWN).write_text(json.dumps({"market1501": [2, 7]}))
    of_run = run / "networks" / "backbone.weights.h5"
    of_run.touch()
    link.unlink()
    link.symlink_to(of_run)
    assert initial_weights.history(str(link))["known"] == {"market1501": [2, 7]}


def test_a_run_and_those_that_start_from_it_keep_what_the_card_said(weights, tmp_path):
    config = configuration.load("identity", [f"method.weights={weights}"], METHODS)
    run_folder.open_run(tmp_path / "run", config, {"source": make_records([1], [1])})
    before = {"weights": initial_weights.history(str(weights))}
    initial_weights.card_file(weights).unlink()
    weights.unlink()
    assert initial_weights.of_run(tmp_path / "run") == {"weights": before["weights"] | {"chosen_by": {}}}
    assert initial_weights.of_method({"classifier": str(tmp_path / "run"), "dropout": 0.5, "weights": None}) == {
        "classifier.weights": before["weights"] | {"chosen_by": {}},
        "classifier": {"sets": [], "do_not_pass_on": [], "known": {}, "chosen_by": {"test": [1]}},
    }
    run_folder.check_run(tmp_path / "started", config)
    (tmp_path / "started").mkdir()
    (tmp_path / "started" / initial_weights.KEPT).write_text("")
    run_folder.check_run(tmp_path / "started", config)  # as a start that was killed leaves it

    (tmp_path / "run" / initial_weights.KEPT).write_text("[")
    with pytest.raises(ConfigError, match=r"initial_weights\.yaml is damaged"):
        initial_weights.of_run(tmp_path / "run")
    (tmp_path / "run" / initial_weights.KEPT).unlink()  # as in a run of an earlier version
    assert initial_weights.of_run(tmp_path / "run")["weights"]["do_not_pass_on"] == [str(weights)]
    assert initial_weights.of_run(tmp_path / "nowhere") == {}


def test_a_file_of_a_run_is_known_by_the_run(weights, tmp_path):
    """What the run was trained on, what its own weights were trained on, and whom it was chosen by."""
    config = configuration.load("identity", [f"method.weights={weights}"], METHODS)
    source = initial_weights.known_before(
        {"source": dataclasses.replace(make_records([1, 3], [1, 1], name="a"), held_out={"a": [7]})},
        initial_weights.of_method(config.method),
    )
    for keep, known in (("last", [1, 3]), ("best", [1, 3, 7])):
        config.run.keep, run = keep, tmp_path / keep
        run_folder.open_run(run, config, source)
        (run / "networks").mkdir()
        for name in ("backbone", "classifier"):
            (run / "networks" / f"{name}.weights.h5").touch()
        backbone, classifier = (str(run / "networks" / f"{name}.weights.h5") for name in ("backbone", "classifier"))
        assert initial_weights.history(backbone)["known"] == KNOWN | {"a": known}
        of_teacher = initial_weights.of_method({"teacher": classifier})
        assert of_teacher["teacher.weights"]["known"] == initial_weights.history(str(weights))["known"]
        assert of_teacher["teacher"]["chosen_by"] == KNOWN | {"a": known}
        started = initial_weights.known_before(source, of_teacher)["source"]
        assert (started.known_before, started.chosen_before) == (KNOWN, KNOWN | {"a": known})
        assert initial_weights.known_after(config, started)["a"] == [1, 3, 7][: len(known)]
    (run / "known_identities.json").write_text("[1]")
    with pytest.raises(ConfigError, match=r"known_identities\.json is damaged"):
        initial_weights.history(backbone)
    (run / "known_identities.json").unlink()  # as in a run of an earlier version
    assert initial_weights.history(backbone)["known"] == {}


def test_identities_are_known_by_their_population():
    a, b = make_records([0, 3, 3, 1], [1] * 4, name="a"), make_records([2], [1], name="b")
    more_of_a = make_records([7], [1], name="a2", population="a")
    assert initial_weights.identities([joined([a, b]), more_of_a]) == {"a": [1, 3, 7], "b": [2]}
    histories = {"weights": {"known": {"a": [5]}}, "teacher.weights": {"known": {"a": [4], "c": [1]}}}
    seen = initial_weights.known_before({"source": a, "target": b}, histories)
    assert seen["source"].take(slice(0, 2)).known_before == {"a": [4, 5], "c": [1]}
    assert seen["target"].known_before == {}
