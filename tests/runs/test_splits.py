"""What may be trained on and scored."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import SIZE, make_records, stage_configs, stage_of

from tf_reid.config import ConfigError
from tf_reid.data.joined_records import joined
from tf_reid.methods import METHODS
from tf_reid.runs import fingerprints, splits
from tf_reid.settings import Config, Data, Evaluate

IDENTITY, CAMERA = np.repeat(np.arange(1, 7), 2), np.tile([1, 2], 6)
THREE_TRIALS = {
    "kind": "trials",
    "test_identities": [[1, 2], [3, 4], [5, 6]],
    "query_cameras": [1],
    "gallery_cameras": [2],
    "both_directions": True,
}


def records(name="a", protocols=None):
    """Six identities, each seen once by either camera."""
    found = make_records(IDENTITY, CAMERA, name=name, protocols=protocols or {"three": THREE_TRIALS})
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
    return splits.fair_trials(config, list(domains.values())[-1], splits.training_records(config, domains))


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
    trained = set(splits.training_records(config, {"source": records()})["source"].identity)
    tested = {p for t in fair(config) for p in IDENTITY[t.query]}
    assert trained | tested == set(range(1, 7)) and not trained & tested


def test_a_source_trained_on_as_a_whole_is_not_scored():
    with pytest.raises(ConfigError, match=r"Every trial of .* trained on; set data\.source_split=train"):
        fair(settings(source_split="all"))


def test_what_initial_weights_were_trained_on_is_not_scored():
    config, domains = settings(trial=1), {"source": records()}
    trained_on = splits.training_records(config, domains)

    def knowing(*numbers, population="a"):
        return trained_on | {"source": replace(trained_on["source"], known_before={population: numbers})}

    assert numbers_of(splits.fair_trials(config, domains["source"], knowing(3, population="b"))) == [1]
    with pytest.raises(ConfigError, match=r"Every trial of a in which .* initial weights were trained on"):
        splits.fair_trials(config, domains["source"], knowing(3))
    assert numbers_of(splits.fair_trials(settings("identity", target="b"), records("b"), knowing(3))) == [0, 1, 2]
    of_b = knowing(3, population="b")
    assert numbers_of(splits.fair_trials(settings("identity", target="b"), records("b"), of_b)) == [0, 2]
    assert numbers_of(splits.fair_trials_elsewhere(config, records("b"), of_b, THREE_TRIALS)) == [0, 2]


def test_identities_that_may_have_chosen_a_run_whose_networks_are_taken_are_not_scored():
    """As where SimPGAN takes a classifier whose weights were chosen by identities of the target."""
    config, target = settings("simpgan", target="b", target_split="all", validation=2), records("b")
    seen = splits.training_records(config, {"source": records("a"), "target": target})
    seen |= {"source": replace(seen["source"], chosen_before={"b": [5, 3]}, held_out={})}
    assert numbers_of(splits.fair_trials(config, target, seen)) == [0]
    assert numbers_of(splits.fair_trials_elsewhere(settings(), target, seen, THREE_TRIALS)) == [0]
    config.evaluate.identities = "validation"  # it may choose this run, too
    assert {p for t in splits.fair_trials(config, target, seen) for p in IDENTITY[t.query]} == {5, 6}


def test_a_target_whose_training_images_were_seen_is_scored_in_its_own_trial():
    config = settings("simpgan", target="b", trial=1)
    assert numbers(config) == [1]
    seen = splits.training_records(config, {"target": records("b")})["target"]
    assert not set(seen.identity) & set(IDENTITY[fair(config)[0].query])


def test_a_fold_of_a_target_with_distractors_is_trained_on_its_half_and_scored_alone():
    """As GRID's ten folds: the distractors are in every gallery, and so in no training half."""
    both = make_records([*IDENTITY, 0, 0], [*CAMERA, 2, 2], name="b", protocols={"three": THREE_TRIALS})
    protocol = THREE_TRIALS | {"both_directions": False, "distractors": [0]}
    both.protocols["three"] = protocol
    object.__setattr__(both, "default_protocol", "three")
    domains = {"source": records("a"), "target": both}
    for fold in range(3):
        config = settings("simpgan", target="b", source_split="all", trial=fold)
        seen = splits.training_records(config, domains)
        (trial,) = splits.fair_trials(config, both, seen)
        assert trial.number == fold
        tested = set(both.identity[trial.query_images]) | set(both.identity[trial.gallery])
        assert tested == {0, *THREE_TRIALS["test_identities"][fold]}
        assert set(seen["target"].identity) == set(range(1, 7)) - tested


