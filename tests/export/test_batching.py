import asyncio
import threading

import pytest

from export.batching import Batcher


class Slow:
    """Answers each request with its double, once it is let; remembers its batches."""

    def __init__(self):
        self.batches, self.let = [], threading.Event()

    def __call__(self, requests):
        self.batches.append(list(requests))
        assert self.let.wait(10)
        if "bad" in requests:
            raise ValueError("bad")
        return [2 * request for request in requests]


async def begun(batcher, requests):
    """Tasks of the first request, which is being computed, and of the others, which wait."""
    tasks = [asyncio.create_task(batcher(requests[0]))]
    while not batcher.answer.batches:
        await asyncio.sleep(0.01)
    tasks += [asyncio.create_task(batcher(request)) for request in requests[1:]]
    await asyncio.sleep(0)
    return tasks


def test_what_waits_while_the_model_works_x():
    async def run():
        batcher = Batcher(Slow(), most=3)
        tasks = await begun(batcher, [1, 2, 3, 4, 5])
        batcher.answer.let.set()
        return await asyncio.gather(*tasks), batcher.answer.batches

    answers, batches = asyncio.run(run())
    assert answers == [2, 4, 6, 8, 10] and batches == [[1], [2, 3, 4], [5]]


def test_a_failure_reaches_all_of_its_batch_and_no_later_request():
    async def run():
        batcher = Batcher(Slow(), most=2)
        tasks = await begun(batcher, [1, 2, "bad", 3])
        batcher.answer.let.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    first, second, bad, last = asyncio.run(run())
    assert first == 2 and last == 6
    assert isinstance(second, ValueError) and isinstance(bad, ValueError)


def test_a_request_whose_client_left_is_not_computed_and_the_others_are():
    async def run():
        batcher = Batcher(Slow(), most=4)
        tasks = await begun(batcher, [1, 2, 3])
        tasks[0].cancel(), tasks[1].cancel()
        with pytest.raises(asyncio.CancelledError):
            await tasks[1]
        batcher.answer.let.set()
        return await tasks[2], batcher.answer.batches

    assert asyncio.run(run()) == (6, [[1], [3]])
