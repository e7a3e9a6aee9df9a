"""Requests that wait at the same time are answered in one batch."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any


class Batcher:
    """While one batch is computed, the next one gathers: no request waits for others, and many share the work.

    Ray Serve's own batching closes a batch when its time is over, whether or not the model is free; under load most of
    its batches held one request.

    Args:
        answer: requests -> as many answers; it runs in a thread.
        most: requests in a batch.
    """

    def __init__(self, answer: Callable[[Sequence[Any]], Sequence[Any]], most: int):
        self.answer, self.most = answer, most
        self._waiting: deque[tuple[Any, asyncio.Future]] = deque()
        self._worker: asyncio.Task | None = None

    async def __call__(self, request: Any) -> Any:
        """The answer to one request; raises what `answer` raised."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((request, future))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._answer_all())
        return await future

    async def _answer_all(self):
        while self._waiting:
            batch = self._next_batch()
            if not batch:
                continue
            requests, futures = zip(*batch, strict=True)
            try:
                answers = list(zip(futures, await asyncio.to_thread(self.answer, list(requests)), strict=True))
            except Exception as error:
                for future in futures:
                    if not future.cancelled():
                        future.set_exception(error)
                continue
            for future, answer in answers:
                if not future.cancelled():
                    future.set_result(answer)

    def _next_batch(self):
        """The requests that wait longest, without those whose client has left."""
        batch = []
        while self._waiting and len(batch) < self.most:
            request, future = self._waiting.popleft()
            if not future.cancelled():
                batch.append((request, future))
        return batch
