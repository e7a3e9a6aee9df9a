"""Small models and records that the tests share; two logical CPU devices, as distribution needs."""

import inspect
import os
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# A test carries out a compiled step once: less optimisation, and the older emitters, save most of its time.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true --xla_cpu_use_fusion_emitters=false",
)

import cv2
import keras
import numpy as np
import pytest
import tensorflow as tf
import yaml

from benchmarks import postgres_server
from tf_reid.config import SHIPPED
from tf_reid.data.records import Records
from tf_reid.evaluation import extraction
from tf_reid.methods import METHODS
from tf_reid.settings import Optimizer, StageSettings

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)

SIZE = (32, 16)
IDENTITIES = 5
CONFIGS = SHIPPED
# A method is tested with the `method` section of configs/NAME.yaml; these are smaller still, and so faster.
SMALL = {
    "simpgan": {
        "backbone": "small",
        "weights": None,
        "dropout": 0.0,
        "generator_width": 4,
        "generator_blocks": 1,
        "discriminator_width": 4,
        "discriminator_layers": 2,
        "identity_weight": 5.0,
        "pool_size": 8,
    },
    "cmgan": {"backbone": "small", "weights": None, "head_width": 8, "discriminator_widths": [8, 4]},
    "crossgan": {
        "latent_width": 6,
        "encoder_width": 16,
        "width": 16,
        "generator_shared": 2,
        "search_steps": 2,
        "reconstruction_weight": 0.01,
    },
    "cogan": {"latent_width": 6, "width": 16},
    "dgnet": {
        "backbone": "small",
        "weights": None,
        "last_stride": 1,
        "dropout": 0.0,
        "fine_dropout": 0.0,
        "teacher_backbone": "small",
        "teacher_weights": None,
        "teacher_dropout": 0.0,
        "width": 4,
        "scales": 2,
        "blocks": 1,
        "warm_up": 0,
        "ramp": 1.0,
    },
    "view_adaptation": {
        "probe_backbone": "small",
        "gallery_backbone": "small_vgg",
        "gallery_weights": None,
        "similarity_widths": [8, 4],
        "view_widths": [8],
    },
}


def stage_configs(method, steps=10, optimizer="sgd", learning_rate=0.01, ema_momentum=None, l2=0.0, skipped=()):
    """Every stage of a method with plain optimizers; `ema_momentum` is by player, stages in `skipped` have 0 steps."""

    def settings(player):
        momentum = (ema_momentum or {}).get(player, 0.0)
        return Optimizer(name=optimizer, learning_rate=learning_rate, ema_momentum=momentum, l2=l2)

    return {
        name: StageSettings(
            steps=0 if name in skipped else steps, batch_size=8, optimizers={p: settings(p) for p in stage.players}
        )
        for name, stage in method.STAGES.items()
    }


def stage_of(batch_size, **settings):
    """A stage's settings, as far as samplers read them."""
    return StageSettings(steps=1, batch_size=batch_size, optimizers={}, **settings)


def small_settings(name):
    """Arguments of a small method's constructor: those of `SMALL`, else of its configuration without dropout.

    Steps call a network on joined batches, whose rows are other images on two replicas than on one: dropout would hit
    others, so that replicas could not be compared.
    """
    if name in SMALL:
        return SMALL[name]
    settings = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())["method"]
    parameters = inspect.signature(METHODS[name]).parameters
    without_dropout = {key: 0.0 for key in parameters if key.endswith("dropout")}
    return {key: value for key, value in settings.items() if key != "name"} | without_dropout


def build(name, seed=0, optimizer="sgd", learning_rate=0.01, ema_momentum=None, l2=0.0, skipped=(), **changes):
    """A small method, compiled."""
    keras.utils.set_random_seed(seed)
    model = METHODS[name](SIZE, IDENTITIES, seed, **{**small_settings(name), **changes})
    settings = {"optimizer": optimizer, "learning_rate": learning_rate, "ema_momentum": ema_momentum, "l2": l2}
    model.compile(stage_configs(METHODS[name], skipped=skipped, **settings))
    return model


