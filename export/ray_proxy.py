"""What Ray's proxy is given, so that its two ports stand firm: the guard of REST, bounded connections, one address.

Ray starts its proxy in a process of its own. It calls `prepare` there, before the servers start, because the variable
`RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH` names it.
"""

import json
import os

import uvicorn.config
from starlette.middleware import Middleware

from tf_reid.web.guard import Guard, Rules
from tf_reid.web.loopback import bracketed

SETTINGS = "TF_REID_SERVE_PROXY"
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
        SETTINGS: json.dumps(settings),
    }


def prepare() -> list[Middleware]:
    """Prepare this process, which is Ray's proxy; returns what its HTTP server is wrapped in."""
    settings = json.loads(os.environ[SETTINGS])
    # Ray has no option for uvicorn's kind of connection and takes the one that is called "auto".
    uvicorn.config.HTTP_PROTOCOLS["auto"] = "tf_reid.web.connections:Connection"
    _bind_grpc(settings["host"])
    return [Middleware(Guard, rules=Rules(**settings["rules"]))]


def _bind_grpc(host):
    """Have gRPC listen on one address. Ray has no option for that: it listens on all and has this function for it."""
    from ray.serve._private import default_impl, grpc_util

    def add_grpc_address(server, address):
        server.add_insecure_port(f"{bracketed(host)}:{address.rpartition(':')[2]}")

    default_impl.add_grpc_address = add_grpc_address
    grpc_util.DEFAULT_GRPC_SERVER_OPTIONS.extend(GRPC_OPTIONS)
