"""Ray for the time of one command: one that runs in this process already, a cluster, or a private one of our own.

Importing this module loads neither Ray nor TensorFlow.
"""

import contextlib
import importlib.util
import logging
import os
import socket
import sys
from collections.abc import Iterator
from typing import Any

from tf_reid.config import ConfigError
from tf_reid.encoders import private_ray

OBJECT_STORE = 200 * 2**20  # bytes at least, and a quarter of them for each worker
CONNECTED_WITHIN = 5  # seconds
VARIABLES = (  # that `private_ray.set_environment` changes
    "RAY_AUTH_TOKEN",
    "RAY_AUTH_MODE",
    "RAY_AUTH_TOKEN_PATH",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER",
    "RAY_USAGE_STATS_ENABLED",
)


def is_verbose() -> bool:
    """Whether TF_REID_VERBOSE is set."""
    return os.environ.get("TF_REID_VERBOSE", "0") != "0"


@contextlib.contextmanager
def running(address: str | None, workers: int) -> Iterator[None]:
    """In this context Ray runs. One that ran in this process before stays; any other ends with the context.

    Args:
        address: of a cluster; None: a private Ray of this machine, if none runs in this process.
        workers: that a private Ray has room for, or more.

    Raises:
        ConfigError: there is no cluster at this address, or Ray is not installed.
    """
    if importlib.util.find_spec("ray") is None:
        raise ConfigError("Ray is not installed; several workers need pip install 'tf_reid[bulk]'.")
    with _quiet_backend():
        if "ray" in sys.modules and sys.modules["ray"].is_initialized():
            yield
        elif address is None:
            with _private(workers):
                yield
        else:
            with _connected(address):
                yield


@contextlib.contextmanager
def _quiet_backend() -> Iterator[None]:
    """In this context Ray's core prints no errors of its own here, unless TF_REID_VERBOSE is set: Ray raises them."""
    name = "RAY_BACKEND_LOG_LEVEL"
    if is_verbose() or name in os.environ:
        yield
        return
    os.environ[name] = "fatal"
    try:
        yield
    finally:
        os.environ.pop(name, None)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """In this context Ray Data logs nothing, unless TF_REID_VERBOSE is set: errors are reported by who embeds."""
    logger = logging.getLogger("ray.data")
    level = logger.level
    if not is_verbose():
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def check_cluster(address: str) -> None:
    """Raise a ConfigError where nothing answers at the HOST:PORT of a cluster: Ray itself tries for a minute.

    Other addresses, such as auto, are left to Ray, but for those of Ray clients.
    """
    if address.startswith("ray://"):
        raise ConfigError(
            f"--ray {address} is a Ray client's address; run this on a node of the cluster with --ray auto."
        )
    host, _, port = address.rpartition(":")
    if port.isdigit():
        try:
            socket.create_connection((host.strip("[]"), int(port)), CONNECTED_WITHIN).close()
        except (OSError, OverflowError, UnicodeError) as error:
            raise ConfigError(f"No Ray cluster answers at {address}: {error}.") from None


@contextlib.contextmanager
def _connected(address: str) -> Iterator[None]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    check_cluster(address)
    import ray

    try:
        ray.init(address=address, **log_options())
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ConfigError(f"No Ray cluster answers at {address}: {reason}") from None
    try:
        yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _private(workers: int) -> Iterator[None]:
    before = {name: os.environ[name] for name in VARIABLES if name in os.environ}
    with private_ray.folder() as folder:
        private_ray.set_environment(folder)
        import ray  # reads these variables

        try:
            ray.init(
                address="local",
                num_cpus=max(workers, os.cpu_count() or 1),
                object_store_memory=OBJECT_STORE + workers * OBJECT_STORE // 4,
                include_dashboard=False,
                _temp_dir=private_ray.temporary(folder),
                **log_options(),
            )
            yield
        finally:
            ray.shutdown()
            for name in VARIABLES:  # a later Ray would look for a token that is gone
                os.environ.pop(name, None)
            os.environ |= before


def log_options() -> dict[str, Any]:
    """What `ray.init` is given, so that Ray prints errors alone unless TF_REID_VERBOSE is set."""
    return {"log_to_driver": is_verbose(), "logging_level": logging.INFO if is_verbose() else logging.ERROR}
