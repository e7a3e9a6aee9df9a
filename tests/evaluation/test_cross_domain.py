"""One run on many data sets."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from conftest import SIZE, make_records, stage_configs

from tf_reid.config import ConfigError
from tf_reid.evaluation import cross_domain
from tf_reid.evaluation.scoring import Trained
from tf_reid.methods import METHODS
from tf_reid.methods.representation import Representation
from tf_reid.runs import splits
from tf_reid.settings import Config, Data, Evaluate

IDENTITY, CAMERA = np.repeat(np.arange(1, 7), 2), np.tile([1, 2], 6)
SPLIT = np.tile(["query", "gallery"], 6)
HALVES = {
    "kind": "trials",
    "description": "Two halves.",
    "test_identities": [[1, 2, 3], [4, 5, 6]],
    "query_cameras": [1],
    "gallery_cameras": [2],
}
PROTOCOLS = {"market": {"kind": "market"}, "halves": HALVES, "both": HALVES | {"both_directions": True}}


def of(name, split=SPLIT):
    return make_records(IDENTITY, CAMERA, split, name=name, protocols=PROTOCOLS)


def by_number(images):
    """Knows the identity by the record's number, which `make_records` paints in red."""
    return tf.one_hot(tf.cast(tf.round((images[:, 0, 0, 0] + 1.0) * 127.5), tf.int32) // 2, 8)


@pytest.fixture
def at_hand():
    """The data sets by name."""
    return {"a": of("a"), "b": of("b"), "c/d": of("c/d"), "folder here": of("mine")}


@pytest.fixture
def run(monkeypatch, at_hand):
    """A run that was trained on `a`, identities 1 to 3 of it."""

    def built(spec, config):
        name = spec if isinstance(spec, str) else f"{spec['name']} {spec['root']}"
        if name not in at_hand:
            raise cross_domain.ConfigError(f"there is no {name}")
        return name

    monkeypatch.setattr(splits, "built", built)
    monkeypatch.setattr(cross_domain, "load_records", at_hand.get)
    config = Config(
        data=Data(source="a", image_size=list(SIZE)),
        method={"name": "identity"},
        stages=stage_configs(METHODS["identity"]),
        evaluate=Evaluate(protocol="only_of_a", identities="validation"),
    )
    model = SimpleNamespace(
        representations=lambda: {
            "raw": Representation({"image": lambda images: tf.ones((tf.shape(images)[0], 3))}),
            "known": Representation({"image": by_number}),
        }
    )
    seen = {"source": of("a").take(IDENTITY <= 3)}
    return Trained(model, config, {"source": of("a")}, seen, None)


def test_a_table_of_all_data_sets_is_printed_and_written(run, tmp_path, capsys):
    mine = "{name: folder, root: here, protocol: halves}"
    found = cross_domain.evaluate(run, ["b", "c/d:halves", "a:halves", mine], tmp_path)
    assert list(found) == ["b", "c/d:halves", "a:halves", mine]
    for scores in found.values():
        assert list(scores) == ["raw", "known"] and scores["known"]["rank1"] == 100
    described = {
        name: (one["raw"]["protocol"], one["raw"]["trials"], one["raw"]["queries"]) for name, one in found.items()
    }
    assert described == {
        "b": ("market", 1, 6),  # its default, whatever the run's own protocol is
        "c/d:halves": ("halves", 2, 3),
        "a:halves": ("halves", 1, 3),  # the half that was not trained on
        mine: ("halves", 2, 3),
    }
    assert found["b"]["raw"]["rank1"] == pytest.approx(100 / 6)
    written = json.loads((tmp_path / "evaluation" / "cross_domain.json").read_text())
    assert written["c/d:halves"]["known"]["description"] == "Two halves." and list(written) == list(found)
    lines = (tmp_path / "evaluation" / "cross_domain.md").read_text().splitlines()
    assert len(lines) == 2 + 8 and lines[0].split("|")[-5:-1] == [" rank-1 ", " rank-5 ", " rank-10 ", " mAP "]
    assert lines[3] == "| b | market | 1 | 6 | 6 | known | 100.0 | 100.0 | 100.0 | 100.0 |"
    assert lines[5].startswith("| c/d:halves | halves | 2 | 3 | 3 | known | 100.0 ± 0.0 |")
    assert "\n".join(lines) in capsys.readouterr().out


@pytest.mark.parametrize(
    "names, sentence",
    [
        (["b", "nowhere"], "there is no nowhere"),
        (["b", "a"], "Every trial of a shows identities that the run was trained on"),
        (["b", "b"], "--on names b twice"),
        (["b:whole"], "b has no protocol 'whole'"),
        (["b", "{name: folder"], "is not readable as YAML"),
    ],
)
def test_every_data_set_is_looked_at_before_the_first_is_scored(run, names, sentence, tmp_path):
    with pytest.raises(ConfigError, match=sentence):
        cross_domain.evaluate(run, names, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_data_set_of_one_camera_is_named_with_the_protocol_that_can_score_it(run, at_hand, tmp_path):
    one = of("one")
    one.camera[:] = 1
    one.protocols["same_camera"] = {"kind": "market", "same_camera": True}
    at_hand["one"] = one
    with pytest.raises(ConfigError, match=r"^--on 'one': No query has a match: .*The protocol same_camera also counts"):
        cross_domain.evaluate(run, ["b", "one"], tmp_path)
    assert cross_domain.evaluate(run, ["one:same_camera"], tmp_path)["one:same_camera"]["known"]["rank1"] == 100


def test_a_pattern_does_not_end_a_cell_of_the_table(run, tmp_path):
    mine = r"{name: folder, root: here, pattern: 'a|b'}"
    cross_domain.evaluate(run, [mine], tmp_path)
    row = (tmp_path / "evaluation" / "cross_domain.md").read_text().splitlines()[2]
    assert row.startswith(r"| {name: folder, root: here, pattern: 'a\|b'} | market | 1 | 6 | 6 | raw |")


def test_encoders_of_two_sides_are_scored_where_the_protocol_has_two_sides(run, tmp_path):
    sides = {"raw": Representation({"probe": by_number, "gallery": by_number})}
    run.model.representations = lambda: sides
    assert cross_domain.evaluate(run, ["b:halves"], tmp_path)["b:halves"]["raw"]["rank1"] == 100
    with pytest.raises(ConfigError, match="both of b also takes gallery images as queries"):
        cross_domain.evaluate(run, ["b:both"], tmp_path)


def test_features_are_kept_for_another_protocol(run, encoder, tmp_path, monkeypatch):
    run.model.representations = lambda: {"raw": Representation({"image": encoder})}
    cross_domain.evaluate(run, ["b", "c/d"], tmp_path)
    first = (tmp_path / "evaluation" / "cross_domain.json").read_text()
    monkeypatch.setattr("tf_reid.evaluation.extraction.feature_batches", None)  # nothing is extracted again
    cross_domain.evaluate(run, ["b", "c/d"], tmp_path)
    assert (tmp_path / "evaluation" / "cross_domain.json").read_text() == first
    cross_domain.evaluate(run, ["b:halves"], tmp_path)
