"""The replicas of a server on Ray Serve: on a Ray of their own, or on a cluster that runs."""

import asyncio
import contextlib
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from export.calls import Call, Reply, Seconds
from export.deployment import Served
from export.front import ReplicaLost
from export.limits import Limits
from tf_reid.config import ConfigError
from tf_reid.encoders import private_ray, ray_session

LOCAL = "local"
SECONDS_BETWEEN_LOOKS = 1.0  # at how many replicas run
log = logging.getLogger("tf_reid.serve")


class Wanted(NamedTuple):
    """Which replicas are started.

    Attributes:
        address: of Ray: `LOCAL`: one is started; otherwise as `ray.init` takes it.
        name: of the application, by which one that a killed server left is replaced.
        replicas: how many; None: from one to as many as there is room for, by how much there is to do.
        gpus: of each, such as 0.5.
        folder, limits, batch: of `replica.Replica`.
    """

    address: str
    name: str
    replicas: int | None
    gpus: float
    folder: Path
    limits: Limits
    batch: int


class RayReplicas:
    """The replicas of an application that runs. See `front.Replicas`."""

    def __init__(self, handle: Any, wanted: Wanted):
        self.handle, self.wanted, self.running = handle, wanted, 0
        self._answer = handle.answer  # Ray makes a new one each time

    async def answer(
        self, served: Mapping[str, Served], calls: Sequence[Call], may_be_slow: bool
    ) -> tuple[list[Reply | None], Seconds]:
        from ray.exceptions import RayError, RayTaskError
        from ray.serve.exceptions import RayServeException

        try:
            return await self._answer.remote(served, list(calls), may_be_slow)
        except RayTaskError:  # the replica lives, and failed
            raise
        except (RayError, RayServeException) as error:
            raise ReplicaLost(type(error).__name__) from error

    async def prepare(self, served: Mapping[str, Served]) -> None:
        """Have every replica load what is going to be served, while it answers."""
        await self.handle.broadcast("prepare", served).results_async()

    async def release(self, served: Mapping[str, Served]) -> None:
        """Have every replica forget what is no longer served."""
        await self.handle.broadcast("release", served).results_async()

    async def watch(self) -> None:
        """Keep `running` up to date, for ever. Cancelled in the middle of a look, it ends after that look."""
        while True:
            await asyncio.sleep(SECONDS_BETWEEN_LOOKS)
            look = asyncio.create_task(asyncio.to_thread(_running, self.wanted.name))
            try:
                with contextlib.suppress(Exception):  # the controller may start again; the next look may succeed
                    self.running = await asyncio.shield(look)
            finally:
                await asyncio.wait([look])  # a look after Ray was shut down would start another Ray


def start(wanted: Wanted, folder: Path | None) -> RayReplicas:
    """Start Ray, or join it, and the replicas; returns once all of them have answered.

    Args:
        folder: of Ray's own, as `private_ray.folder` gives it, where it is started.

    Raises:
        RuntimeError: a replica cannot be started; the message has its error.
    """
    options = ray_session.log_options()
    if folder is not None:
        private_ray.set_environment(folder)
        os.environ.setdefault("RAY_SERVE_CONTROL_LOOP_INTERVAL_S", "0.5")  # 0.1 takes time that the models need
        options |= {"include_dashboard": False, "_temp_dir": private_ray.temporary(folder)}
    # Imported only now, for Ray reads these variables when it is imported.
    import ray
    from ray import serve

    from export.replica import deployment

    ray.init(address=wanted.address, **options)
    if not ray_session.is_verbose():
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
    # Requests come through the front, which joins them: Ray's own proxies are not needed.
    serve.start(proxy_location="Disabled", logging_config={"log_level": "WARNING", "enable_access_log": False})
    # On a Ray of our own a CPU is no reservation: TensorFlow takes the cores that it finds.
    cpus = 0 if wanted.address == LOCAL else 1
    number = wanted.replicas or (1, room(ray.nodes(), wanted.gpus))
    application = deployment(number, cpus, wanted.gpus).bind(
        str(wanted.folder.resolve()), tuple(wanted.limits), wanted.batch, threads(wanted), wanted.address == LOCAL
    )
    try:
        handle = serve.run(application, name=wanted.name, route_prefix=None)
    except RuntimeError as error:
        raise RuntimeError(f"{wanted.folder} cannot be served: {_reason(serve.status(), wanted) or error}") from error
    replicas = RayReplicas(handle, wanted)
    replicas.running = _running(wanted.name)
    return replicas


def room(nodes: list[dict[str, Any]], gpus: float) -> int:
    """How many replicas a cluster can carry: by its GPUs, or without them one on each node with a CPU.

    Raises:
        ConfigError: not one.
    """
    resources = [node["Resources"] for node in nodes if node["Alive"]]
    if not gpus:
        return max(1, sum(each.get("CPU", 0) >= 1 for each in resources))
    on_each = [
        int(each.get("GPU", 0)) * int(1 / gpus) if gpus < 1 else int(each.get("GPU", 0) / gpus) for each in resources
    ]
    if not sum(on_each):
        raise ConfigError(f"No node of the cluster has --gpus-per-replica {gpus:g} of a GPU; leave it out.")
    return sum(on_each)


def stop(wanted: Wanted) -> None:
    """End the replicas, and Ray where it was started for them."""
    import ray
    from ray import serve

    if ray.is_initialized():
        try:
            # Where the start failed, there may be nothing to delete; that failure is the one to report.
            with contextlib.suppress(Exception):
                serve.delete(wanted.name)
        finally:
            ray.shutdown()


def threads(wanted: Wanted) -> int | None:
    """With how many threads a replica computes: several on one machine share its cores. None: by TensorFlow itself."""
    if wanted.address != LOCAL or wanted.gpus or wanted.replicas in (None, 1):
        return None
    return max(1, (os.cpu_count() or 1) // wanted.replicas)


def _running(name):
    """How many replicas of an application run."""
    from ray import serve

    application = serve.status().applications.get(name)
    if application is None:
        return 0
    return sum(each.replica_states.get("RUNNING", 0) for each in application.deployments.values())


def _reason(status, wanted):
    """The last line of the traceback with which a replica failed to start, which Ray keeps; "" where it has none."""
    application = status.applications.get(wanted.name)
    messages = [each.message.strip() for each in application.deployments.values()] if application else []
    return "\n".join(messages).rpartition("\n")[2].strip()
