"""From a run to a folder that TF Serving reads: what is written, proved, refused, and never half done."""

import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
import yaml
from conftest import METHODS, SIZE, build, make_records
from google.protobuf import text_format
from tensorflow_serving.apis import prediction_log_pb2
from tensorflow_serving.config import model_server_config_pb2

import tf_reid
from export import __main__ as command
from export import card, deployment, proof, rescoring, saving, workspace
from tf_reid import config as configuration
from tf_reid.config import ConfigError
from tf_reid.data import pipeline
from tf_reid.encoders import quantising
from tf_reid.encoders.servable import endpoints
from tf_reid.evaluation import scoring
from tf_reid.gallery.faiss_gallery import FaissGallery
from tf_reid.gallery.records import Record
from tf_reid.methods.representation import Representation
from tf_reid.runs import initial_weights

RECORDS = make_records([1, 1, 2, 2, 3, 3], [1, 2] * 3, size=(40, 30))


@pytest.fixture
def opened(tmp_path, monkeypatch):
    """A run, as `scoring.open_trained` gives it, of a method's small and untrained networks."""

    def of(name, **changes):
        config = configuration.load(f"configs/{name}.yaml", ["data.image_size=[32, 16]"], METHODS)
        domains = {"source": RECORDS} | ({"target": RECORDS} if config.data.target else {})
        run = scoring.Trained(build(name, **changes), config, domains, domains, None)
        monkeypatch.setattr(scoring, "open_trained", lambda _folder: run)
        folder = tmp_path / "my_run"
        folder.mkdir(exist_ok=True)
        (folder / "config.yaml").write_text(configuration.dump(config))
        return ["--run", str(folder), "--to", str(tmp_path / "models")]

    return of


@pytest.fixture
def unproved(monkeypatch):
    """Exports without their proof, which starts two processes: for tests of what lies around a model."""
    monkeypatch.setattr(proof, "prove", lambda *_, **__: None)


@pytest.fixture
def proved_alone(monkeypatch):
    """(what `saving.Chosen` or the role must be) -> only such models are proved; other tests prove the others."""
    prove = proof.prove

    def only(is_proved):
        def chosen_ones(folder, role, chosen, run):
            if is_proved(role, chosen):
                prove(folder, role, chosen, run)

        monkeypatch.setattr(proof, "prove", chosen_ones)

    return only


def test_a_run_becomes_a_proved_version_and_the_next_one_the_next(opened, tmp_path, capsys, monkeypatch):
    models = tmp_path / "a[1]*b? 50% [x] Männer\\ #'\"$\n"  # what TensorFlow might take for a pattern, and more
    line = [*opened("identity")[:2], "--to", str(models)]
    found = command.main(line)
    assert found == {"my_run": models / "my_run" / "1"}
    answer = endpoints(found["my_run"])["serving_default"](image_bytes=tf.constant(RECORDS.images[:1].tolist()))
    assert len(answer["embedding"]) == 1
    said = capsys.readouterr().out
    assert "loaded by TensorFlow's session: 6 crops at batch 1 and 6" in said
    assert "loaded by TensorFlow's C library: 6 crops" in said and "bad image refused" in said
    extra = found["my_run"] / "assets.extra"
    about = json.loads((extra / "model.json").read_text())
    assert about["width"] > 0 and about["image_size"] == list(SIZE) and about["distance"] == "cosine"
    assert about["digest"] in (extra / "README.md").read_text()
    records = list(tf.data.TFRecordDataset(str(extra / "tf_serving_warmup_requests")).as_numpy_iterator())
    requests = [prediction_log_pb2.PredictionLog.FromString(record).predict_log.request for record in records]
    assert [request.model_spec.signature_name for request in requests] == ["serving_default"] * 2 + ["tensor"] * 2
    monkeypatch.setattr(proof, "prove", lambda *_, **__: None)
    assert command.main(line)["my_run"].name == "2"
    assert not [path for path in (models / "my_run").iterdir() if not path.name.isdigit()]


def test_two_exports_at_once_both_land(opened, unproved, tmp_path, monkeypatch):
    line = opened("identity")

    def write(folder, **_given):
        folder.mkdir(parents=True)
        (folder / "saved_model.pb").touch()

    def after_another(folder, **given):
        monkeypatch.setattr(saving, "write", write)
        assert command.main(line)["my_run"].name == "1"
        write(folder, **given)

    monkeypatch.setattr(saving, "write", after_another)
    assert command.main(line)["my_run"].name == "2"
    served = deployment.read_models_config(tmp_path / "models" / "serving" / "models.config")
    assert served == {"my_run": ([1, 2], {"stable": 1, "canary": 2})}


