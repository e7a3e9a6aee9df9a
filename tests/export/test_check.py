"""A server is checked by the scores of what it embeds: the same pass, another model's are named."""

import json

import pytest
from conftest import METHODS, build, make_records

from export import check, client
from tf_reid import config as configuration
from tf_reid.config import ConfigError
from tf_reid.encoders import loading
from tf_reid.evaluation import scoring

RECORDS = make_records([1, 1, 2, 2, 3, 3, 4, 4], [1, 2] * 4, ["query", "gallery"] * 4, size=(40, 30))


@pytest.fixture
def evaluated(tmp_path, monkeypatch):
    """An evaluated run of a method's small networks, and a server of them: model's name -> its embeddings."""

    def of(name):
        changes = ["data.image_size=[32, 16]", "evaluate.protocol=market"]
        config = configuration.load(f"configs/{name}.yaml", changes, METHODS)
        model = build(name)
        seen = {"source": make_records([1, 2], [1, 2], name="other")}
        run = scoring.Trained(model, config, {"source": RECORDS, "target": RECORDS}, seen, None)
        monkeypatch.setattr(scoring, "open_trained", lambda _folder: run)
        encoder = loading.of_networks(model.encoders(), config, tmp_path)
        scores = scoring.scores(model, config, run.domains, seen)
        metrics = {name: {key: float(one[key]) for key in check.COMPARED} for name, one in scores.items()}
        (tmp_path / "metrics.json").write_text(json.dumps(metrics))
        asked = []

        class Server:
            def __init__(self, server, model, *, label):
                asked.append((server, model, label))
                self.role = model.removeprefix("reid").removeprefix("_int8").removeprefix("_") or None

            def embed_bytes(self, images):
                return iter(encoder.embed(images, self.role))

        monkeypatch.setattr(client, "Client", Server)
        return asked

    return of


@pytest.mark.parametrize(("name", "models"), [("identity", ["reid"]), ("crossgan", ["reid_probe", "reid_gallery"])])
def test_a_server_of_the_run_gives_its_scores(evaluated, tmp_path, capsys, name, models):
    asked = evaluated(name)
    both = check.main(["here:8500", "reid", "--run", str(tmp_path), "--label", "canary"])
    assert set(both) == set(check.COMPARED) and all(by_server == in_file for by_server, in_file in both.values())
    assert asked == [("here:8500", model, "canary") for model in models]
    assert "by the server" in capsys.readouterr().out


def test_a_server_of_another_model_is_named(evaluated, tmp_path, monkeypatch):
    evaluated("identity")
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    metrics["raw"]["mAP"] += 1.0
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    with pytest.raises(ConfigError, match=r"here:8500 does not embed as .* does; is reid another model"):
        check.check("here:8500", "reid", tmp_path)


def test_a_server_of_int8_may_differ_by_half_a_point_of_rank1(evaluated, tmp_path):
    asked = evaluated("identity")
    metrics = json.loads((tmp_path / "metrics.json").read_text())

    def with_other_scores(rank1, mAP):
        other = metrics["raw"] | {"rank1": metrics["raw"]["rank1"] + rank1, "mAP": metrics["raw"]["mAP"] + mAP}
        (tmp_path / "metrics.json").write_text(json.dumps({"raw": other}))
        check.check("here:8500", "reid_int8", tmp_path)

    with_other_scores(rank1=0.5, mAP=3.0)
    assert asked == [("here:8500", "reid_int8", "stable")]
    with pytest.raises(ConfigError, match=r"here:8500 does not embed as .* does; is reid_int8 another model"):
        with_other_scores(rank1=0.6, mAP=0.0)


def test_a_run_that_was_not_evaluated_is_refused(evaluated, tmp_path):
    evaluated("identity")
    (tmp_path / "metrics.json").unlink()
    with pytest.raises(ConfigError, match=r"metrics.json has no scores of raw; evaluate the run: --run"):
        check.check("here:8500", "reid", tmp_path)


def test_a_server_that_does_not_answer_is_an_error(evaluated, tmp_path, monkeypatch):
    evaluated("identity")

    class Down:
        def __init__(self, *_args, **_kwargs):
            pass

        def embed_bytes(self, _images):
            raise client.ServerError("here:8500: UNAVAILABLE")

    monkeypatch.setattr(client, "Client", Down)
    with pytest.raises(client.ServerError, match="UNAVAILABLE"):
        check.check("here:8500", "reid", tmp_path)
