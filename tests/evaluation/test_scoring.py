"""What an evaluation leaves behind: metrics.json, rank lists, the projector's log, the table."""

import json
from types import SimpleNamespace

import cv2
import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import SIZE, build, make_records, stage_configs

from tf_reid import config as configuration
from tf_reid.config import ConfigError
from tf_reid.evaluation import extraction, pages, report, scoring
from tf_reid.evaluation.comparison import Comparison
from tf_reid.evaluation.feature_store import Store
from tf_reid.methods import METHODS
from tf_reid.methods.representation import Representation
from tf_reid.pictures.grids import QUERY_FRAME, RIGHT_FRAME, WRONG_FRAME
from tf_reid.runs import splits
from tf_reid.settings import Config, Data

IDENTITY, CAMERA = np.repeat(np.arange(1, 7), 4), np.tile([1, 1, 2, 2], 6)
SPLIT = np.where(IDENTITY <= 3, "train", np.tile(["query", "gallery", "gallery", "gallery"], 6))
RATES = {"rank1", "rank5", "rank10", "rank20", "mAP", "mAP_trapezoid", "mINP"}
KEYS = RATES | {
    "queries",
    "dropped",
    "dropped_because",
    "gallery",
    "cmc",
    "spread",
    "trials",
    "protocol",
    "description",
}


def perfect(images):
    """Knows the person by the record's number, which `make_records` paints in red."""
    index = tf.cast(tf.round((images[:, 0, 0, 0] + 1.0) * 127.5), tf.int32)
    return tf.one_hot(tf.gather(tf.constant(IDENTITY, tf.int32), index), 8)


def blind(images):
    return tf.ones((tf.shape(images)[0], 8))


def model(**encoders):
    """A method, as evaluation sees it."""
    found = {name: Representation({"image": encoder}) for name, encoder in encoders.items()}
    return SimpleNamespace(representations=lambda: found)


@pytest.fixture
def config():
    return Config(
        data=Data(source="a", target="b", image_size=list(SIZE)),
        method={"name": "simpgan"},
        stages=stage_configs(METHODS["simpgan"]),
    )


@pytest.fixture(scope="module")
def domains():
    return {domain: make_records(IDENTITY, CAMERA, SPLIT, name=domain) for domain in ("source", "target")}


def seen(config, domains):
    return splits.training_records(config, domains)


def test_metrics_are_written_by_representation_in_per_cent(tmp_path, config, domains, capsys):
    returned = report.evaluate(model(raw=blind, translated=perfect), config, domains, seen(config, domains), tmp_path)
    written = json.loads((tmp_path / "metrics.json").read_text())
    assert list(written) == list(returned) == ["raw", "translated"]
    for result in written.values():
        assert set(result) == KEYS
        assert (result["queries"], result["gallery"], result["trials"], result["protocol"]) == (3, 9, 1, "market")
        assert len(result["cmc"]) == 50 and set(result["spread"]) == RATES
    assert all(written["translated"][key] == 100 for key in RATES)
    # Without a difference between images the gallery keeps its order: with its two right images (the third is the
    # query's own camera's, and left out), identities 1 to 3 have theirs at 1 and 2 | 4 and 5 | 7 and 8 ...
    first = np.array([1, 4, 7])  # ... of those 8 images that are not left out
    assert written["raw"]["rank1"] == pytest.approx(100 / 3)
    assert written["raw"]["rank5"] == pytest.approx(200 / 3)
    assert written["raw"]["rank10"] == 100
    assert written["raw"]["mAP"] == pytest.approx(np.mean(100 * (1 / first + 2 / (first + 1)) / 2))
    assert written["raw"]["mINP"] == pytest.approx(np.mean(100 * 2 / (first + 1)))

    printed = capsys.readouterr().out
    assert "target, protocol market, 1 trial(s): 3 queries, 9 gallery images" in printed
    row = next(line for line in printed.splitlines() if line.startswith("translated"))
    assert row.split()[1:] == ["100.0"] * 7
    assert f"tensorboard --logdir {tmp_path}" in printed