def test_versions_given_at_once_are_all_different_and_all_in_models_config(tmp_path):
    def land(number):
        with workspace.opened(tmp_path) as place:
            proved = {model: place / model for model in ("common", f"own_{number}")}
            for folder in proved.values():
                folder.mkdir()
                (folder / "saved_model.pb").touch()
            workspace.give_versions(tmp_path, proved)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(land, range(8)))
    served = deployment.read_models_config(tmp_path / "serving" / "models.config")
    assert set(served) == {"common"} | {f"own_{number}" for number in range(8)}
    assert deployment.exported_versions(tmp_path)["common"] == list(range(1, 9))
    assert served["common"].labels["canary"] == 8
    assert not list(tmp_path.glob(f"{workspace.PREFIX}*"))


def test_where_one_model_cannot_land_none_does(tmp_path):
    (tmp_path / "b").touch()  # a file where a model's folder would be
    with workspace.opened(tmp_path) as place:
        for model in ("a", "b"):
            (place / model).mkdir()
        with pytest.raises(FileExistsError):
            workspace.give_versions(tmp_path, {model: place / model for model in ("a", "b")})
    assert not list((tmp_path / "a").iterdir())


def test_a_method_with_two_encoders_becomes_two_models_of_one_digest(opened, proved_alone):
    proved_alone(lambda role, _chosen: role == "gallery")
    found = command.main([*opened("view_adaptation"), "--name", "views"])
    assert set(found) == {"views_probe", "views_gallery"}
    about = [json.loads((folder / "assets.extra" / "model.json").read_text()) for folder in found.values()]
    assert about[0]["digest"] == about[1]["digest"] and [one["role"] for one in about] == ["probe", "gallery"]


def test_the_translation_in_front_is_the_default_and_can_be_left_out(opened, proved_alone):
    proved_alone(lambda _role, chosen: chosen.representation == "translated")
    line = opened("simpgan")
    named = [line, [*line, "--representation", "raw"]]
    about = [json.loads((command.main(one)["my_run"] / "assets.extra" / "model.json").read_text()) for one in named]
    assert [one["representation"] for one in about] == ["translated", "raw"]
    assert about[0]["digest"] != about[1]["digest"]


@pytest.mark.parametrize(("name", "said"), [("learned", "learned network"), ("none", "has raw, learned")])
def test_a_representation_that_is_not_there_or_not_a_distance_is_refused(opened, name, said):
    with pytest.raises(ConfigError, match=said):
        command.main([*opened("view_adaptation"), "--representation", name])


def test_a_gallery_becomes_an_endpoint_and_must_be_the_models_own(opened, tmp_path):
    line = [*opened("identity"), "--gallery", str(tmp_path / "gallery"), "--top", "2"]
    chosen = saving.chosen(scoring.open_trained(None), None, Path("runs/here"))
    about = {
        "digest": chosen.encoder.digest,
        "distance": "cosine",
        "width": chosen.servables["image"].width,
        "source": "here",
    }
    gallery = FaissGallery(tmp_path / "gallery", about)
    embedded = chosen.servables["image"].from_bytes(tf.constant(RECORDS.images.tolist()))["embedding"].numpy()
    gallery.add(
        [Record(file, str(identity)) for file, identity in zip(RECORDS.file, RECORDS.identity, strict=True)], embedded
    )
    folder = command.main(line)["my_run"]
    search = tf.saved_model.load(str(folder)).signatures["search"]
    found = search(image_bytes=tf.constant(RECORDS.images[2:4].tolist()))
    assert found["ids"].shape == (2, 2) and found["ids"][:, 0].numpy().tolist() == [b"2.png", b"3.png"]
    FaissGallery(tmp_path / "other", about | {"digest": "another"})
    with pytest.raises(ConfigError, match="was built by model another"):
        command.main([*line, "--gallery", str(tmp_path / "other")])


