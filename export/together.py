"""Requests that wait at the same time, answered together."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence


class Together:
    """While one batch is computed the next one gathers: nobody waits for company, and a crowd shares the work.

    Ray Serve's own batching closes a batch when its time is over, whether or not the model is free; under load most of
    its batches held one request.

    Args:
        answer: requests -> as many answers; it runs in a thread. most: requests in a batch.
    """

    def __init__(self, answer: Callable[[Sequence], Sequence], most: int):
        self.answer, self.most = answer, most
        self._waiting, self._work = deque(), None

    async def __call__(self, request):
        """The answer to one request; raises what `answer` raised."""
        promised = asyncio.get_running_loop().create_future()
        self._waiting.append((request, promised))
        if self._work is None or self._work.done():
            self._work = asyncio.create_task(self._answer_all())
        return await promised

    async def _answer_all(self):
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(self.most, len(self._waiting)))]
            batch = [(request, promised) for request, promised in batch if not promised.cancelled()]
            if not batch:
                continue
            try:
                answers = await asyncio.to_thread(self.answer, [request for request, _ in batch])
            except Exception as error:
                for _, promised in batch:
                    if not promised.cancelled():
                        promised.set_exception(error)
                continue
            for (_, promised), found in zip(batch, answers, strict=True):
                if not promised.cancelled():
                    promised.set_result(found)