def test_every_representation_has_a_rank_list_and_a_projector_log(tmp_path, config, domains):
    report.evaluate(model(raw=blind, translated=perfect), config, domains, seen(config, domains), tmp_path)
    assert cv2.imread(str(tmp_path / "evaluation" / "cmc.png")).std() > 0
    for name in ("raw", "translated"):
        picture = cv2.imread(str(tmp_path / "evaluation" / f"rank_list_{name}.png"))[..., ::-1]
        colours = {tuple(colour) for colour in picture.reshape(-1, 3).tolist()}
        assert {RIGHT_FRAME, WRONG_FRAME, QUERY_FRAME} <= colours  # 8 images are shown, of which 2 are right
        folder = tmp_path / "tensorboard" / "embeddings" / name
        assert {path.name for path in folder.iterdir()} > {"features.tsv", "sprite.png", "projector_config.pbtxt"}
        header, *rows = [line.split("\t") for line in (folder / "metadata.tsv").read_text().splitlines()]
        assert header == ["identity", "camera", "role", "file"]
        assert [row[2] for row in rows] == ["query"] * 3 + ["gallery"] * 9
        assert len(np.loadtxt(folder / "features.tsv")) == 12
    identities = np.loadtxt(folder / "features.tsv").argmax(axis=1)  # the perfect encoder's
    np.testing.assert_array_equal(identities, [int(row[0]) for row in rows])


def test_the_projector_shows_components_of_features_that_are_too_wide(tmp_path, config, domains, monkeypatch):
    monkeypatch.setattr(report.pages, "WIDEST", 2)
    report.evaluate(model(raw=perfect), config, domains, seen(config, domains), tmp_path)
    found = np.loadtxt(tmp_path / "tensorboard" / "embeddings" / "raw" / "features.tsv")
    assert found.shape[0] == 12 and found.shape[1] <= 12 and np.isfinite(found).all()
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-4)


def test_the_rank_list_leaves_out_what_the_score_leaves_out(tmp_path, config, domains, monkeypatch):
    shown = {}
    monkeypatch.setattr(
        pages.grids,
        "rank_list",
        lambda query, gallery, order, correct, captions, found: (
            shown.update(correct=correct, captions=captions, found=found) or np.zeros((8, 8, 3), np.uint8)
        ),
    )
    report.evaluate(model(raw=perfect), config, domains, seen(config, domains), tmp_path)
    for caption, found, correct in zip(shown["captions"], shown["found"], shown["correct"], strict=True):
        identity, camera = caption.split("\n")
        assert correct[:2].all() and not correct[2:8].any()
        assert all(
            text.startswith(f"{identity}\n") and camera not in text and text.endswith("0.000") for text in found[:2]
        )


def test_metrics_over_several_trials_come_with_their_spread(config):
    first = {**dict.fromkeys(RATES, 50.0), "trials": 10, "queries": 3, "gallery": 9, "dropped": 2}
    first |= {"dropped_because": {"nobody came": 1.5, "it was dark": 0.5}}
    first |= {"protocol": "folds", "description": "Over ten seeded folds."}
    text = report.table({"raw": first | {"spread": dict.fromkeys(RATES, 2.5)}}, "grid")
    assert "Over ten seeded folds." in text
    assert "grid, protocol folds, 10 trial(s)" in text
    assert text.splitlines()[3].split() == ["raw"] + ["50.0", "±", "2.5"] * 7
    assert "2 queries have no match in the gallery and are left out:" in text
    assert "- 1.5: nobody came" in text and "- 0.5: it was dark" in text


def test_counts_have_all_their_digits_and_means_of_counts_one_decimal():
    assert [report.count(number) for number in (0, 26_543_210, 4.0, 37 / 3)] == ["0", "26543210", "4", "12.3"]