@pytest.mark.parametrize(("name", "parts"), [("dgnet", ["appearance", "structure"]), ("simpgan", ["target"])])
def test_what_makes_images_becomes_a_model_too(opened, unproved, name, parts):
    """The model of images is proved: `unproved` is its encoder alone."""
    line = opened(name)
    found = command.main([*line, "--images"])
    assert set(found) == {"my_run", "my_run_images"}
    about = json.loads((found["my_run_images"] / "assets.extra" / "model.json").read_text())
    assert about["of"] == parts and about["makes"] == "images"
    made = tf.saved_model.load(str(found["my_run_images"])).signatures["serving_default"]
    image = made(**{f"{part}_bytes": tf.constant(RECORDS.images[:2].tolist()) for part in parts})["image_bytes"]
    pixels = np.stack([tf.io.decode_png(one) for one in image.numpy()])
    model = scoring.open_trained(None).model
    images = pipeline.all_images(RECORDS.take(slice(2)), SIZE)
    expected = pipeline.to_uint8(model.presentation().image_maker().make(*([tf.constant(images)] * len(parts))))
    np.testing.assert_allclose(pixels.astype(int), expected, atol=1)


def test_a_method_that_makes_no_image_says_so(opened):
    with pytest.raises(ConfigError, match=r"--images: identity, as it was trained, makes no image"):
        command.main([*opened("identity"), "--images"])


def test_what_fails_its_proof_gets_no_version(opened, tmp_path, monkeypatch):
    line = opened("identity")
    monkeypatch.setattr(proof, "LEAST_COSINE", 1.1)
    with pytest.raises(ConfigError, match=r"is not fit to be served and gets no version number: .* cosine of only"):
        command.main(line)
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["serving"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """What `proof.prove` takes, of a model that would pass."""
    config = configuration.load("configs/identity.yaml", ["data.image_size=[32, 16]"], METHODS)
    domains = {"source": RECORDS, "target": RECORDS}
    run = scoring.Trained(build("identity"), config, domains, domains, None)
    chosen = saving.chosen(run, None, Path("runs/here"))
    folder = tmp_path_factory.mktemp("reid") / "saved"
    saving.save(chosen.servables["image"], folder)
    return folder, "image", chosen, run


@pytest.mark.parametrize(
    ("change", "value", "said"),
    [
        ("proof.BAD_IMAGE", RECORDS.images[0], "to bytes that are no image"),
        ("proof.FORBIDDEN", ("MatMul", "Conv"), "its graph has the operations"),
        ("proof.MOST_APART", -1.0, "of the largest number in them"),
        ("proof.LEAST_COSINE", float("nan"), "have a cosine of only"),
        ("saving.warm_up_requests", lambda _: [("serving_default", {"image_bytes": [b"no image"]})], "it answers"),
    ],
)
def test_each_part_of_the_proof_can_fail(saved, monkeypatch, change, value, said):
    monkeypatch.setattr(f"export.{change}", value)
    with pytest.raises(ConfigError, match=f"(?s)is not fit to be served .*{said}"):
        proof.prove(*saved)


def test_a_graph_that_needs_a_compiler_is_seen(tmp_path):
    class Compiled(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None,), tf.float32, name="images")])
        def double(self, images):
            return {"embedding": tf.function(lambda x: 2.0 * x, jit_compile=True)(images)}

    module = Compiled()
    tf.saved_model.save(module, str(tmp_path / "1"), signatures={"serving_default": module.double})
    assert any("Xla" in name for name in proof.read(tmp_path / "1")[1])


def test_a_run_that_is_not_finished_is_refused(opened, monkeypatch):
    line = opened("identity")
    run = scoring.open_trained(None)._replace(finished=False)
    monkeypatch.setattr(scoring, "open_trained", lambda _folder: run)
    with pytest.raises(ConfigError, match="my_run is not finished; train it to its end"):
        command.main(line)


