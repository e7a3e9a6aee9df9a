"""A run and its exported models are opened as encoders: what is equal to what, and what is refused."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import tensorflow as tf
from conftest import METHODS, SIZE, build, make_records

from export import saving
from tf_reid import config as configuration
from tf_reid.config import ConfigError
from tf_reid.encoders import loading
from tf_reid.encoders.encoder import unit_length
from tf_reid.encoders.image_checks import ImageError
from tf_reid.encoders.servable import endpoints
from tf_reid.evaluation import extraction, scoring

RECORDS = make_records([1, 1, 2, 2, 3, 3, 4], [1, 2, 1, 2, 1, 2, 1], size=(40, 30))
IMAGES = RECORDS.images.tolist()
CUT = cv2.imencode(".jpg", np.random.default_rng(0).integers(256, size=(90, 90, 3), dtype=np.uint8))[1].tobytes()[
    :-3000
]


def settings(name):
    return configuration.load(f"configs/{name}.yaml", ["data.image_size=[32, 16]"], METHODS)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """(method, versions) -> the folder of the exported models of small networks, and these networks' encoder."""

    def of(name, versions=1):
        folder = tmp_path_factory.mktemp(name)
        config = settings(name)
        (folder / "my_run").mkdir()
        (folder / "my_run" / "config.yaml").write_text(configuration.dump(config))
        run = scoring.Trained(build(name), config, {"source": RECORDS, "target": RECORDS}, {"source": RECORDS}, None)
        chosen = saving.chosen(run, None, folder / "my_run")
        for role, model in saving.names_of(chosen, "my_run").items():
            for version in range(1, versions + 1):
                saving.write(folder / "models" / model / str(version), role, chosen, run, folder / "my_run")
        return folder / "models" / "my_run", loading.of_networks(run.model.encoders(), config, folder / "my_run")

    return of


def pixels_of(content):
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def test_an_exported_model_gives_the_bits_that_are_served(exported):
    folder, of_run = exported("simpgan", versions=2)
    newest, first = loading.load(folder), loading.load(str(folder / "1"))
    assert newest.source == folder / "2" and first.source == folder / "1"
    served = endpoints(folder / "2")["serving_default"](image_bytes=tf.constant(IMAGES))["embedding"]
    np.testing.assert_array_equal(newest.embed(IMAGES), served)
    np.testing.assert_array_equal(newest.embed([pixels_of(content) for content in IMAGES]), served)
    np.testing.assert_allclose(of_run.embed(IMAGES), served, atol=1e-6)
    for name in ("roles", "width", "image_size", "metric", "digest"):
        assert getattr(newest, name) == getattr(of_run, name), name
    np.testing.assert_allclose(newest.distances(IMAGES, IMAGES), of_run.distances(IMAGES, IMAGES), atol=1e-6)
    with pytest.raises(ImageError, match="Image 1 is damaged"):
        newest.embed([IMAGES[0], CUT])


def test_the_models_of_two_roles_are_opened_alone_or_together(exported):
    folder, of_run = exported("view_adaptation")
    for place in (folder, folder / "1"):
        both = loading.load(place)
        assert both.roles == ("probe", "gallery") and both.digest == of_run.digest
        np.testing.assert_allclose(both.distances(IMAGES, IMAGES), of_run.distances(IMAGES, IMAGES), atol=1e-5)
    probe = loading.load(folder.with_name("my_run_probe"))
    np.testing.assert_array_equal(probe.embed(IMAGES), both.embed(IMAGES, role="probe"))
    with pytest.raises(ConfigError, match="embeds probe images, not gallery or image or rgb images"):
        probe.distance(IMAGES[0], IMAGES[1])
    about = folder.with_name("my_run_gallery") / "1" / "assets.extra" / "model.json"
    about.write_text(about.read_text().replace(both.digest, "0" * 16))
    with pytest.raises(ConfigError, match="were exported from different runs"):
        loading.load(folder)


def test_a_finished_run_is_opened_and_another_is_not(tmp_path, monkeypatch):
    config, model = settings("identity"), build("identity")
    (tmp_path / "config.yaml").write_text(configuration.dump(config))

    class Progress:
        stage = len(config.stages)

    monkeypatch.setattr(loading.run_folder, "restored", lambda _folder, _config: (model, Progress))
    opened = loading.load(tmp_path)
    assert opened.source == tmp_path and opened.roles == ("image",) and opened.image_size == SIZE
    np.testing.assert_array_equal(
        opened.embed(IMAGES), loading.of_networks(model.encoders(), config, tmp_path).embed(IMAGES)
    )
    assert repr(opened) == f"<Encoder of {tmp_path}: image images, {opened.width} numbers, cosine>"
    Progress.stage = 0
    with pytest.raises(ConfigError, match="is not finished; train it to its end"):
        loading.load(tmp_path)


def test_a_folder_that_is_neither_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere is no run \(no .*config.yaml\) and is no exported model"):
        loading.load(tmp_path / "nowhere")


def test_a_folder_of_runs_or_models_names_them(tmp_path):
    for path in ("runs/a/config.yaml", "runs/b/x", "models/c/1/saved_model.pb", "models/serving/models.config"):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).touch()
    for folder, named in (("runs", "runs/a"), ("models", "models/c")):
        with pytest.raises(ConfigError, match=rf"is no exported model .*; name one of {tmp_path / named}\."):
            loading.load(tmp_path / folder)


def test_a_representation_that_was_chosen_is_proved_by_its_encoder():
    run = scoring.Trained(build("simpgan"), settings("simpgan"), {"source": RECORDS}, {"source": RECORDS}, None)
    raw = saving.chosen(run, "raw", Path("runs/here")).encoder
    kept = extraction.extract(run.model.representations()["raw"].encoders["image"], RECORDS, SIZE, flip=True)
    np.testing.assert_array_equal(raw.embed(IMAGES), unit_length(kept))