def test_baselines_are_scored_beside(tmp_path, config, domains, capsys):
    keras.utils.set_random_seed(0)
    images = keras.Input((*SIZE, 3))
    x = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3)(images))
    encoder = keras.Model(images, keras.layers.GlobalAveragePooling2D()(x))
    found = report.evaluate(model(raw=encoder), config, domains, seen(config, domains), tmp_path, baselines=True)
    assert list(found) == ["raw", "pixels", "colour_histogram", "colour_covariance", "adaptive_batch_norm"]
    assert all(set(result) == KEYS for result in json.loads((tmp_path / "metrics.json").read_text()).values())

    alone = config.model_copy(update={"data": Data(source="a", image_size=list(SIZE))})
    source = {"source": domains["source"]}
    found = report.evaluate(
        model(raw=encoder), alone, source, splits.training_records(alone, source), tmp_path, baselines=True
    )
    assert list(found) == ["raw", "pixels", "colour_histogram"]  # the others bring two domains together

    two = SimpleNamespace(representations=lambda: {"raw": Representation({"probe": encoder, "gallery": encoder})})
    found = report.evaluate(two, config, domains, seen(config, domains), tmp_path, baselines=True)
    assert list(found) == ["raw", "pixels", "colour_histogram"]  # and adapt one encoder
    assert "are left out: they adapt one encoder" in capsys.readouterr().out


def test_a_baseline_is_not_scored_on_the_images_that_it_was_adapted_to(config):
    two = {"kind": "trials", "query_cameras": [1], "gallery_cameras": [2], "test_identities": [[1, 2, 3], [4, 5, 6]]}
    domains = {
        name: make_records(IDENTITY, CAMERA, name=name, protocols={"market": two}) for name in ("source", "target")
    }
    direct = config.model_copy(update={"stages": stage_configs(METHODS["simpgan"], steps=0)})
    of_run, images = splits.training_records(direct, domains), keras.Input((*SIZE, 3))
    encoder = keras.Model(images, keras.layers.GlobalAveragePooling2D()(images))
    trials = splits.fair_trials(direct, domains["target"], of_run)
    found = scoring.score_baselines(model(raw=encoder), direct, domains["target"], trials, of_run)
    assert {name: metrics["trials"] for name, metrics in found.items()} == {
        "pixels": 2,
        "colour_histogram": 2,
        "colour_covariance": 1,
    }


def test_scores_are_those_of_an_evaluation_without_files(tmp_path, config, domains):
    found = scoring.scores(model(raw=perfect), config, domains, seen(config, domains))
    assert found["raw"]["rank1"] == 100 and set(found["raw"]) == KEYS
    assert not list(tmp_path.iterdir())


# --------------------------------------------------------------------- features kept with the run


@pytest.fixture
def looked_at(monkeypatch):
    """How many records went through an encoder, call by call."""
    counts, original = [], extraction.feature_batches

    def watched(encoder, records, *rest):
        counts.append(len(records))
        return original(encoder, records, *rest)

    monkeypatch.setattr(extraction, "feature_batches", watched)
    return counts


def test_features_are_kept_by_an_evaluation_and_not_by_scores(tmp_path, config, domains, encoder, looked_at):
    images = seen(config, domains)
    first = report.evaluate(model(raw=encoder), config, domains, images, tmp_path)
    assert looked_at == [12]  # no training image
    config.evaluate.distance = "euclidean"
    second = report.evaluate(model(raw=encoder), config, domains, images, tmp_path)
    assert looked_at == [12] and second["raw"]["mAP"] != first["raw"]["mAP"]
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "evaluation" / "features").iterdir()}
    assert scoring.scores(model(raw=encoder), config, domains, images)["raw"] | {"cmc": 0} == second["raw"] | {"cmc": 0}
    assert looked_at == [12, 12]  # the weights of a training change: neither read nor written
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "evaluation" / "features").iterdir()}