def test_what_a_killed_export_left_is_removed_and_what_another_makes_stays(tmp_path):
    models = tmp_path / "models"
    write = f"""
from pathlib import Path
from export import workspace
with workspace.opened(Path({str(models)!r})) as place:
    (place / "reid" / "saved").mkdir(parents=True)
    (place / "reid" / "saved" / "saved_model.pb").touch()
    print(place, flush=True)
    input()
"""
    with subprocess.Popen([sys.executable, "-c", write], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        killed = Path(other.stdout.readline().decode().strip())
        with workspace.opened(models) as place:
            assert killed.exists() and place.exists()
        assert not place.exists() and deployment.exported_versions(models) == {}
        other.kill()
    with workspace.opened(models):
        assert not killed.exists()


def test_what_was_not_edited_follows_the_models(opened, unproved, tmp_path, capsys):
    line = opened("identity")
    command.main(line)
    command.main([*line, "--name", "other"])
    manifest = (tmp_path / "models" / "serving" / "kubernetes.yaml").read_text()
    assert "other" in manifest and "my_run" in manifest and "kept as it is" not in capsys.readouterr().out


def test_what_was_edited_is_kept(opened, unproved, tmp_path, capsys):
    line = opened("identity")
    command.main(line)
    for file in ("batching.config", "kubernetes.yaml"):
        (tmp_path / "models" / "serving" / file).write_text("mine")
    command.main(line)
    assert (tmp_path / "models" / "serving" / "batching.config").read_text() == "mine"
    assert "kubernetes.yaml is kept as it is; remove it" in capsys.readouterr().out


def test_a_wrong_embedding_is_seen(opened, monkeypatch):
    line = opened("identity")
    monkeypatch.setattr("tf_reid.encoders.folding._with_norm", lambda layer, norm: [layer.kernel * 0.9, norm.beta])
    with pytest.raises(ConfigError, match="have a cosine of only"):
        command.main(line)


def test_an_operation_that_reads_files_is_seen(tmp_path):
    class Reads(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="image_bytes")])
        def read(self, names):
            return {
                "embedding": tf.cast(
                    tf.map_fn(lambda n: tf.strings.length(tf.io.read_file(n)), names, tf.int32), tf.float32
                )
            }

    module = Reads()
    tf.saved_model.save(module, str(tmp_path / "1"), signatures={"serving_default": module.read})
    endpoints, operations = proof.read(tmp_path / "1")
    assert set(endpoints) == {"serving_default"} and "ReadFile" in operations


def test_a_second_export_keeps_which_version_is_stable(opened, unproved, tmp_path):
    line = opened("identity")
    command.main(line)
    command.main(line)
    path = tmp_path / "models" / "serving" / "models.config"
    config = text_format.Parse(path.read_text(), model_server_config_pb2.ModelServerConfig())
    (model,) = config.model_config_list.config
    assert model.base_path == "/models/my_run" and list(model.model_version_policy.specific.versions) == [1, 2]
    assert dict(model.version_labels) == {"stable": 1, "canary": 2}
    path.write_text("model_config_list {")
    with pytest.raises(ConfigError, match=r"models.config cannot be read .*; correct it, or remove it"):
        deployment.write(tmp_path / "models")


def test_the_list_of_models_is_written_last():  # what fails before it can be taken back: no version is served yet
    assert list(deployment.files({"reid": {"stable": 1}}))[-1] == "models.config"


def test_the_example_files_are_those_that_are_written():
    for name, text in deployment.files({"reid": {"stable": 1, "canary": 1}}).items():
        assert (Path(deployment.__file__).parent / "serving" / name).read_text() == text, name


def test_the_kubernetes_pod_is_ready_by_what_the_server_says(tmp_path):
    deployed, service = yaml.safe_load_all(
        deployment.files({"a": {"stable": 1}, "b": {"stable": 2}})["kubernetes.yaml"]
    )
    (container,) = deployed["spec"]["template"]["spec"]["containers"]
    assert container["readinessProbe"]["exec"]["command"][2] == deployment.ready(["a", "b"])
    assert service["spec"]["selector"] == deployed["spec"]["template"]["metadata"]["labels"]