def test_scoring_by_another_protocol_than_trained_with_keeps_trained_identities_out():
    protocols = {"three": THREE_TRIALS, "one": THREE_TRIALS | {"test_identities": [[1, 6]]}}
    both = records(protocols=protocols)
    seen = splits.training_records(settings(protocol="three"), {"source": both})
    with pytest.raises(ConfigError, match=r"keep evaluate\.protocol as it was in training"):
        splits.fair_trials(settings(protocol="one"), both, seen)


def test_a_target_seen_as_a_whole_without_its_labels_is_scored_in_every_trial():
    assert numbers(settings("simpgan", target="b", target_split="all")) == [0, 1, 2]
    assert numbers(settings("simpgan", target="b", target_split="all", source_split="all")) == [0, 1, 2]


@pytest.mark.parametrize("split", ["train", "all"])
def test_a_target_never_trained_on_is_scored_in_every_trial(split):
    assert numbers(settings("identity", target="b", target_split=split)) == [0, 1, 2]
    direct = settings("simpgan", target="b", target_split=split)
    direct.stages["translation"].steps = 0
    assert numbers(direct) == [0, 1, 2]


@pytest.mark.parametrize("trial", [0, 2])
@pytest.mark.parametrize("steps", [0, 10])
@pytest.mark.parametrize("split", ["train", "all"])
def test_a_target_that_is_the_source_as_well_is_scored_without_its_labelled_identities(steps, split, trial):
    same = records()
    domains = {"source": same, "target": same}
    config = settings("simpgan", steps=steps, source="a", target="a", target_split=split, trial=trial)
    assert numbers_of(splits.fair_trials(config, same, splits.training_records(config, domains))) == [trial]
    config.data.source_split = "all"
    with pytest.raises(ConfigError, match=r"set data\.source_split=train"):
        splits.fair_trials(config, same, splits.training_records(config, domains))


def test_what_was_fitted_to_the_targets_training_images_is_not_scored_on_them():
    direct = settings("simpgan", steps=0, target="b")
    domains = {"source": records("a"), "target": records("b")}
    seen = splits.training_records(direct, domains)
    assert numbers_of(splits.fair_trials(direct, domains["target"], seen, adapted=True)) == [0]
    assert numbers_of(splits.fair_trials(direct, domains["target"], seen)) == [0, 1, 2]


def test_an_unknown_protocol_is_named_with_those_there_are():
    both = records(protocols={"one": THREE_TRIALS, "two": THREE_TRIALS | {"test_identities": [[1, 6]]}})
    assert splits.protocol_of(both, None)["test_identities"] == THREE_TRIALS["test_identities"]
    assert splits.protocol_of(both, "two")["test_identities"] == [[1, 6]]
    with pytest.raises(ConfigError, match=r"evaluate\.protocol: a has no protocol 'three'; its protocols are one, two"):
        splits.protocol_of(both, "three")


@pytest.mark.parametrize(("population", "expected"), [("people", [0]), (None, [0, 1, 2])])
def test_another_variant_of_the_source_is_not_scored_on_its_identities(population, expected):
    """As cuhk03/labeled is not after cuhk03/detected, whose files have names of their own."""
    source, target = (make_records(IDENTITY, CAMERA, name=name, population=population) for name in ("a/one", "a/two"))
    source.file[:] = [f"one/{file}" for file in source.file]
    for one in (source, target):
        one.protocols.update(market=THREE_TRIALS)
    config = settings(source="a/one", target="a/two")
    seen = splits.training_records(config, {"source": source, "target": target})
    assert numbers_of(splits.fair_trials(config, target, seen)) == expected
    seen["source"] = source
    if population:
        message = r"a/two holds identities that are trained on; .*, or score on other identities than those of a/one\."
        with pytest.raises(ConfigError, match=message):
            splits.fair_trials(config, target, seen)
    else:
        assert numbers_of(splits.fair_trials(config, target, seen)) == expected


