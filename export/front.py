"""Where all requests to a server come together: they are joined, sent to the replicas, and sent again if one is lost.

It knows no protocol, and of Ray only `Replicas`.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Protocol

from export.calls import Call, Reply, Seconds
from export.deployment import Served
from export.limits import SECONDS_PER_REQUEST
from export.monitoring import Monitoring

BATCHES_PER_REPLICA = 2  # one is computed, the next is read and decoded meanwhile
TRIES = 3  # that a request is sent to a replica; the replica may die each time
SECONDS_BEFORE_AGAIN = 0.2  # Ray has to learn of a lost replica
log = logging.getLogger("tf_reid.serve")


class ReplicaLost(Exception):
    """A replica died, or there is none: what it was sent may be sent again."""


class Replicas(Protocol):
    """What answers. `running`: how many of them can be asked now."""

    running: int

    async def answer(
        self, served: Mapping[str, Served], calls: Sequence[Call], may_be_slow: bool
    ) -> tuple[list[Reply | None], Seconds]:
        """As `replica.Replica.answer`, of one of them. Raises `ReplicaLost`."""
        ...


class _Waiting:
    """A request that waits for its reply."""

    def __init__(self, call: Call, now: float):
        self.call, self.since, self.tries = call, now, 0
        self.reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

    def settle(self, reply: Reply) -> None:
        if not self.reply.done():  # it is where its client has left
            self.reply.set_result(reply)


class Front:
    """Answers calls by the replicas. Used in one event loop.

    What waits is sent as one batch. The first batch of a replica is sent at once. While a replica computes, its next
    batch gathers, until it is full or half of the present one's time is over.

    Args:
        served: what is served, by which replicas read names and labels; following.py changes it.
        batch: requests in a batch, at most.
        queue: requests that may wait here; more are refused.
    """

    def __init__(
        self, replicas: Replicas, served: Mapping[str, Served], batch: int, queue: int, monitoring: Monitoring
    ):
        self.replicas, self.served, self.batch, self.queue = replicas, served, batch, queue
        self.monitoring = monitoring
        self.is_stopping = self.is_saturated = False
        self._waiting: deque[_Waiting] = deque()
        self._sent: dict[asyncio.Task, Mapping[str, Served]] = {}  # exchanges -> what was served when they began
        self._batches: set[asyncio.Task] = set()  # exchanges without those of a single slow request
        self._later: asyncio.TimerHandle | None = None
        self._seconds, self._last = 0.0, 1  # of the model: a running mean; requests in the last batch
        monitoring.watch(self)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def outstanding(self) -> int:
        """Batches that replicas have."""
        return len(self._batches)

    def why_not_ready(self) -> str:
        """Why no request should come now; "" where they may."""
        if self.is_stopping:
            return "stopping"
        if not self.replicas.running:
            return "no replica"
        return "saturated" if self.is_saturated else ""

    async def answer(self, call: Call) -> Reply:
        """The reply to a call; it never fails."""
        if self.is_stopping:
            return Reply("UNAVAILABLE", sentence="This server is stopping; send the request again.", reason="stopping")
        if len(self._waiting) >= self.queue:
            self.is_saturated = True
            return Reply(
                "RESOURCE_EXHAUSTED",
                sentence=f"{self.queue} requests wait already; send this one again later.",
                reason="too_many_waiting",
            )
        one = _Waiting(call, _now())
        self._waiting.append(one)
        self._send()
        try:
            return await asyncio.wait_for(one.reply, SECONDS_PER_REQUEST)
        except asyncio.TimeoutError:  # the built-in one only from Python 3.11 on
            return Reply("DEADLINE_EXCEEDED", sentence="The request took too long.", reason="too_slow")

    async def settled(self, served: Mapping[str, Served] | None = None) -> None:
        """Wait until nothing is out that was sent while `served` was served; None: nothing at all, and none waits."""
        while True:
            if tasks := [task for task, then in self._sent.items() if served is None or then == served]:
                await asyncio.wait(tasks)
            elif served is None and self._waiting:
                await asyncio.sleep(0.01)
            else:
                return

    # ---------------------------------------------------------------------- batches

    def _send(self):
        """Send the batches that are due; where one is due later, look again then."""
        while self._waiting:
            patience = self._patience()
            if patience is None:
                return
            left = self._waiting[0].since + patience - _now()
            if left > 0:
                if self._later is not None:
                    self._later.cancel()
                self._later = asyncio.get_running_loop().call_later(left, self._send)
                return
            batch = self._next_batch()
            if batch:
                self._batches.add(self._start(batch, self.served))

    def _patience(self):
        """Seconds for which the request that waits longest may wait for others; None where no replica has room."""
        running = max(self.replicas.running, 1)  # while one starts again, Ray keeps its first batch for it
        if len(self._batches) >= BATCHES_PER_REPLICA * running:
            return None
        computes = len(self._batches) >= running
        if len(self._waiting) >= (self.batch if computes else min(self.batch, self._last)):
            return 0.0
        if computes:
            return self._seconds / 2
        # The clients of the last batch have their answers and may be about to ask again.
        return self._seconds / 10 if self._last > 1 else 0.0

    def _next_batch(self):
        """The requests that wait longest, without those whose client has left."""
        batch = []
        while self._waiting and len(batch) < self.batch:
            one = self._waiting.popleft()
            if not one.reply.done():
                batch.append(one)
        if len(self._waiting) <= self.queue // 2:
            self.is_saturated = False
        return batch

    def _start(self, batch, served, may_be_slow=False):
        task = asyncio.get_running_loop().create_task(self._exchange(batch, served, may_be_slow))
        self._sent[task] = served
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task):
        del self._sent[task]
        self._batches.discard(task)
        if not task.cancelled():
            self._send()

    async def _exchange(self, batch, served, may_be_slow):
        """Have a replica answer a batch. A request whose images are slow to decode is sent once more, alone."""
        start = _now()
        for one in batch:
            one.tries += 1
        try:
            replies, seconds = await self.replicas.answer(served, [one.call for one in batch], may_be_slow)
        except ReplicaLost as error:
            log.warning("A replica is lost (%s); %d requests are sent again.", error, len(batch))
            await asyncio.sleep(SECONDS_BEFORE_AGAIN)
            return self._send_again(batch)
        except Exception:
            log.exception("A batch of %d requests failed.", len(batch))
            failed = Reply("INTERNAL", sentence="The server failed; its log says why.", reason="failed")
            replies, seconds = [failed] * len(batch), None
        for one, reply in zip(batch, replies, strict=True):
            if reply is None:
                self._start([one], served, may_be_slow=True)
            else:
                one.settle(reply)
        images = sum(reply.images for reply in replies if reply)
        if images and not may_be_slow:
            self._seconds, self._last = 0.8 * self._seconds + 0.2 * seconds.model, len(batch)
        if images:
            self.monitoring.batch(len(batch), images, [start - one.since for one in batch], seconds)

    def _send_again(self, batch):
        """Put the requests of a batch back to the front of the queue; those that were sent too often are given up."""
        for one in reversed(batch):
            if one.tries < TRIES:
                self._waiting.appendleft(one)
                self.monitoring.sent_again.inc()
            else:
                one.settle(Reply("UNAVAILABLE", sentence="The model's process ended; send again.", reason="no_replica"))


def _now():
    return asyncio.get_running_loop().time()