def test_an_encoder_of_two_representations_looks_at_the_images_once(tmp_path, config, domains, encoder, looked_at):
    images = seen(config, domains)
    found = report.evaluate(model(raw=encoder, learned=encoder), config, domains, images, tmp_path)
    assert looked_at == [12] and found["raw"]["mAP"] == found["learned"]["mAP"]
    encoder.set_weights([2 * values for values in encoder.get_weights()])
    report.evaluate(model(raw=encoder), config, domains, images, tmp_path)
    assert len(list((tmp_path / "evaluation" / "features").glob("*.npy"))) == 1  # what no longer holds is removed


class Counted(tf.Module):
    """In place of a network's `call`: counts the images that go through it."""

    def __init__(self, network, monkeypatch):
        super().__init__()
        self.images, self.original = 0, network.call
        monkeypatch.setattr(network, "call", self.count)

    def count(self, images, *args, **kwargs):
        def add(count):
            self.images += int(count)

        tf.py_function(add, [tf.shape(images)[0]], [])
        return self.original(images, *args, **kwargs)


def test_a_trunk_of_several_representations_sees_an_image_once(tmp_path, config, domains, monkeypatch):
    """DG-Net's features are of an image and its mirror image: E_a sees both, once for both heads and each alone."""
    dgnet, images = build("dgnet"), seen(config, domains)
    dgnet.teacher.embedding.layers[-1].moving_mean.assign(tf.ones(512))  # a teacher that was trained is scored too
    by_name = scoring.representations(dgnet, config, domains["target"])
    alone = {
        name: extraction.extract(one.encoders["image"], domains["target"].take(slice(12, None)), SIZE)
        for name, one in by_name.items()
        if name in ("raw", "fine")
    }
    first = next(x for x in dgnet.teacher.backbone._flatten_layers() if isinstance(x, keras.layers.Conv2D))
    appearance, teacher = Counted(dgnet.E_a, monkeypatch), Counted(first, monkeypatch)
    trials = splits.fair_trials(config, domains["target"], images)
    extraction.compiled.cache_clear()
    for store in (None, Store(tmp_path)):
        found = dict(scoring.comparisons(by_name, domains["target"], trials, config, store))
        assert list(found) == ["raw", "primary", "fine", "teacher"]
        assert (appearance.images, teacher.images) == (2 * 12, 2 * 12)
        for name, features in alone.items():
            np.testing.assert_array_equal(found[name].query[12:], features)
        appearance.images = teacher.images = 0
    again = dict(scoring.comparisons(by_name, domains["target"], trials, config, Store(tmp_path)))
    assert appearance.images == teacher.images == 0
    for name, compared in again.items():
        np.testing.assert_array_equal(compared.query, found[name].query)


# --------------------------------------------------------------------- re-ranking


@pytest.fixture(scope="module")
def twelve_identities():
    """Ten of them scored, by two queries and two gallery images each."""
    identity, camera = np.repeat(np.arange(1, 13), 4), np.tile([1, 1, 2, 2], 12)
    split = np.where(identity <= 2, "train", np.tile(["query", "query", "gallery", "gallery"], 12))
    return {domain: make_records(identity, camera, split, name=domain) for domain in ("source", "target")}


def test_reranking_is_a_setting(tmp_path, config, twelve_identities, encoder):
    images = seen(config, twelve_identities)
    plain = report.evaluate(model(raw=encoder), config, twelve_identities, images, tmp_path)
    config.evaluate.rerank = True
    found = report.evaluate(model(raw=encoder), config, twelve_identities, images, tmp_path)
    assert found["raw"]["mAP"] != plain["raw"]["mAP"] and set(found["raw"]) == KEYS
    with pytest.raises(ConfigError, match=r"threshold needs evaluate\.rerank=false"):
        report.evaluate(model(raw=encoder), config, twelve_identities, images, tmp_path, rates=(0.1,))


# --------------------------------------------------------------------- verification


