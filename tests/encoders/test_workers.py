"""Embedding by several processes on two Ray nodes: order, deaths, failures and resumption; without a network."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import keras
import numpy as np
import psutil
import pytest
import tensorflow as tf
from fake_workers import FakeWorker, embedded

from tf_reid import search
from tf_reid.config import ConfigError
from tf_reid.encoders import workers
from tf_reid.encoders.encoder import Encoder
from tf_reid.encoders.servable import Servable
from tf_reid.encoders.workers import Block, Workers

IMPORTED_FROM = f"{Path(__file__).parents[2]}:{Path(__file__).parent}"
PROMPT = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 2}


@pytest.fixture(scope="module")
def cluster():
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PYTHONPATH", IMPORTED_FROM)  # of the workers' processes
        started = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 1, "object_store_memory": 100 * 2**20, "_system_config": PROMPT},
        )
        yield started
        started.shutdown()


@pytest.fixture
def encoder(monkeypatch, tmp_path):
    """Its workers are fakes that keep a journal in the encoder's folder."""
    monkeypatch.setattr(workers, "Worker", FakeWorker)
    return Encoder({"image": None}, width=2, image_size=(4, 2), metric="euclidean", digest="d", source=tmp_path)


def embed(encoder, images, cluster, count=2, batch_size=2):
    """The blocks, in the order in which they are done."""
    settings = {"source": encoder.source, "digest": "d", "role": "image", "width": 2, "batch_size": batch_size}
    return workers.embed(images, workers=Workers(count, cluster.address), **settings)


def numbers_of(blocks):
    return [number for block in blocks for number in block.numbers.tolist()]


def test_each_image_has_its_embedding_or_its_reason_in_order(encoder, cluster):
    images = [f"crops/{number}" for number in range(30)]
    images[7], images[9] = "crops/unreadable", b"9"
    results = list(encoder.embed_many(images, workers=1, ray=cluster.address, batch_size=4))
    assert len(results) == 30
    for number, (embedding, error) in enumerate(results):
        if number == 7:
            assert embedding is None and error.index == 7 and error.path == Path("crops/unreadable")
            assert str(error) == "Image 7 (crops/unreadable) is no image."
        else:
            assert error is None and embedding.tolist() == [number, number / 2]
    assert len(embedded(encoder.source)) == 30  # none twice


def test_a_node_that_dies_loses_nothing(encoder, cluster, monkeypatch):
    """There is no room for its worker elsewhere: the other one embeds what it had."""
    monkeypatch.setattr(workers, "STUCK_SECONDS", 4)
    monkeypatch.setattr(workers, "MOST_STARTS", 20)  # on a busy machine a worker takes longer than that to start
    node = cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20)
    numbers = []
    for block in embed(encoder, [str(number) for number in range(200)], cluster):
        numbers += block.numbers.tolist()
        if node is not None and len(list(encoder.source.iterdir())) == 2:  # both nodes work
            cluster.remove_node(node, allow_graceful=False)
            node = None
    assert node is None and sorted(numbers) == list(range(200))


def test_an_image_that_ends_each_worker_is_given_up_alone(encoder, cluster):
    images = [str(number) for number in range(12)]
    images[5] = "deadly"
    blocks = list(embed(encoder, images, cluster, count=1))
    assert sorted(numbers_of(blocks)) == list(range(12))
    reasons = {number: reason for block in blocks for number, reason in block.reasons.items()}
    assert reasons == {5: "cannot be read: each worker that read it ended without an answer"}
    assert sum(len(block.embeddings) for block in blocks) == 11


def test_who_stops_early_waits_for_the_threads_of_ray_data(encoder, cluster):
    """One that asks Ray after it is shut down would end this process."""
    blocks = embed(encoder, [str(number) for number in range(100)], cluster, count=1)
    next(blocks)
    names = [thread.name for thread in threading.enumerate()]
    assert all(any(name.startswith(begin) for name in names) for begin in workers.THREADS)
    slow = threading.Thread(target=time.sleep, args=(2,), name="ray-data-slow")
    slow.start()
    blocks.close()
    assert not slow.is_alive()


def test_what_dead_workers_had_is_embedded_in_ever_smaller_blocks(monkeypatch):
    runs = []

    def all_but_one(images, numbers, settings, width, workers, batch_size, ordered):
        runs.append((len(numbers), batch_size))
        for start in range(0, len(numbers), batch_size):
            block = numbers[start : start + batch_size]
            if 5 not in block:
                yield Block(block, np.zeros((len(block), width), np.float32), {})

    monkeypatch.setattr(workers, "_one_run", all_but_one)
    blocks = list(workers._all_blocks([""] * 200, {}, 2, Workers(1), 64, False))
    assert runs == [(200, 64), (64, 4), (4, 1)]
    assert sorted(numbers_of(blocks)) == list(range(200)) and list(blocks[-1].reasons) == [5]


def test_what_is_no_fault_of_an_image_ends_the_command(encoder, cluster):
    with pytest.raises(RuntimeError, match="A worker failed: MemoryError: no room for it"):
        list(embed(encoder, ["1", "failing"], cluster, count=1))


def test_a_model_that_a_node_does_not_have_ends_the_command(encoder, cluster):
    (encoder.source / "absent").touch()
    with pytest.raises(RuntimeError, match=r"The workers ended: .*this node has no model"):
        list(embed(encoder, ["1"], cluster, count=1))


