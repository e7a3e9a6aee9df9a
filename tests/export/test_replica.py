"""Which models a replica keeps while versions come and go."""

import asyncio
from types import SimpleNamespace

from export.replica import Replica

FIRST, SECOND = {"reid": 1}, {"reid": 2}  # what is served


def test_a_model_that_is_loaded_while_others_are_forgotten_is_kept(monkeypatch):
    """So it is where a request of the old version comes late: it has the old one loaded again."""
    replica = Replica.__new__(Replica)
    replica.models, replica.loading = [SimpleNamespace(served=SECOND)], asyncio.Lock()

    async def run():
        is_loading, may_end = asyncio.Event(), asyncio.Event()

        async def to_thread(load, served):
            is_loading.set()
            await may_end.wait()
            return load(served)

        monkeypatch.setattr(asyncio, "to_thread", to_thread)
        monkeypatch.setattr(replica, "_moved", lambda served: SimpleNamespace(served=served))
        preparing = asyncio.create_task(replica.prepare(FIRST))
        await is_loading.wait()
        await replica.release(SECOND)
        may_end.set()
        await preparing

    asyncio.run(run())
    assert [models.served for models in replica.models] == [SECOND, FIRST]