# --------------------------------------------------------------------- training records


def test_distractors_and_junk_are_never_in_a_source_and_junk_never_in_a_target():
    identity = np.array([1, 1, 0, -1, 2, 2, 0, -1])
    split = ["train"] * 4 + ["query", "gallery", "gallery", "gallery"]
    domains = {name: make_records(identity, np.ones(8, np.int64), split, name=name) for name in ("source", "target")}
    found = splits.training_records(settings(target="b", source_split="all", target_split="all"), domains)
    assert found["source"].identity.tolist() == [1, 1, 2, 2]
    assert found["target"].identity.tolist() == [1, 1, 0, 2, 2, 0]
    found = splits.training_records(settings(target="b"), domains)
    assert found["source"].identity.tolist() == [1, 1]
    assert found["target"].identity.tolist() == [1, 1, 0]


def test_the_protocol_asked_for_decides_what_the_scored_domain_trains_on():
    protocols = {"three": THREE_TRIALS, "one": THREE_TRIALS | {"test_identities": [[1, 6]]}}
    domains = {name: records(name, protocols) for name in ("source", "target")}

    def identities(config):
        return {
            domain: sorted(set(r.identity.tolist())) for domain, r in splits.training_records(config, domains).items()
        }

    both = settings("simpgan", target="b", protocol="one")
    assert identities(both) == {"source": [3, 4, 5, 6], "target": [2, 3, 4, 5]}
    domains.pop("target")
    assert identities(settings(protocol="one")) == {"source": [2, 3, 4, 5]}


def test_no_image_to_train_on_is_said_with_the_key():
    whole = records("grid", {"whole": THREE_TRIALS | {"test_identities": [list(range(1, 7))]}})
    with pytest.raises(ConfigError, match=r"grid has no training image; set data\.target_split=all"):
        splits.training_records(settings("simpgan", target="b"), {"target": whole})


def test_no_message_sends_to_a_setting_that_is_refused_in_turn():
    """A data set of test identities only, which is scored itself: training on `all` of it would not be fair."""
    test_only = make_records(IDENTITY, CAMERA, np.tile(["query", "gallery"], 6), name="mine")
    message = (
        r"mine has no training image, and a score .* put other identities in its split train, or .*\(data\.target\)"
    )
    for name, domains in (("one", {"source": test_only}), ("both", {"source": test_only, "target": test_only})):
        config = settings(target="b" if name == "both" else None)
        with pytest.raises(ConfigError, match=message):
            splits.training_records(config, domains)
    with pytest.raises(ConfigError, match=r"mine has no training image; set data\.source_split=all to train on all"):
        splits.training_records(settings(target="b"), {"source": test_only, "target": records("b")})
    distractors = make_records(np.zeros(4, int), np.ones(4, int), name="mine")
    with pytest.raises(ConfigError, match="mine has no training image: all its images are distractors or junk"):
        splits.training_records(settings(source_split="all"), {"source": distractors})


def test_only_the_cameras_asked_for_are_trained_on_and_all_are_scored(monkeypatch):
    monkeypatch.setattr(splits.tfds_builders, "builder", lambda spec, data_dir: spec)
    monkeypatch.setattr(splits.tfds_builders, "prepare", lambda builder, manual_dir: builder)
    monkeypatch.setattr(splits, "load_records", records)
    one = settings(source_cameras=[2])
    domains = splits.load_data(one)
    seen = splits.training_records(one, domains)
    assert set(domains["source"].camera) == {1, 2} and set(seen["source"].camera) == {2}
    assert all(set(CAMERA[t.query]) == {1} for t in splits.fair_trials(one, domains["source"], seen)[::2])
    of_two = settings("simpgan", source_cameras=[1], target="b")
    both = splits.training_records(of_two, splits.load_data(of_two))
    assert set(both["source"].camera) == {1} and set(both["target"].camera) == {1, 2}
    with pytest.raises(ConfigError, match=r"data\.source_cameras: a has no camera 7; its cameras are 1, 2\."):
        splits.load_data(settings(source_cameras=[1, 7]))