def rows_of_four(images=8, seed=0):
    """A batch as the sampler `swaps` draws it: two identities a row, then the same two again."""
    rng = np.random.default_rng(seed)
    first = rng.integers(IDENTITIES, size=images // 4)
    second = (first + 1) % IDENTITIES
    return {
        "source": tf.constant(rng.uniform(-1, 1, (images // 4, 4, *SIZE, 3)), tf.float32),
        "source_identity": tf.constant(np.stack([first, second, first, second], axis=1), tf.int64),
    }


def batch_for(name, stage, images=8, seed=None):
    """A random batch of the form that a method's stage takes."""
    sampler = METHODS[name].STAGES[stage].sampler
    if sampler == "swaps":
        return rows_of_four(images, seed=5 if seed is None else seed)
    batch = random_batch(images, seed or 0)
    return single_images(batch) if sampler == "single_images" else batch


def single_images(batch):
    """The source's images of a batch, in one row each."""
    return {
        "source": tf.reshape(batch["source"], (-1, *SIZE, 3)),
        "source_identity": tf.reshape(batch["source_identity"], [-1]),
    }


def random_batch(images=8, seed=0):
    """A batch as the pipeline gives it: pairs of source and target, alternately of one identity and of two."""
    rng = np.random.default_rng(seed)
    pairs = images // 2
    first = rng.integers(IDENTITIES, size=pairs)
    identity = np.stack([first, (first + np.arange(pairs) % 2) % IDENTITIES], axis=1)
    return {
        "source": tf.constant(rng.uniform(-1, 1, (pairs, 2, *SIZE, 3)), tf.float32),
        "target": tf.constant(rng.uniform(-0.5, 1, (pairs, 2, *SIZE, 3)), tf.float32),
        "source_identity": tf.constant(identity, tf.int64),
    }


def eager_step(model, stage, batch, step=0):
    """Losses of a training step that is not traced first, which would take far longer than the step."""
    model.step.assign(step)
    model.begin(stage)
    model.phase = model.phase_of(step)
    return model.train_step(batch)


def convolutions(traced):
    """How many convolutions a traced function has that no gradient calls for."""
    operations = traced.graph.get_operations()
    return sum(op.type == "Conv2D" and "gradient_tape" not in op.name for op in operations)


def extract_roles(encoders, records, trials, **options):
    """Features of the records that trials need, as queries and as gallery images, by one set of encoders."""
    return extraction.extract_together({"": encoders}, records, trials, SIZE, **options)[""]


def make_records(identity, camera, split=None, size=SIZE, name="test", protocols=None, population=None):
    """Records with noise for images; every image's red channel is its index."""
    rng = np.random.default_rng(0)
    images = np.empty(len(identity), object)
    for i in range(len(identity)):
        pixels = rng.integers(256, size=(*size, 3), dtype=np.uint8)
        pixels[..., 0] = i
        images[i] = cv2.imencode(".png", pixels[..., ::-1])[1].tobytes()
    return Records(
        name=name,
        images=images,
        identity=np.array(identity),
        camera=np.array(camera),
        modality=np.full(len(identity), "rgb", dtype="<U8"),
        file=np.array([f"{i}.png" for i in range(len(identity))]),
        split=np.array(split if split is not None else ["train"] * len(identity)),
        protocols=protocols or {"market": {"kind": "market"}},
        default_protocol="market",
        population=population or name,
    )


@pytest.fixture(scope="session", autouse=True)
def folder_of_known_models(tmp_path_factory):
    """Search commands, also those in processes of their own, remember the models that they are given here."""
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))


@pytest.fixture(scope="session")
def postgres():
    """The address of a PostgreSQL server; all processes of a test session share one."""
    import psycopg

    session = os.environ.get("PYTEST_XDIST_TESTRUNUID", os.getpid())
    server = postgres_server.start(Path(tempfile.gettempdir()) / f"tf_reid_postgres_{session}")
    with psycopg.connect(server.get_uri(), autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET fsync = off")  # nothing has to outlive the machine
        connection.execute("SELECT pg_reload_conf()")
    yield server.get_uri()
    server.cleanup()


@pytest.fixture(scope="session")
def two_replicas():
    """One for all tests: a second strategy over the same devices would reuse the first one's collective keys."""
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


@pytest.fixture
def encoder():
    """A Keras model as small as one that is kept."""
    keras.utils.set_random_seed(0)
    images = keras.Input((*SIZE, 3))
    return keras.Model(images, keras.layers.Dense(5)(keras.layers.Flatten()(images)))


@pytest.fixture
def one_step():
    """(model, stage, batch) -> losses, of one training step outside `fit`."""

    def step(model, stage, batch):
        model.begin(stage)
        return model.advance(iter(tf.data.Dataset.from_tensors(batch)))[1]

    return step