def test_thresholds_are_set_on_one_half_of_the_identities_and_tried_on_the_other(tmp_path, config, twelve_identities):
    identity = twelve_identities["target"].identity

    def knows(images):
        index = tf.cast(tf.round((images[:, 0, 0, 0] + 1.0) * 127.5), tf.int32)
        return tf.one_hot(tf.gather(tf.constant(identity, tf.int32), index), 16)

    images = seen(config, twelve_identities)
    encoders = model(raw=blind, translated=knows)
    found = report.evaluate(encoders, config, twelve_identities, images, tmp_path, rates=(0.1,))
    written = json.loads((tmp_path / "metrics.json").read_text())
    right, coin = written["translated"]["verification"], written["raw"]["verification"]
    # Ten scored identities: 5 x 2 queries and 5 x 2 gallery images in either half.
    for one in (right, coin):
        assert (one["same_pairs"], one["different_pairs"]) == (20, 80)
        assert (one["calibration_same_pairs"], one["calibration_different_pairs"]) == (20, 80)
    assert right["eer"] == 0 and coin["eer"] == 50
    at_rate, at_equal = right["thresholds"]
    assert (at_rate["set_at"], at_equal["set_at"]) == (10, "equal")
    assert 0.4 < at_equal["threshold"] < 0.6 and (at_equal["true_match_rate"], at_equal["false_match_rate"]) == (100, 0)
    assert found["raw"]["verification"] == coin
    assert cv2.imread(str(tmp_path / "evaluation" / "roc.png")).shape == (480, 640, 3)
    with pytest.raises(ValueError, match=r"rate of 0\.001 needs at least 1000 pairs of different identities"):
        report.evaluate(encoders, config, twelve_identities, images, tmp_path, rates=(0.001,))


def test_a_trained_run_is_scored_with_another_beta_and_with_nothing_else_changed(config):
    of_dgnet = config.model_copy(update={"method": {"name": "dgnet"}})
    scoring.check_overrides(of_dgnet, ["method.fine_at_test=0.25", "evaluate.rerank=true"])
    with pytest.raises(ConfigError, match=r"method\.fine_ratio=1.*only evaluate\.\*, method\.fine_at_test, data"):
        scoring.check_overrides(of_dgnet, ["method.fine_ratio=1"])
    with pytest.raises(ConfigError, match=r"--set method\.fine_at_test=1: of a trained run only evaluate\.\*, data"):
        scoring.check_overrides(config, ["method.fine_at_test=1"])


@pytest.mark.parametrize(("split", "steps", "said"), [("all", 10, True), ("train", 10, False), ("all", 0, False)])
def test_scores_say_whether_the_training_saw_the_scored_images(config, domains, split, steps, said):
    config.data.target_split, config.stages["translation"].steps = split, steps
    found = scoring.scores(model(raw=perfect), config, domains, seen(config, domains))["raw"]["description"]
    assert ("Transductive: the training saw the scored images, without their labels." in found) == said


def test_validation_identities_calibrate_where_there_are_any(tmp_path, config, capsys):
    protocol = {
        "kind": "trials",
        "test_identities": [[1, 2, 3], [1, 2, 4]],
        "validation_identities": [[5, 6], [5, 6]],
        "query_cameras": [1],
        "gallery_cameras": [2],
    }
    domains = {
        domain: make_records(IDENTITY, CAMERA, name=domain, protocols={"market": protocol})
        for domain in ("source", "target")
    }
    config.data.target_split = "all"
    found = report.evaluate(model(raw=perfect), config, domains, seen(config, domains), tmp_path, rates=(0.5,))["raw"][
        "verification"
    ]
    assert (found["calibration_same_pairs"], found["calibration_different_pairs"]) == (8, 8)
    assert (found["same_pairs"], found["different_pairs"]) == (12, 24)
    assert found["eer"] == 0
    printed = capsys.readouterr().out
    assert (
        "raw: verification of 12 pairs of the same identity and 24 of different ones; equal error rate 0.00 %"
        in printed
    )
    assert "set on other identities at 50 % false matches" in printed


