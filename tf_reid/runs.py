"""A run's folder: what it was asked to do, by which code, how far it got; and how a run is set up again from it.

```
RUN/config.yaml         every setting, resolved        RUN/networks/     weights of finished stages' networks
RUN/environment.json    code revision, versions        RUN/pictures/     PNG grids by stage and step
RUN/checkpoints/        the last two                   RUN/evaluation/   rank lists, Embedding Projector
RUN/tensorboard/        curves, pictures, settings     RUN/metrics.json  scores by representation
```
"""

import json
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import tfds_builders
from tf_reid import config as configuration
from tf_reid import data, protocols
from tf_reid.config import Config, ConfigError
from tf_reid.methods import METHODS


def write_text(path: Path, text: str):
    """Write beside, then rename: a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(text)
    os.replace(beside, path)


def open_run(folder: Path, config: Config):
    """Create the run's folder, or make sure that the one there is a run with the same settings.

    Raises:
        ConfigError: the folder holds a run with other settings (the message names them), or something else.
    """
    path = folder / "config.yaml"
    if path.exists():
        old = configuration.load(str(path), [], METHODS).model_dump()
        changed = [f"{key} was {was!r} and is now {now!r}" for key, was, now in _differences(old, config.model_dump())]
        if changed:
            raise ConfigError(
                f"{folder} holds a run with other settings ({'; '.join(changed)}); choose another --run, or remove it."
            )
        return
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"{folder} holds other things and no config.yaml of a run; choose another --run.")
    write_text(folder / "environment.json", json.dumps(environment(), indent=2) + "\n")
    write_text(path, configuration.dump(config))


def load_run(folder: Path) -> Config:
    """The settings of a run's folder.

    Raises:
        ConfigError: there is no run in this folder.
    """
    if not (folder / "config.yaml").exists():
        raise ConfigError(f"There is no run in {folder} (no config.yaml); train one with --run {folder}.")
    return configuration.load(str(folder / "config.yaml"), [], METHODS)


def environment() -> dict:
    """The code's revision, the versions of what it stands on, the hardware."""
    packages = (
        "tensorflow",
        "keras",
        "tensorflow-datasets",
        "numpy",
        "opencv-python-headless",
        "tensorboard",
    )
    return {
        "command": sys.argv,
        "revision": _revision(),
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in packages},
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
    gpus = tf.config.list_logical_devices("GPU")
    if name == "multi_worker":
        return tf.distribute.MultiWorkerMirroredStrategy()
    if name == "mirrored" or (name == "auto" and gpus):
        return tf.distribute.MirroredStrategy([device.name for device in gpus or tf.config.list_logical_devices("CPU")])
    return tf.distribute.get_strategy()


def load_data(config: Config) -> dict[str, data.Records]:
    """Every record of `source` and, if there is one, `target`; a data set that is not built yet is built."""
    specs = {"source": config.data.source, "target": config.data.target}
    loaded = {}
    for domain, spec in specs.items():
        if spec is None:
            continue
        builder = tfds_builders.builder(spec, data_dir=config.data.data_dir)
        loaded[domain] = data.load_records(tfds_builders.prepare(builder, config.data.manual_dir))
    return loaded


def training_records(config: Config, domains: dict[str, data.Records]) -> dict[str, data.Records]:
    """The images that training may see: those of `train` in the configured trial, or `all`.

    Junk is never among them, nor distractors in the source, which have no label to learn.
    """
    chosen = {}
    for domain, records in domains.items():
        if getattr(config.data, f"{domain}_split") == "all":
            mask = records.person >= (1 if domain == "source" else 0)
        else:
            scored = domain == scored_domain(config)
            protocol = protocol_of(records, config.evaluate.protocol if scored else None)
            mask = protocols.train_mask(records.person, records.split, protocol, config.data.trial)
        chosen[domain] = records.take(np.asarray(mask))
        if not len(chosen[domain]):
            raise ConfigError(f"{records.name} has no training image; set data.{domain}_split=all to train on all.")
    return chosen


def scored_domain(config: Config) -> str:
    """What a run is scored on: the target where there is one, else the source."""
    return "target" if config.data.target else "source"


def protocol_of(records: data.Records, name: str | None) -> dict:
    """One of the data set's protocols, its default where no name is given.

    Raises:
        ConfigError: it has no protocol of this name.
    """
    name = name or records.default_protocol
    if name not in records.protocols:
        raise ConfigError(f"evaluate.protocol: {records.name} has no {name!r}, but {', '.join(records.protocols)}.")
    return records.protocols[name]


def fair_trials(config: Config, records: data.Records) -> list[protocols.Trial]:
    """The trials that a run may be scored in: where it trained on the scored data set's `train`, its own trial alone.

    A target of which `all` images were seen, without their labels, is scored in every trial.

    Raises:
        ConfigError: the persons to be scored were trained on with their labels.
    """
    protocol = protocol_of(records, config.evaluate.protocol)
    found = protocols.trials(records.person, records.camera, records.split, protocol)
    if scored_domain(config) == "source":
        if config.data.source_split == "all":
            raise ConfigError("data.source_split=all trains on the very persons to be scored; set it to train.")
        return [trial for trial in found if trial.number == config.data.trial]
    stages = METHODS[config.method["name"]].STAGES
    target_was_seen = any(stages[name].domains == 2 and stage.steps for name, stage in config.stages.items())
    if target_was_seen and config.data.target_split == "train":
        return [trial for trial in found if trial.number == config.data.trial]
    return found


def build_model(config: Config, source: data.Records):
    """The configured method, its networks and every optimizer; call it inside the strategy's scope."""
    arguments = {key: value for key, value in config.method.items() if key != "name"}
    identities = len(np.unique(source.person))
    model = METHODS[config.method["name"]](config.data.image_size, identities, config.run.seed, **arguments)
    model.compile(config.stages, jit_compile=config.run.jit_compile)
    return model


class Progress:
    """Where a run stands (stage and step) and its checkpoints, of which the last two are kept."""

    def __init__(self, folder: Path, model):
        self.stage = tf.Variable(0, dtype=tf.int64, trainable=False)
        self.model = model
        # Keras tracks neither a dictionary of optimizers nor the states of dropout's random generators.
        seeds = [v.value for v in model.variables if v.path.endswith("seed_generator_state")]
        optimizers = dict(model.player_optimizers)
        self.checkpoint = tf.train.Checkpoint(model=model, optimizers=optimizers, seeds=seeds, stage=self.stage)
        self.manager = tf.train.CheckpointManager(self.checkpoint, str(folder / "checkpoints"), max_to_keep=2)

    def save(self):
        self.manager.save()

    def restore(self, partially=False) -> bool:
        """Go on from the last checkpoint; False if there is none.

        Raises:
            ValueError: it cannot be read; the message says what to do.
        """
        latest = self.manager.latest_checkpoint
        if latest is None:
            return False
        try:
            status = self.checkpoint.restore(latest)
            status.expect_partial() if partially else status.assert_existing_objects_matched()
        except (tf.errors.OpError, AssertionError, ValueError) as error:
            raise ValueError(
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