def test_a_folder_that_is_moved_or_touched_keeps_its_fingerprint(tmp_path):
    """Images and their order: a training that goes on draws the same batches."""
    crops = tmp_path / "here" / "crops"
    crops.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for identity, camera, shot in np.ndindex(4, 2, 2):
        path = crops / f"{identity + 1}_c{camera + 1}_{shot}.png"
        cv2.imwrite(str(path), rng.integers(256, size=(16, 8, 3), dtype=np.uint8))

    more = Path(shutil.copytree(crops, tmp_path / "here" / "more"))

    def fingerprint(*folders):
        specs = [
            {"name": "folder", "root": str(one), "pattern": r"(?P<person>\d+)_c(?P<camera>\d+)"} for one in folders
        ]
        config = settings(source=specs if len(specs) > 1 else specs[0], data_dir=str(tmp_path / "data"))
        return fingerprints.fingerprint(splits.load_data(config)["source"])

    before, of_list = fingerprint(crops), fingerprint(crops, more)
    assert (of_list["images"], of_list["identities"]) == (16 + 8, 4 + 2)  # the first, and half of the second
    crops, more = crops.rename(tmp_path / "elsewhere"), more.rename(tmp_path / "nowhere")
    for path in crops.iterdir():
        os.utime(path, (0, 0))
    after = fingerprint(crops)
    assert before["name"] != after["name"] and fingerprints.same_images(before, after)
    assert fingerprints.same_images(of_list, fingerprint(crops, more))
    path.write_bytes(next(other for other in crops.iterdir() if other != path).read_bytes())
    assert not fingerprints.same_images(before, fingerprint(crops))
    assert not fingerprints.same_images(of_list, fingerprint(crops, more))


# --------------------------------------------------------------------- several sources and targets

OF_B = THREE_TRIALS | {"test_identities": [[2, 3]]}


@pytest.fixture
def named(monkeypatch):
    """Data sets by name: a, b (each of six identities, with protocols of its own) and more of a's people."""
    sets = {
        "a": records("a"),
        "b": records("b", {"own": OF_B}),
        "a2": make_records(
            [1, 2, 7, 0], [1, 2, 3, 3], ["train", "train", "train", "gallery"], name="a2", population="a"
        ),
        "tested": make_records([1, 1], [1, 2], ["query", "gallery"], name="tested"),
    }
    monkeypatch.setattr(splits.tfds_builders, "builder", lambda spec, data_dir: spec)
    monkeypatch.setattr(splits.tfds_builders, "prepare", lambda builder, manual_dir: builder)
    monkeypatch.setattr(splits, "stay_in_files", lambda builders: False)
    monkeypatch.setattr(splits, "load_records", lambda name, in_files=None: sets[name])


def test_all_sources_are_trained_on_and_the_first_is_scored(named):
    config = settings(source=["a", "b"], trial=1)
    domains = splits.load_data(config)
    seen = splits.training_records(config, domains)
    # The first leaves out its trial 1, the second the first trial of its own protocol: 6 is added to its numbers.
    assert sorted(set(seen["source"].identity)) == [1, 2, 5, 6, 7, 10, 11, 12]
    assert set(seen["source"].camera) == {1, 2, 4, 5}
    assert len(domains["source"]) == 12 + 8  # of the second there is nothing else
    trials = splits.fair_trials(config, domains["source"], seen)
    assert numbers_of(trials) == [1]
    for trial in trials:
        assert set(domains["source"].identity[np.concatenate([trial.query, trial.gallery])]) == {3, 4}
    assert fingerprints.fingerprint(seen["source"])["identities"] == 8


def test_all_of_every_source_is_trained_on_where_a_target_is_scored(named):
    config = settings("identity", source=["a", "b"], source_split="all", target="tested")
    domains = splits.load_data(config)
    assert splits.training_records(config, domains | {"target": records("c")})["source"].identities == 12


def test_a_second_source_with_the_targets_people_is_not_scored(named):
    config = settings("simpgan", source=["b", "a"], source_split="all", target="a")
    domains = splits.load_data(config)
    with pytest.raises(ConfigError, match=r"Every trial of a holds identities .* than those of b \+ a"):
        splits.fair_trials(config, domains["target"], splits.training_records(config, domains))


