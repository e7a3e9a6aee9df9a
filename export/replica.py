"""A replica of Ray Serve: the models in one process, which answers the batches of requests that the front sends it."""

import asyncio
import itertools
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import tensorflow as tf
from ray import serve

from export import private_ray, reading
from export.calls import Call, Reply, Seconds
from export.deployment import Served
from export.limits import Limits, RequestError
from export.reading import Asked
from export.served_models import ServedModels
from tf_reid.web.bounded_decoding import PROCESSES, WAITING, Busy, Decoder

BATCHES_AT_ONCE = 2  # one is computed while the next is read and decoded
SLOW_AT_ONCE = PROCESSES + WAITING + 2  # requests whose images are slow to decode; the decoder refuses the last ones


class Replica:
    """Ray calls these methods by their names.

    Args:
        folder: of exported models. limits: fields of `Limits`. batch: requests in one batch, at most.
        threads: that TensorFlow computes with; None: as many as there are cores.
        is_private: whether Ray was started for this server alone, on this machine.
    """

    def __init__(self, folder: str, limits: tuple, batch: int, threads: int | None, is_private: bool):
        if is_private:
            private_ray.keep_replica_here()
        if threads is not None:
            tf.config.threading.set_intra_op_parallelism_threads(threads)
        for gpu in tf.config.list_physical_devices("GPU"):
            tf.config.experimental.set_memory_growth(gpu, True)  # several replicas may share it
        self.batch = batch
        models = ServedModels(Path(folder), Limits(*limits))
        models.warm_up(batch)
        self.models = [models]  # the newest last; those before it may still be asked for
        self.decoder = Decoder(models.limits.pixels)
        self.loading, self.turn = asyncio.Lock(), asyncio.Lock()
        # Requests that wait for a slow image must not take the threads of the others.
        self.threads, self.slow_threads = ThreadPoolExecutor(2 * BATCHES_AT_ONCE), ThreadPoolExecutor(SLOW_AT_ONCE)

    async def prepare(self, served: Mapping[str, Served]) -> None:
        """Load what is going to be served and have it answer once; what is served now is answered meanwhile."""
        if self._loaded(served) is None:
            async with self.loading:
                if self._loaded(served) is None:  # no other call has loaded it meanwhile
                    moved = await asyncio.to_thread(self._moved, served)
                    self.models.append(moved)  # only now: `release` may have made another list meanwhile

    async def release(self, served: Mapping[str, Served]) -> None:
        """Forget all versions but those that are served now."""
        await self.prepare(served)
        self.models = [self._loaded(served)]

    def _moved(self, served):
        moved = self.models[-1].moved(served)
        moved.warm_up(self.batch, self.models[-1])
        return moved

    def _loaded(self, served):
        return next((models for models in self.models if models.served == served), None)

    async def answer(
        self, served: Mapping[str, Served], calls: Sequence[Call], may_be_slow: bool = False
    ) -> tuple[list[Reply | None], Seconds]:
        """The reply to each call, and what they took.

        Args:
            served: by which names and labels are read, so that all replicas read them alike at any time.
            may_be_slow: whether images that are slow to decode are decoded; otherwise the reply to such a call is None,
                and it has to come again without others, which would have to wait for it.
        """
        times = [time.perf_counter()]
        await self.prepare(served)
        models = self._loaded(served)
        asked = await self._in_thread(may_be_slow, self._read, models, calls, may_be_slow)
        times.append(time.perf_counter())
        answerable = [one for one in asked if isinstance(one, Asked)]
        async with self.turn:
            times.append(time.perf_counter())
            outputs = await self._in_thread(may_be_slow, models.answer, [one.request for one in answerable])
        times.append(time.perf_counter())
        replies = await self._in_thread(may_be_slow, _written, asked, outputs)
        times.append(time.perf_counter())
        return replies, Seconds(*(after - before for before, after in itertools.pairwise(times)))

    def _in_thread(self, may_be_slow, function, *arguments):
        threads = self.slow_threads if may_be_slow else self.threads
        return asyncio.get_running_loop().run_in_executor(threads, function, *arguments)

    def _read(self, models, calls, may_be_slow):
        return [self._read_one(models, call, may_be_slow) for call in calls]

    def _read_one(self, models, call, may_be_slow) -> Asked | Reply | None:
        try:
            asked = reading.read(models, call)
            if isinstance(asked, Reply):
                return asked
            inputs = asked.request.inputs
            encoded = [value for values in inputs.values() if isinstance(values, list) for value in values]
            if not may_be_slow and any(map(self.decoder.is_slow, encoded)):
                return None
            return asked._replace(
                request=asked.request._replace(inputs={name: self._sound(values) for name, values in inputs.items()})
            )
        except RequestError as error:
            return reading.refused(error)

    def _sound(self, values):
        """Encoded images as the model reads them, or pixels as they are."""
        if not isinstance(values, list):
            return values
        images = []
        for number, value in enumerate(values):
            try:
                images.append(self.decoder.plain(value))
            except ValueError as error:
                raise RequestError("INVALID_ARGUMENT", f"Image {number} {error}.", "undecodable") from None
            except Busy as error:
                raise RequestError("RESOURCE_EXHAUSTED", str(error), "too_many_slow") from None
        return images


def _written(asked, outputs):
    answers = iter(outputs)
    return [reading.written(one, next(answers)) if isinstance(one, Asked) else one for one in asked]


def deployment(replicas: int | tuple[int, int], cpus: float, gpus: float) -> serve.Deployment:
    """The replicas as Ray Serve deploys them.

    Args:
        replicas: how many, or the least and the most, between which Ray chooses by how much there is to do.
        cpus, gpus: what each takes of the cluster.
    """
    if isinstance(replicas, int):
        number = {"num_replicas": replicas}
    else:
        least, most = replicas
        scaling = {"min_replicas": least, "max_replicas": most, "target_ongoing_requests": 1}  # requests: batches
        number = {"autoscaling_config": scaling}
    deployed = serve.deployment(
        max_ongoing_requests=BATCHES_AT_ONCE + SLOW_AT_ONCE,  # the front sends no more than it has room for
        max_constructor_retry_count=1,  # its error is reported at once
        health_check_period_s=2,
        graceful_shutdown_timeout_s=60,
        ray_actor_options={"num_cpus": cpus, "num_gpus": gpus},
        **number,
    )
    return deployed(Replica)
