"""A run's folder: what it was asked to do, by which code, how far it got; and how a run is set up again from it.

```
RUN/config.yaml         every setting, resolved        RUN/networks/     the networks that finished stages trained
RUN/environment.json    code revision, versions        RUN/pictures/     PNG grids by stage and step
RUN/data.json           which images were trained on   RUN/evaluation/   rank lists, kept features, ROC
RUN/checkpoints/        the last two                   RUN/metrics.json  scores by representation
RUN/tensorboard/        curves, pictures, settings
```
"""

import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

import cv2
import keras
import numpy as np
import tensorboard
import tensorflow as tf
import tensorflow_datasets as tfds
import yaml

from tf_reid import config as configuration
from tf_reid.config import Config, ConfigError
from tf_reid.data import samplers
from tf_reid.data.records import Records
from tf_reid.files import write_text
from tf_reid.methods import METHODS
from tf_reid.runs.splits import fingerprint

# Settings that change what is shown or where things lie, not what is computed. The protocol decides what is trained on.
NOT_COMPARED = re.compile(r"run\.(\w+_every|strategy)|data\.\w+_dir|evaluate\.(?!protocol).*")


FROM_RUNS = ("classifier", "teacher")  # settings of methods that name a run whose classifier to take


def check_run(folder: Path, config: Config):
    """Make sure that what is in the folder, if anything, is a run with the same settings.

    Raises:
        ConfigError: the folder holds a run with other settings (the message names them), or something else.
    """
    path = folder / "config.yaml"
    if path.exists():
        before = configuration.load(str(path), [], METHODS)  # with the defaults of settings younger than the run
        differences = _differences(before.model_dump(), config.model_dump())
        changed = [f"{key} was {a!r} and is now {b!r}" for key, a, b in differences if not NOT_COMPARED.fullmatch(key)]
        if changed:
            raise ConfigError(
                f"{folder} holds a run with other settings ({'; '.join(changed)}); choose another --run, or remove it."
            )
        return
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"{folder} holds other things and no config.yaml of a run; choose another --run.")


def open_run(folder: Path, config: Config, seen: dict[str, Records]):
    """Create the run's folder, or make sure that the one there is a run with the same settings on the same images.

    Raises:
        ConfigError: as `check_run` and `check_data`.
    """
    check_run(folder, config)
    if (folder / "config.yaml").exists():
        check_data(folder, seen)
        return
    write_text(folder / "environment.json", json.dumps(environment(), indent=2) + "\n")
    write_text(folder / "data.json", json.dumps({d: fingerprint(r) for d, r in seen.items()}, indent=2) + "\n")
    write_text(folder / "config.yaml", configuration.dump(config))


def check_data(folder: Path, seen: dict[str, Records]):
    """Make sure that the images that a run was trained on are still those that its settings choose.

    Raises:
        ConfigError: a data set changed since, so that what the run saw may be among what it would be scored on.
    """
    for domain, before in _trained_on(folder).items():
        now = fingerprint(seen[domain])
        if now != before:
            raise ConfigError(
                f"{folder} was trained on {before['images']} images of {before['identities']} persons of "
                f"{before['name']}, which are no longer those that data.{domain} names ({now['images']} of "
                f"{now['identities']} of {now['name']}): the data set changed. Bring it back, or train another --run."
            )


def _trained_on(folder) -> dict:
    path = Path(folder) / "data.json"
    return json.loads(path.read_text()) if path.exists() else {}


def is_run(folder: Path) -> bool:
    """Whether it is a run's folder, not an exported model's, which may hold a run's configuration too."""
    return (folder / "config.yaml").exists() and not (folder / "saved_model.pb").exists()


def load_run(folder: Path, overrides=()) -> Config:
    """The settings of a run's folder, without the files its networks started from: its checkpoint has their weights.

    Raises:
        ConfigError: there is no run in this folder.
    """
    path = folder / "config.yaml"
    if not path.exists():
        beneath = sorted(str(inside) for inside in folder.glob("*") if is_run(inside))
        other = f"there is one in {', '.join(beneath)}" if beneath else f"train one with --run {folder}"
        raise ConfigError(f"There is no run in {folder} (no config.yaml); {other}.")
    method = yaml.safe_load(path.read_text())["method"]
    started_from = [f"method.{key}=null" for key in method if key in FROM_RUNS or key.endswith("weights")]
    return configuration.load(str(path), [*started_from, *overrides], METHODS)


def environment() -> dict:
    """The code's revision, the versions of what it stands on, the hardware."""
    packages = (tf, keras, tfds, np, cv2, tensorboard)
    return {
        "command": sys.argv,
        "revision": _revision(),
        "python": platform.python_version(),
        "packages": {package.__name__: package.__version__ for package in packages},
        "devices": [device.name for device in tf.config.list_physical_devices()],
        "cpu": platform.processor() or platform.machine(),
        "cpu_cores": os.cpu_count(),
    }


def make_deterministic(config: Config):
    """Seed everything that draws; where asked for, make every op give the same bits each time."""
    keras.utils.set_random_seed(config.run.seed)
    if config.run.deterministic:
        tf.config.experimental.enable_op_determinism()