def test_people_of_one_population_are_one_person_each_and_are_not_tested(named):
    config = settings(source=["a", "a2"])
    domains = splits.load_data(config)
    seen = splits.training_records(config, domains)
    assert sorted(set(seen["source"].identity)) == [3, 4, 5, 6, 7]  # 1 and 2 are the first trial's, in a2 as well
    (trial, _) = splits.fair_trials(config, domains["source"], seen)
    assert len(trial.query) == len(trial.gallery) == 2  # a2's images of 1 and 2 take no part


def test_validation_identities_are_of_the_source_that_is_scored(named):
    config = settings(source=["a", "b"], validation=2)
    domains = splits.load_data(config)
    assert sorted(set(splits.validation_records(config, domains).identity)) == [5, 6]
    assert sorted(set(splits.training_records(config, domains)["source"].identity)) == [3, 4, 7, 10, 11, 12]
    (validation, _) = splits.validation_trials(config, domains["source"])
    assert set(domains["source"].identity[validation.query]) == {5, 6}


def test_all_targets_are_trained_on_and_the_first_is_scored(named):
    config = settings("simpgan", source="b", target=["a", "a2"], trial=2)
    domains = splits.load_data(config)
    seen = splits.training_records(config, domains)
    assert sorted(set(seen["target"].identity)) == [1, 2, 3, 4, 7]
    assert numbers_of(splits.fair_trials(config, domains["target"], seen)) == [2]


def test_a_second_source_without_training_images_is_named(named):
    with pytest.raises(ConfigError, match=r"^tested has no training image; leave it out of the list data\.source"):
        splits.load_data(settings(source=["a", "tested"]))


def test_a_data_set_that_a_list_names_twice_is_refused(named):
    splits.build_data(settings("simpgan", source=["a", "b"], target=["a", "a2"]))
    with pytest.raises(ConfigError, match=r"data\.target names a twice, so that its images would count twice"):
        splits.build_data(settings("simpgan", source="b", target=["a", "b", "a"]))


def test_cameras_are_chosen_of_one_source_alone():
    with pytest.raises(ValueError, match="source_cameras numbers the cameras of one data set, but source is a list"):
        settings(source=["a", "b"], source_cameras=[1])
    with pytest.raises(ValueError, match="source"):
        settings(source=[])
    assert settings(source=["a"], source_cameras=None).data.sets_of("source") == ["a"]


def test_another_data_set_is_scored_without_the_identities_that_were_trained_on(named):
    config = settings("simpgan", source=["b", "a2"], target="b", trial=0)
    seen = splits.training_records(config, splits.load_data(config))

    def fair_on(records, protocol):
        return numbers_of(splits.fair_trials_elsewhere(config, records, seen, protocol))

    assert fair_on(records("c"), THREE_TRIALS) == [0, 1, 2]
    assert fair_on(records("a"), THREE_TRIALS) == [1, 2]  # a2 shows 1 and 2 of a
    assert fair_on(records("b"), OF_B) == [0]  # of the target the identities count, although they had no labels
    with pytest.raises(ConfigError, match=r"Every trial of b shows identities that the run was trained on"):
        fair_on(records("b"), THREE_TRIALS)
    of_list = settings("simpgan", source="b", target=["b", "a2"])  # whose second one shows 1 and 2 of a
    by_list = splits.training_records(of_list, splits.load_data(of_list))
    assert numbers_of(splits.fair_trials_elsewhere(of_list, records("a"), by_list, THREE_TRIALS)) == [1, 2]
    config.stages["translation"].steps = 0
    seen["source"] = records("a")
    assert fair_on(records("b"), THREE_TRIALS) == [0, 1, 2]


# --------------------------------------------------------------------- validation identities

HALVES = {"kind": "market"}
OWN = THREE_TRIALS | {"both_directions": False, "validation_identities": [[5], [6], [1]]}


def of_halves(**data):
    """Identities 1 to 4 in the split train, 5 and 6 in query and gallery; the configuration of a run on them."""
    split = np.where(IDENTITY <= 4, "train", np.where(CAMERA == 1, "query", "gallery"))
    found = make_records(IDENTITY, CAMERA, split, name="a", protocols={"halves": HALVES})
    object.__setattr__(found, "default_protocol", "halves")
    return found, settings(**data)


def identities_of(records):
    return sorted(set(records.identity.tolist()))


