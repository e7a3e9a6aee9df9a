"""Which representations are scored while a stage trains, and by which queries."""

import numpy as np
import pytest
from conftest import SIZE, build, make_records, stage_configs

from tf_reid.evaluation import comparison, during_training, extraction, scoring
from tf_reid.methods import METHODS
from tf_reid.metrics.protocols import Trial
from tf_reid.runs import splits
from tf_reid.settings import Config, Data, Run

CHANGED = {
    "simpgan": {"classifier": {"raw"}, "translation": {"translated"}},
    "cmgan": {"pretrain": {"raw"}, "adversarial": {"raw"}},
    "crossgan": {
        "vae": {"transformed"},
        "alignment": {"raw"},
        "joint": {"raw", "discriminator", "transformed"},
    },
    "view_adaptation": {"finetune": {"raw"}, "similarity": {"raw", "learned"}, "adversarial": {"raw", "learned"}},
    "dgnet": {
        "teacher": {"teacher"},
        "pretrain": {"raw", "primary", "fine"},
        "joint": {"raw", "primary", "fine"},
    },
}
IDENTITY, CAMERA = np.repeat(np.arange(1, 9), 3), np.tile([1, 2, 2], 8)
SPLIT = np.where(IDENTITY <= 2, "train", np.tile(["query", "gallery", "gallery"], 8))


def changed(model, stage):
    return set(during_training.changed(model, model.representations(), stage))


@pytest.mark.parametrize("name", CHANGED)
def test_a_stage_scores_what_it_changes_and_what_no_later_stage_has_to_complete(name):
    model = build(name)
    if name == "dgnet":  # its teacher is scored once it has seen images
        model.teacher.embedding.layers[-1].moving_mean.assign(np.ones(512))
    assert {stage: changed(model, stage) for stage in model.STAGES} == CHANGED[name]


def test_what_no_stage_trains_is_not_waited_for():
    """Cross-GAN without an alignment stage: its features need not wait for the layer that nothing moves."""
    model = build("crossgan")
    model.steps_of_stage |= {"alignment": 0, "joint": 0}
    assert changed(model, "vae") == {"raw", "transformed"}


def test_fewer_queries_are_the_same_ones_whatever_else_is_there():
    records = make_records(np.arange(40), np.ones(40, np.int64))
    trials = [
        Trial("a", np.arange(20), np.arange(20, 40), True),
        Trial(
            "b", np.arange(19, -1, -1), np.arange(20, 30), False, averaged=[np.array([i]) for i in range(19, -1, -1)]
        ),
        Trial("c", np.arange(5), np.arange(20, 30), False),
    ]
    fewer = during_training.fewer_queries(trials, records, 6)
    assert [len(trial.query) for trial in fewer] == [6, 6, 5]
    assert set(fewer[0].query) == set(fewer[1].query) != set(range(6))
    assert [images.item() for images in fewer[1].averaged] == fewer[1].query.tolist()
    for trial, less in zip(trials, fewer, strict=True):
        np.testing.assert_array_equal(less.gallery, trial.gallery)
        assert (less.name, less.same_camera_ignored) == (trial.name, trial.same_camera_ignored)
        assert np.isin(less.query, trial.query).all()
    assert during_training.fewer_queries(trials, records, 0) == trials


def test_scores_in_a_stage_are_of_its_representations_and_queries_and_say_so(monkeypatch):
    domains = {name: make_records(IDENTITY, CAMERA, SPLIT, name=name) for name in ("source", "target")}
    config = Config(
        data=Data(source="a", target="b", image_size=list(SIZE)),
        method={"name": "simpgan"},
        stages=stage_configs(METHODS["simpgan"]),
        run=Run(evaluate_queries=2),
    )
    model, called = build("simpgan"), []
    monkeypatch.setattr(
        extraction,
        "feature_batches",
        lambda encoder, records, *rest: called.append(encoder) or iter([np.eye(len(records), 30, dtype=np.float32)]),
    )
    seen = splits.training_records(config, domains)
    for stage, name, encoder in (
        ("classifier", "raw", model.classifier.backbone),
        ("translation", "translated", model.translating_encoder),
    ):
        called.clear()
        found = scoring.scores(model, config, domains, seen, during=stage)
        assert list(found) == [name] and called == [encoder]
        assert found[name]["queries"] + found[name]["dropped"] == 2 and found[name]["gallery"] == 12
        assert found[name]["description"] == "At most 2 queries of each trial, the same in every evaluation."
    whole = scoring.scores(model, config, domains, seen)
    assert list(whole) == ["raw", "translated"] and whole["raw"]["queries"] == 6 and whole["raw"]["description"] == ""
    comparison.check_matches(
        domains["target"],
        during_training.fewer_queries(splits.fair_trials(config, domains["target"], seen), domains["target"], 2),
    )