def test_no_cluster_at_an_address_is_said(encoder):
    for address in ("ray://head:10001", "." * 70 + ":1"):
        with pytest.raises(ConfigError, match=r"is a Ray client's address|No Ray cluster answers at \.\.\."):
            list(encoder.embed_many(["1"], ray=address))
    with pytest.raises(ConfigError, match=r"No Ray cluster answers at 127.0.0.1:1"):
        list(encoder.embed_many(["1"], ray="127.0.0.1:1"))


def test_a_machine_without_a_gpu_is_said(monkeypatch):
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 8.0})
    with pytest.raises(ConfigError, match=r"Ray finds no GPU on this machine, .* 0.5 .*leave --gpus-per-worker out"):
        workers._processes(Workers(gpus=0.5))
    assert workers._processes(Workers(gpus=0.5, address="10.0.0.1:6379")) == (1, 1)  # a node with one may join


SCRIPT = """
import sys
from pathlib import Path
import psutil
from fake_workers import FakeWorker
from tf_reid.encoders import workers
workers.Worker = FakeWorker
images = [str(number) for number in range(4_000)]
settings = dict(source=Path(sys.argv[1]), digest="d", role="image", width=2, batch_size=2)
for block in workers.embed(images, workers=workers.Workers(1), **settings):
    family = [psutil.Process(), *psutil.Process().children(recursive=True)]
    connections = [connection for one in family for connection in one.net_connections("inet")]
    places = {one.laddr.ip.removeprefix("::ffff:") for one in connections if one.status == psutil.CONN_LISTEN}
    print(sorted(places), *(one.pid for one in family), sep="|", flush=True)
    break
for block in workers.embed(images, workers=workers.Workers(1), **settings):
    print("again", flush=True)
"""


def test_a_private_ray_is_for_this_machine_alone_and_ends_with_ctrl_c(tmp_path):
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    environment = {"PYTHONPATH": IMPORTED_FROM}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | environment) as process:
        places, *family = process.stdout.readline().split("|")
        assert places == "['127.0.0.1']"
        assert process.stdout.readline() == "again\n"  # a second time in one process
        family += [str(child.pid) for child in psutil.Process(process.pid).children(recursive=True)]
        process.send_signal(signal.SIGINT)
        process.wait(30)
    assert process.returncode != 0
    deadline = time.monotonic() + 10
    while any(psutil.pid_exists(int(pid)) for pid in family) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [pid for pid in family if psutil.pid_exists(int(pid))]


def test_the_search_command_embeds_by_workers_what_it_embeds_alone(tmp_path, cluster, capsys):
    """Real workers with a real model, into Parquet files, from there into a gallery; a second time nothing is new."""
    keras_model = keras.Sequential([keras.Input((8, 4, 3)), keras.layers.Flatten(), keras.layers.Dense(5)])
    servable = Servable(keras_model, (8, 4), False, unit=True)
    model = tmp_path / "models" / "reid" / "1"
    tf.saved_model.save(servable, str(model), signatures=servable.signatures())
    (model / "assets.extra").mkdir()
    about = {"digest": "d1", "role": "image", "distance": "cosine", "width": 5}
    (model / "assets.extra" / "model.json").write_text(json.dumps(about))
    (tmp_path / "crops").mkdir()
    rng = np.random.default_rng(0)
    for number in range(21):
        image = rng.integers(256, size=(8, 4, 3), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / "crops" / f"{number // 3}_c{number % 3}.png"), image)
    (tmp_path / "crops" / "9_c0.png").write_text("text")

    places = [str(tmp_path / name) for name in ("alone", "files", "gallery")]
    images = [str(tmp_path / "crops"), "--pattern", r"(?P<person>\d+)_c(?P<camera>\d)", "--batch", "4"]
    search.main(["build", "--index", places[0], "--model", str(model), *images])
    by_workers = ["embed", "--to", places[1], "--model", str(model), *images, "--ray", cluster.address]
    assert search.main(by_workers) == {
        "added": 21,
        "contained": 0,
        "unreadable": {f"{tmp_path}/crops/9_c0.png": "is not a JPEG, PNG, BMP, WebP, TIFF or GIF image"},
        "images": 21,
    }
    (tmp_path / "crops" / "9_c0.png").unlink()
    again = search.main(by_workers)
    assert (again["added"], again["contained"]) == (0, 21)
    assert search.main(["build", "--index", places[2], "--from", places[1]])["added"] == 21
    assert "Its files hold 21." in capsys.readouterr().out
    kept = []
    for place in (places[0], places[2]):
        with search.open_gallery(place) as gallery:
            paths, embeddings = gallery.paths_and_embeddings()
            records = {match.record for match in gallery.search(embeddings[:1], top=21)[0]}
        kept.append((records, dict(zip(paths, embeddings, strict=True))))
    assert kept[0][0] == kept[1][0] and len(kept[0][0]) == 21
    for path, embedding in kept[0][1].items():
        np.testing.assert_allclose(kept[1][1][path], embedding, rtol=0, atol=1e-6)
    with pytest.raises(ConfigError, match="names all images that are added"):
        search.main(["add", "--index", places[2], "--from", places[1], *images[:1]])