def test_the_last_training_identities_are_held_out_and_scored_where_asked_for():
    found, config = of_halves(validation=2)
    domains = {"source": found}
    seen = splits.training_records(config, domains)
    assert identities_of(seen["source"]) == [1, 2]
    assert identities_of(splits.validation_records(config, domains)) == [3, 4]
    (test,) = splits.fair_trials(config, found, seen)
    assert set(IDENTITY[test.query]) == {5, 6}
    config.evaluate.identities = "validation"
    (validation,) = splits.fair_trials(config, found, seen)
    assert validation.name == "validation" and validation.same_camera_ignored
    assert IDENTITY[validation.query].tolist() == IDENTITY[validation.gallery].tolist() == [3, 3, 4, 4]


def test_a_protocol_holds_out_its_own_validation_identities_trial_by_trial():
    found = records(protocols={"own": OWN})
    for trial, (held_out, trained) in enumerate([([5], [3, 4, 6]), ([6], [1, 2, 5]), ([1], [2, 3, 4])]):
        config = settings(trial=trial)
        seen = splits.training_records(config, {"source": found})
        assert identities_of(seen["source"]) == trained
        assert identities_of(splits.validation_records(config, {"source": found})) == held_out
        config.evaluate.identities = "validation"
        (scored,) = splits.fair_trials(config, found, seen)
        assert scored.number == trial
        assert (IDENTITY[scored.query], CAMERA[scored.query]) == (held_out, [1])
        assert (IDENTITY[scored.gallery], CAMERA[scored.gallery]) == (held_out, [2])


def test_a_trial_that_a_protocol_with_validation_identities_lacks_is_named():
    with pytest.raises(ConfigError, match=r"There is no trial 3: this protocol has 3, counted from 0\."):
        splits.training_records(settings(trial=3), {"source": records(protocols={"own": OWN})})


def test_validation_identities_of_a_trial_are_among_its_training_identities():
    found, config = records(), settings(trial=1, validation=1)
    assert identities_of(splits.training_records(config, {"source": found})["source"]) == [1, 2, 5]
    config.evaluate.identities = "validation"
    forward, reversed_ = splits.validation_trials(config, found)
    assert (forward.name, reversed_.name) == ("validation", "validation, reversed")
    assert IDENTITY[forward.query].tolist() == [6] and CAMERA[reversed_.query].tolist() == [2]


def test_a_gallery_of_named_files_holds_all_images_of_validation_identities():
    protocol = THREE_TRIALS | {"both_directions": False, "gallery_files": [["1.png"], ["5.png"], ["9.png"]]}
    del protocol["gallery_cameras"]
    found = records(protocols={"named": protocol})
    (validation,) = splits.validation_trials(settings(validation=2), found)
    assert IDENTITY[validation.gallery].tolist() == [5, 6] and CAMERA[validation.gallery].tolist() == [2, 2]


@pytest.mark.parametrize(
    ("protocols", "data", "message"),
    [
        (
            {"three": THREE_TRIALS},
            {"validation": 4},
            "is 4, but a has 4 training identities; hold out",
        ),
        ({"own": OWN}, {"validation": 1}, "the protocol holds out 1 identities of its own; set it to 0"),
        ({"three": THREE_TRIALS}, {}, r"No training identity is held out .*: set data\.validation,"),
    ],
)
def test_what_cannot_be_held_out_is_refused_with_the_key(protocols, data, message):
    with pytest.raises(ConfigError, match=message):
        splits.validation_trials(settings(**data), records(protocols=protocols))


@pytest.mark.parametrize(("fraction", "held_out"), [(0.1, [3, 4]), (0.74, [2, 3, 4])])
def test_a_fraction_holds_out_two_identities_at_least_whatever_the_order_of_files(fraction, held_out):
    found, config = of_halves(validation=fraction)
    for order in (np.arange(len(found)), np.random.default_rng(0).permutation(len(found))):
        assert splits.validation_identities(config, found.take(order)).tolist() == held_out


