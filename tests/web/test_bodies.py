"""Bodies have a deadline and a bound, and large ones share a budget."""

import anyio
import pytest

from tf_reid.web import bodies
from tf_reid.web.bodies import Budget, ClientLeft, Refused


def sends(*parts, every=0.0, ends=True):
    """ASGI's `receive` of a client that sends these parts, and then the end or nothing more."""
    messages = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    messages += [{"type": "http.request", "body": b"", "more_body": False}] if ends else []

    async def receive():
        await anyio.sleep(every if messages else 60)
        return messages.pop(0)

    return receive


def read(receive, most_bytes=100, seconds=0.2, bytes_per_second=100):
    body = bodies.Body(receive, most_bytes, bytes_per_second)
    anyio.run(body.read, seconds)
    assert body.is_whole
    return bytes(body.content)


def test_a_body_is_read_whole():
    assert read(sends(b"a" * 60, b"b" * 40)) == b"a" * 60 + b"b" * 40


def test_one_that_is_too_large_is_not_read_further():
    with pytest.raises(Refused, match="larger than 100 bytes") as error:
        read(sends(b"a" * 101, ends=False))
    assert error.value.status == 413


@pytest.mark.parametrize(("parts", "every"), [((b"a",), 0.0), ((b"a",) * 90, 0.05)])
def test_one_that_stalls_or_trickles_is_refused(parts, every):
    with pytest.raises(Refused, match="came too slowly") as error:
        read(sends(*parts, every=every, ends=False))
    assert error.value.status == 408


def test_one_that_keeps_its_rate_has_all_the_time_it_needs():
    assert len(read(sends(*[b"a" * 10] * 10, every=0.06))) == 100  # 0.6 seconds


def test_a_client_that_leaves():
    async def receive():
        return {"type": "http.disconnect"}

    with pytest.raises(ClientLeft):
        read(receive)


def test_a_budget_is_never_exceeded_and_the_first_to_come_is_the_first():
    async def run():
        budget, held, most, order = Budget(10), 0, 0, []

        async def use(number, count):
            nonlocal held, most
            await anyio.sleep(number / 100)
            async with budget.holding(count):
                order.append(number)
                held += min(count, 10)
                most = max(most, held)
                await anyio.sleep(0.1)
                held -= min(count, 10)

        async with anyio.create_task_group() as group:
            for number, count in enumerate((6, 99, 1, 4, 5)):
                group.start_soon(use, number, count)
        return most, order, budget._left

    assert anyio.run(run) == (10, [0, 1, 2, 3, 4], 10)


def test_who_waits_too_long_or_is_cancelled_leaves_the_budget_as_it_was():
    async def run():
        budget = Budget(10)

        async def wait():
            async with budget.holding(10):
                pytest.fail("there is none left")

        async with budget.holding(4):
            with pytest.raises(Refused, match="busy") as error:
                async with budget.holding(7, seconds=0.01):
                    pass
            assert error.value.status == 503
            async with anyio.create_task_group() as group:
                group.start_soon(wait)
                await anyio.sleep(0.01)
                group.cancel_scope.cancel()
            async with budget.holding(6):
                pass
        return budget._left, list(budget._waiting)

    assert anyio.run(run) == (10, [])
