"""A new version goes live without a request lost: all replicas load it, then all requests get it, then the old goes."""

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from export.deployment import Served, served_models
from export.front import Front

log = logging.getLogger("tf_reid.serve")


class Movable(Protocol):
    """Replicas that load versions and forget them; see `replica.Replica`."""

    async def prepare(self, served: Mapping[str, Served]) -> None: ...

    async def release(self, served: Mapping[str, Served]) -> None: ...


async def follow(front: Front, replicas: Movable, folder: Path, seconds: float, now: asyncio.Event) -> None:
    """Serve what models.config names from now on, for ever.

    Args:
        seconds: how often it is read.
        now: when set, it is read at once.
    """
    while True:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(now.wait(), seconds)
        now.clear()
        try:
            await move(front, replicas, await asyncio.to_thread(served_models, folder))
        except Exception as error:  # whatever a broken or half-copied version raises: the next look may succeed
            log.warning("models.config is not followed: %s", error)


async def move(front: Front, replicas: Movable, served: Mapping[str, Served]) -> bool:
    """Serve these versions and labels. Returns whether anything has changed."""
    before = front.served
    if served == before:
        return False
    await replicas.prepare(served)
    front.served = served
    front.monitoring.served(served)
    await front.settled(before)
    await replicas.release(served)
    return True