@pytest.mark.parametrize("target_split", ["train", "all"])
def test_of_a_target_training_identities_are_held_out_and_their_images_not_trained_on(target_split):
    """Also of a source of the same people; never test identities, though `all` trains on their images."""
    found, config = of_halves(target="b", validation=2, target_split=target_split)
    config.method["name"] = "simpgan"
    config.stages = {"translation": stage_of(2)}
    same_people = make_records(IDENTITY, CAMERA, found.split, name="night", population="a")
    for source in (same_people, make_records(IDENTITY, CAMERA, name="other")):
        domains = {"source": source, "target": found}
        seen = splits.training_records(config, domains)
        assert identities_of(seen["target"]) == ([1, 2] if target_split == "train" else [1, 2, 5, 6])
        assert identities_of(seen["source"]) == ([1, 2] if source is same_people else [1, 2, 3, 4, 5, 6])
        assert identities_of(splits.validation_records(config, domains)) == [3, 4]
        validating = config.model_copy(update={"evaluate": Evaluate(identities="validation")})
        (trial,) = splits.fair_trials(validating, found, seen)
        assert set(IDENTITY[trial.query]) == set(IDENTITY[trial.gallery]) == {3, 4}


def test_validation_identities_are_left_out_of_a_later_source_of_the_same_people():
    target, config = of_halves(target="b", validation=2)
    same_people = make_records(IDENTITY, CAMERA, target.split, name="night", population="a")
    source = joined([make_records(IDENTITY, CAMERA, name="other"), same_people])
    seen = splits.training_records(config, {"source": source, "target": target})["source"]
    assert sorted(set(seen.numbers_in("a").tolist())) == [-1, 1, 2]
    assert sorted(set(seen.numbers_in("other").tolist())) == [-1, 1, 2, 3, 4, 5, 6]


def test_distractors_of_a_gallery_are_no_validation_identities():
    identity = np.where(IDENTITY == 6, 0, IDENTITY)
    protocol = {**THREE_TRIALS, "distractors": [0], "test_identities": [[1, 2]]}
    found = make_records(identity, CAMERA, name="a", protocols={"grid": protocol})
    object.__setattr__(found, "default_protocol", "grid")
    config = settings(validation=0.5)
    assert splits.validation_identities(config, found).tolist() == [4, 5]
    for trial in splits.validation_trials(config, found):
        assert set(identity[trial.gallery]) == {4, 5}


def test_validation_identities_are_not_scored_in_another_trial_whose_test_has_them():
    """The labels of a target train nothing, so that all its trials would be scored; but these may have chosen the run.

    The first trial's 5 and 6 are in the third one's test; of a source, another trial may test no trained identity.
    """
    domains = {"source": records("a"), "target": records("b")}

    def fair_of(config, **evaluate):
        seen = splits.training_records(config, domains)
        scored = config.model_copy(update={"evaluate": Evaluate(**evaluate)})
        return splits.fair_trials(scored, domains[splits.scored_domain(config)], seen)

    for method in ("identity", "simpgan"):
        assert numbers_of(fair_of(settings(method, target="b", target_split="all", validation=2))) == [0, 1]
        assert numbers_of(fair_of(settings(method, target="b", target_split="all"))) == [0, 1, 2]
    few = settings(labelled_identities=1, validation=2)
    assert numbers_of(fair_of(few)) == [0]  # the second tests the labelled one, the third 5 and 6
    (forward, _) = fair_of(few, identities="validation")
    assert set(IDENTITY[forward.query]) == {5, 6}
    domains["source"].protocols["last"] = THREE_TRIALS | {"test_identities": [[5, 6]]}
    with pytest.raises(ConfigError, match=r"holds validation identities, .*; keep evaluate\.protocol as it was"):
        fair_of(few, protocol="last")
    seen = splits.training_records(few, domains)
    with pytest.raises(ConfigError, match=r"trained on or may have been chosen by"):
        splits.fair_trials_elsewhere(few, domains["source"], seen, domains["source"].protocols["last"])


def test_validation_identities_of_one_camera_are_scored_where_their_own_camera_counts():
    found, config = of_halves(validation=2)
    found.camera[:] = 1
    found.protocols["same_camera"] = {"kind": "market", "same_camera": True}
    config.evaluate = Evaluate(protocol="same_camera", identities="validation")
    (trial,) = splits.fair_trials(config, found, splits.training_records(config, {"source": found}))
    assert (trial.name, trial.same_camera_ignored) == ("validation", False)
    assert IDENTITY[trial.query].tolist() == IDENTITY[trial.gallery].tolist() == [3, 4]
    assert not set(trial.query) & set(trial.gallery)
