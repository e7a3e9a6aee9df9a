"""What it takes to repeat a run: seeds, deterministic operations, and a record of the code, versions and hardware."""

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np
import tensorboard
import tensorflow as tf
import tensorflow_datasets as tfds

from tf_reid.settings import Config


def make_deterministic(config: Config) -> None:
    """Seed every random generator; with `run.deterministic`, let TensorFlow use deterministic operations only."""
    keras.utils.set_random_seed(config.run.seed)
    if config.run.deterministic:
        tf.config.experimental.enable_op_determinism()


def environment() -> dict[str, Any]:
    """The command, the code's revision, the versions of the packages it uses, and the hardware."""
    packages = (tf, keras, tfds, np, cv2, tensorboard)
    return {
        "command": sys.argv,
        "revision": _revision(),
        "python": platform.python_version(),
        "packages": {package.__name__: package.__version__ for package in packages},
        "devices": [device.name for device in tf.config.list_physical_devices()],
        "gpus": [_gpu_model(gpu) for gpu in tf.config.list_physical_devices("GPU")],
        "cpu": _cpu_model(),
        "cpu_cores": os.cpu_count(),
    }


def _gpu_model(gpu: Any) -> str:
    """Such as "NVIDIA H100"."""
    return str(tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name))


def _cpu_model() -> str:
    """Such as "AMD EPYC 7B13"; where the system does not tell, the architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def _revision() -> str:
    """The commit of a checkout; else the version of the installed package."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        # An installed package may lie within a checkout of something else, such as in its .venv.
        subprocess.run([*git, "ls-files", "--error-unmatch", __file__], capture_output=True, check=True)
        described = subprocess.run(
            [*git, "describe", "--always", "--dirty", "--abbrev=40"], capture_output=True, text=True, check=True
        )
        return described.stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return f"tf_reid {metadata.version('tf_reid')}" if _is_installed() else "unknown"


def _is_installed() -> bool:
    return any(True for _ in metadata.Distribution.discover(name="tf_reid"))
