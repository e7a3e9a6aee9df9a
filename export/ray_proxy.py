"""What Ray's proxy is given, so that its two ports stand firm: the guard of REST, bounded connections, one address.

Ray starts its proxy in a process of its own. It calls `prepare` there, before the servers start, because the variable
`RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH` names it.
"""

import contextlib
import ctypes
import json
import os

import grpc
import uvicorn.config
from google.protobuf.message import DecodeError
from starlette.middleware import Middleware

from tf_reid.web.bodies import Budget, Refused
from tf_reid.web.guard import Guard, Rules
from tf_reid.web.loopback import bracketed

M_MMAP_THRESHOLD = -3  # of malloc.h
SETTINGS = "TF_REID_SERVE_PROXY"
UNREADABLE = object()  # a message that is no protocol buffer
GRPC_OPTIONS = [
    ("grpc.max_concurrent_streams", 128),  # requests at once on one connection
    # A client that is gone is noticed; one that sends half a message and no more is let go with its connection.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.max_connection_age_ms", 600_000),
    ("grpc.max_connection_age_grace_ms", 60_000),
]


def environment(host: str, rules: Rules) -> dict[str, str]:
    """The variables by which Ray's proxy calls `prepare` with these settings."""
    settings = {"host": host, "rules": rules._asdict()}
    return {
        "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": f"{__name__}:prepare",
        "RAY_SERVE_GRPC_MAX_MESSAGE_SIZE": str(rules.most_bytes),
        # Ray gives a proxy 5 seconds to start and then kills it; on a machine that is busy it takes longer.
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
        SETTINGS: json.dumps(settings),
    }


def prepare() -> list[Middleware]:
    """Prepare this process, which is Ray's proxy; returns what its HTTP server is wrapped in."""
    settings = json.loads(os.environ[SETTINGS])
    rules = Rules(**settings["rules"])
    # Ray has no option for uvicorn's kind of connection and takes the one that is called "auto".
    uvicorn.config.HTTP_PROTOCOLS["auto"] = "tf_reid.web.connections:Connection"
    _prepare_grpc(settings["host"], rules)
    _give_memory_back()
    return [Middleware(Guard, rules=rules)]


def _give_memory_back():
    """Have freed bodies of requests go back to the system at once.

    glibc keeps blocks of up to 32 MiB for the next ones, unless a lower bound is set.
    """
    with contextlib.suppress(OSError, AttributeError):  # not on this system
        ctypes.CDLL("libc.so.6").mallopt(M_MMAP_THRESHOLD, 2**18)


def _prepare_grpc(host, rules):
    """Have gRPC listen on one address and bound what it holds. Ray has no option for either: its functions change.

    A release of Ray without these functions serves all the same; the server behind it checks addresses once more.
    """
    from ray.serve._private import default_impl, grpc_util, proxy

    def add_grpc_address(server, address):
        server.add_insecure_port(f"{bracketed(host)}:{address.rpartition(':')[2]}")

    default_impl.add_grpc_address = add_grpc_address
    if hasattr(grpc_util, "DEFAULT_GRPC_SERVER_OPTIONS"):
        grpc_util.DEFAULT_GRPC_SERVER_OPTIONS.extend(GRPC_OPTIONS)
    if hasattr(grpc_util.gRPCGenericServer, "_override_method_handler"):
        override = grpc_util.gRPCGenericServer._override_method_handler
        grpc_util.gRPCGenericServer._override_method_handler = _forgiving(override)
    if hasattr(proxy, "gRPCProxy") and hasattr(proxy.gRPCProxy, "service_handler_factory"):
        proxy.gRPCProxy.service_handler_factory = _bounded(proxy.gRPCProxy.service_handler_factory, rules)


def _forgiving(override):
    """Ray's maker of methods, which hand over `UNREADABLE` for a message that is no protocol buffer.

    gRPC itself answers UNKNOWN, as if the server had failed.
    """

    def make(self, service_method, method_handler):
        parse = method_handler.request_deserializer

        def parsed(message):
            try:
                return parse(message)
            except DecodeError:
                return UNREADABLE

        return override(self, service_method, method_handler._replace(request_deserializer=parsed))

    return make


def _bounded(factory, rules):
    """Ray's maker of handlers, whose large messages are given to the server as `Guard` gives large bodies."""
    held, given = Budget(max(rules.held_bytes, rules.most_bytes)), Budget(rules.most_bytes)

    def make(self, service_method, streaming_type):
        handler = factory(self, service_method=service_method, streaming_type=streaming_type)
        if streaming_type.name != "UNARY_UNARY":
            return handler

        async def bounded(request, context):
            if request is UNREADABLE:
                context.set_code(grpc.StatusCode.INVALID_ARGUMENT)
                context.set_details("The message is not a request of this method: its bytes cannot be parsed.")
                return b""
            size = request.ByteSize()
            if size <= rules.small_bytes:
                return await handler(request, context)
            try:
                async with held.holding(size, 0), given.holding(size, 3 * rules.seconds):
                    return await handler(request, context)
            except Refused as error:
                context.set_code(grpc.StatusCode.RESOURCE_EXHAUSTED)
                context.set_details(error.message)
                return b""

        return bounded

    return make