def make_strategy(name: str) -> tf.distribute.Strategy:
    """`auto`: all GPUs if there is one, else the CPU as one device. Without a GPU, `mirrored` takes logical CPUs."""
    if name == "multi_worker":  # must come before anything that starts TensorFlow's devices
        return tf.distribute.MultiWorkerMirroredStrategy()
    gpus = tf.config.list_logical_devices("GPU")
    if name == "mirrored" or (name == "auto" and gpus):
        return tf.distribute.MirroredStrategy([device.name for device in gpus or tf.config.list_logical_devices("CPU")])
    return tf.distribute.get_strategy()


def check_batches(config: Config, strategy: tf.distribute.Strategy):
    """Every replica gets as many rows of a batch as the others: pairs, or what else its sampler draws together.

    Raises:
        ConfigError: a stage's batch cannot be shared evenly.
    """
    replicas = strategy.num_replicas_in_sync
    for name, stage in config.stages.items():
        sampler = METHODS[config.method["name"]].STAGES[name].sampler
        evenly = samplers.ROW[sampler] * stage.images_per_view * replicas
        if stage.batch_size % evenly:
            raise ConfigError(
                f"stages.{name}.batch_size is {stage.batch_size}, but {replicas} replicas share its rows evenly "
                f"only where it is a multiple of {evenly}; change it, or set run.strategy=one."
            )


def check_classifier(config: Config, source: Records):
    """A classifier that is taken from another run learned from this run's labelled images, at their size.

    Raises:
        ConfigError: that run had other images.
    """
    for key in FROM_RUNS:
        run = config.method.get(key)
        if run and _trained_on(run):
            _check_same_images(key, run, config, source)


def _check_same_images(key, run, config, source):
    theirs, ours = _trained_on(run)["source"], fingerprint(source)
    if theirs != ours:
        raise ConfigError(
            f"method.{key}: {run} was trained on {theirs['images']} images of {theirs['identities']} persons of "
            f"{theirs['name']}, this run has {ours['images']} of {ours['identities']} of {ours['name']}, or others; "
            "name a run of the same source, split and trial."
        )
    size = load_run(Path(run)).data.image_size
    if size != config.data.image_size:
        raise ConfigError(
            f"method.{key}: {run} was trained at data.image_size={size}, this run has {config.data.image_size}."
        )


def own_folder(strategy: tf.distribute.Strategy, folder: Path) -> Path:
    """Where this process writes: the run's folder, but a temporary one for workers other than the first."""
    resolver = strategy.cluster_resolver
    if resolver is not None and resolver.task_id:
        return Path(tempfile.mkdtemp(prefix="tf_reid_worker_"))
    return folder


def build_model(config: Config, identities: int):
    """The configured method for so many persons, every network and optimizer; call it inside the strategy's scope."""
    arguments = {key: value for key, value in config.method.items() if key != "name"}
    model = METHODS[config.method["name"]](config.data.image_size, identities, config.run.seed, **arguments)
    model.compile(config.stages, jit_compile=config.run.jit_compile)
    return model


def restored(folder: Path, config: Config):
    """A run's model as its last checkpoint has it, and its `Progress`.

    Raises:
        ConfigError: there is no checkpoint yet.
    """
    if trained_on := _trained_on(folder):
        model = build_model(config, trained_on["source"]["identities"])
        progress = Progress(folder, model)
        if progress.restore(partially=True):
            return model, progress
    raise ConfigError(f"{folder} has no checkpoint yet; train it with --run {folder}.")


class Progress:
    """Where a run stands (stage and step) and its checkpoints, of which the last two are kept."""

    def __init__(self, folder: Path, model, write_to: Path | None = None):
        self.stage = tf.Variable(0, dtype=tf.int64, trainable=False)
        self.model = model
        # Keras tracks neither a dictionary of optimizers nor the states of dropout's random generators.
        seeds = [v.value for v in model.variables if v.path.endswith("seed_generator_state")]
        optimizers = dict(model.player_optimizers)
        self.checkpoint = tf.train.Checkpoint(model=model, optimizers=optimizers, seeds=seeds, stage=self.stage)
        self.folder = str(folder / "checkpoints")
        own = str((write_to or folder) / "checkpoints")
        self.manager = tf.train.CheckpointManager(self.checkpoint, own, max_to_keep=2)

    def save(self):
        self.manager.save()

    def restore(self, partially=False) -> bool:
        """Go on from the last checkpoint; False if there is none.

        Raises:
            ValueError: it cannot be read; the message says what to do.
        """
        latest = tf.train.latest_checkpoint(self.folder)
        if latest is None:
            return False
        try:
            status = self.checkpoint.restore(latest)
            status.expect_partial() if partially else status.assert_existing_objects_matched()
        except (tf.errors.OpError, AssertionError, ValueError) as error:
            raise ConfigError(
                f"The checkpoint {latest} cannot be read ({str(error).splitlines()[0]}); remove its files and, in the "
                "file 'checkpoint' beside them, name the one before it."
            ) from None
        return True


def _differences(old, new, prefix=""):
    for key in dict.fromkeys([*old, *new]):
        was, now = old.get(key), new.get(key)
        if isinstance(was, dict) and isinstance(now, dict):
            yield from _differences(was, now, f"{prefix}{key}.")
        elif was != now:
            yield f"{prefix}{key}", was, now


def _revision():
    try:
        here = Path(__file__).parent
        git = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=40"]
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return f"tf_reid {metadata.version('tf_reid')}" if _installed() else "unknown"


def _installed():
    return any(True for _ in metadata.Distribution.discover(name="tf_reid"))