@pytest.mark.parametrize("why_not", ["trained on", "one camera", "no query"])
def test_validation_identities_who_cannot_calibrate_leave_it_to_the_halves(why_not, tmp_path, config):
    identity, camera = np.repeat(np.arange(1, 8), 4), np.tile([1, 1, 2, 2], 7)
    if why_not == "one camera":
        camera[identity == 5], camera[identity == 6] = 1, 2
    elif why_not == "no query":
        camera[(identity == 5) | (identity == 6)] = 2
    protocol = {"kind": "trials", "test_identities": [[1, 2, 3, 4]], "validation_identities": [[5, 6]]}
    protocol |= {"query_cameras": [1], "gallery_cameras": [2]}
    scored = make_records(identity, camera, name="a", protocols={"market": protocol})
    domains = {"source": scored, "target": scored}
    images = seen(config, domains)
    if why_not == "trained on":
        images["source"] = scored.take(identity > 4)
    found = report.evaluate(model(raw=blind), config, domains, images, tmp_path, rates=(0.5,))["raw"]
    calibrating = {key: found["verification"][f"calibration_{key}"] for key in ("same_pairs", "different_pairs")}
    assert calibrating == {
        "same_pairs": 8,
        "different_pairs": 8,
    }  # of two identities of the test, as many as are held out
    assert calibrating.items() <= found["verification"].items()


def test_the_halves_compare_their_own_identities_alone(tmp_path, config, twelve_identities, monkeypatch):
    sizes, original = [], Comparison.distances
    monkeypatch.setattr(
        Comparison,
        "distances",
        lambda self, trial: sizes.append((len(trial.query), len(trial.gallery))) or original(self, trial),
    )
    images = seen(config, twelve_identities)
    report.evaluate(model(raw=blind), config, twelve_identities, images, tmp_path, rates=(0.1,))
    assert sizes == [(10, 10), (10, 10), (20, 20)]  # the last is for the rank list


def test_a_learned_similarity_is_left_out_of_re_ranking(config, domains):
    both = {"raw": Representation({"image": perfect}), "learned": Representation({"image": perfect}, lambda *_: None)}
    method, scored = SimpleNamespace(representations=lambda: both), domains["target"]
    assert scoring.representations(method, config, scored) == both
    config.evaluate.rerank = True
    assert set(scoring.representations(method, config, scored)) == {"raw"}


def test_sides_with_an_encoder_each_do_not_change_parts(config):
    protocol = {"kind": "trials", "test_identities": [[1]], "query_cameras": [1], "gallery_cameras": [2]}
    either = {"one": protocol, "both": protocol | {"both_directions": True}}
    scored = make_records(IDENTITY, CAMERA, name="target", protocols=either)
    views = SimpleNamespace(representations=lambda: {"raw": Representation({"probe": perfect, "gallery": perfect})})
    config.evaluate.protocol = "one"
    assert set(scoring.representations(views, config, scored)) == {"raw"}
    config.evaluate.protocol = "both"
    with pytest.raises(ConfigError, match=r"evaluate\.protocol: both of target also takes gallery images as queries"):
        scoring.representations(views, config, scored)
    assert scoring.representations(model(raw=perfect), config, scored)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ((), r"data\.source\.root: there is no /gone; .* name their place with --set data\.source\.root="),
        (("data.source.root=/new",), "name the new place of both, if they are one data set"),
        (("data.source.root=/new", "data.target.root=/new"), r"data\.source\.root: there is no /new"),
        (("data.source_cameras=[1]",), r"only evaluate\.\*, data\.data_dir, .* and the place of its images"),
    ],
)
def test_the_place_of_a_runs_images_may_be_named_anew(override, sentence, tmp_path):
    folder = "{name: folder, root: /gone, pattern: p}"
    trained = configuration.load("simpgan", [f"data.source={folder}", f"data.target={folder}"], METHODS)
    (tmp_path / "config.yaml").write_text(configuration.dump(trained))
    with pytest.raises(ConfigError, match=sentence):
        scoring.open_trained(tmp_path, override)