@pytest.mark.parametrize(("state", "code"), [("AVAILABLE", 0), ("LOADING", 1)])
def test_the_probe_reads_the_state(state, code):
    server = (
        "import http.server, sys\n"
        "class Answer(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        "        self.send_response(200); self.end_headers()\n"
        f'        self.wfile.write(b\'{{"state": "{state}"}}\')\n'
        "server = http.server.HTTPServer(('127.0.0.1', 0), Answer)\n"
        "print(server.server_port, flush=True)\n"
        "server.serve_forever()\n"
    )
    with subprocess.Popen([sys.executable, "-c", server], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        port = int(process.stdout.readline())
        try:
            assert subprocess.run(["bash", "-c", deployment.ready(["a"], port)]).returncode == code
        finally:
            process.kill()


def test_a_card_names_the_data_of_initial_weights_with_their_terms(tmp_path):
    history = {"sets": [{"name": "viper", "terms": "cite the paper"}], "do_not_pass_on": ["viper"], "known": {}}
    (tmp_path / "config.yaml").touch()  # which a run has
    (tmp_path / initial_weights.KEPT).write_text(yaml.safe_dump({"weights": history}))
    run = SimpleNamespace(seen={"source": make_records([1], [1], name="grid")})
    of_source, of_weights = card._trained_on(run, tmp_path).splitlines()
    assert of_source.startswith("- source: grid, 1 images; terms: ")
    assert of_weights == "- initial weights (`method.weights`): viper; terms: cite the paper"


def network_for_int8(units=8):
    """Enough convolutions for one that reads no pixels."""
    keras.utils.set_random_seed(0)
    images = keras.Input((*SIZE, 3))
    maps = keras.layers.Conv2D(8, 3, strides=2, activation="relu")(images)
    maps = keras.layers.Conv2D(16, 3, activation="relu")(maps)
    return keras.Model(images, keras.layers.Dense(units)(keras.layers.GlobalAveragePooling2D()(maps)))


@pytest.fixture
def with_convolutions(opened, monkeypatch):
    """A run whose encoder has a convolution that can be quantised."""
    line = opened("identity")
    records = make_records([1, 1, 2, 2, 3, 3], [1, 2] * 3, ["query", "gallery"] * 3, size=(40, 30))
    seen = {"source": make_records([1, 2], [1, 2], name="other")}
    config = configuration.load(
        "configs/identity.yaml", ["data.image_size=[32, 16]", "evaluate.protocol=market"], METHODS
    )
    run = scoring.open_trained(None)._replace(domains={"source": records, "target": records}, seen=seen, config=config)
    monkeypatch.setattr(scoring, "open_trained", lambda _folder: run)
    network = network_for_int8()
    monkeypatch.setattr(run.model, "encoders", lambda: {"image": network})
    monkeypatch.setattr(run.model, "representations", lambda: {"raw": Representation({"image": network})})
    return [*line, "--quantise", "int8"]


def test_int8_lies_beside_float32_and_says_so(with_convolutions, proved_alone, tmp_path, capsys):
    proved_alone(lambda _role, chosen: chosen.quantised)
    found = command.main(with_convolutions)
    assert found == {name: tmp_path / "models" / name / "1" for name in ("my_run", "my_run_int8")}
    said = capsys.readouterr().out
    assert (
        "my_run_int8, loaded by TensorFlow's session" in said
        and "my_run_int8, loaded by TensorFlow's C library" in said
    )
    assert re.search(r"float32 rank1 .*mAP .*\nint8    rank1 ", said)
    about = {name: json.loads((folder / "assets.extra/model.json").read_text()) for name, folder in found.items()}
    assert (about["my_run"]["quantised"], about["my_run_int8"]["quantised"]) == (None, "int8")
    assert about["my_run"]["digest"] != about["my_run_int8"]["digest"]
    description = (found["my_run_int8"] / "assets.extra" / "README.md").read_text()
    assert "for x86 with oneDNN" in description and about["my_run_int8"]["digest"] in description
    assert "1 convolutions are quantised to int8, 1 are not" in description
    embedded = [tf_reid.load(tmp_path / "models" / name).embed(RECORDS.images.tolist()) for name in found]
    assert 0 < np.abs(embedded[0] - embedded[1]).max() < 0.1


@pytest.mark.parametrize(("lost", "is_refused"), [(0.49, False), (0.51, True)])
def test_int8_that_loses_half_a_point_is_refused_and_nothing_is_left(
    with_convolutions, tmp_path, monkeypatch, lost, is_refused
):
    rates = iter([{"rank1": 80.0, "mAP": 50.0}, {"rank1": 80.0 - lost, "mAP": 60.0}])
    monkeypatch.setattr(rescoring, "scores", lambda *_given: next(rates))
    monkeypatch.setattr(workspace, "opened", lambda _to: pytest.skip("not refused"))
    said = r"rank-1 falls from 80.00 to 79.49 .* by more than 0.5 points, so nothing was exported"
    if is_refused:
        with pytest.raises(ConfigError, match=said):
            command.main(with_convolutions)
        assert not (tmp_path / "models").exists()
    else:
        with pytest.raises(pytest.skip.Exception):
            command.main(with_convolutions)


def test_an_encoder_without_a_convolution_for_int8_is_refused(with_convolutions, monkeypatch):
    monkeypatch.setattr(quantising, "_sites", lambda _graph: [])
    with pytest.raises(ConfigError, match="the encoder of image has no convolution that can be quantised"):
        command.main(with_convolutions)
