"""The two ports of a server and all that runs behind them, in one event loop."""

import argparse
import asyncio
import contextlib
import socket
from typing import Any

import grpc
import uvicorn

from export import following
from export.cluster import RayReplicas
from export.deployment import served_models
from export.front import Front
from export.grpc_front import GrpcFront
from export.monitoring import Monitoring
from export.rest_front import RestFront
from tf_reid.web.connections import Connection
from tf_reid.web.guard import Rules
from tf_reid.web.loopback import is_loopback

SECONDS_TO_STOP = 30  # that requests which were accepted have


class Ports:
    """Open ports. `reread`: when set, models.config is read at once."""

    def __init__(self, front: Front, grpc_server: grpc.aio.Server, http_server: uvicorn.Server, tasks: list[Any]):
        self.front, self.grpc_server, self.http_server, self.tasks = front, grpc_server, http_server, tasks
        self.reread = asyncio.Event()

    @classmethod
    async def opened(cls, args: argparse.Namespace, address: str, rules: Rules, replicas: RayReplicas) -> "Ports":
        """Listen on both ports; returns once requests are answered.

        Raises:
            OSError, RuntimeError: a port cannot be used.
        """
        monitoring = Monitoring(args.access_log, args.log_addresses)
        served = served_models(args.folder)
        monitoring.served(served)
        front = Front(replicas, served, args.batch, args.queue, monitoring)
        grpc_server = await GrpcFront(front, rules, is_loopback(address)).start(address, args.grpc_port)
        http_server, listening = await _http(RestFront(front, rules), address, args.rest_port)
        ports = cls(front, grpc_server, http_server, [listening])
        following_config = following.follow(front, replicas, args.folder, args.poll_seconds, ports.reread)
        ports.tasks += [asyncio.create_task(replicas.watch()), asyncio.create_task(following_config)]
        return ports

    async def close(self) -> None:
        """Answer what was accepted, and refuse all else, so that no client waits in vain."""
        self.front.is_stopping = True
        listening, *others = self.tasks
        for task in others:
            task.cancel()
        await asyncio.wait(others, timeout=SECONDS_TO_STOP)
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self.front.settled(), SECONDS_TO_STOP)
        await self.grpc_server.stop(grace=1)
        self.http_server.should_exit = True
        await listening
        self.front.monitoring.close()


async def _http(app, address, port):
    """A server of HTTP that listens, and its task."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind((address, port))
    config = uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=5,
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve(sockets=[listening]))
    while not server.started and not task.done():
        await asyncio.sleep(0.01)
    if task.done():
        task.result()  # its error
    return server, task
