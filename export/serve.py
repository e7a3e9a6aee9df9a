"""Serve a folder of exported models without containers: python -m export.serve models

Speaks TF Serving's gRPC PredictionService and ModelService, and its REST interface, on Ray Serve: clients of TF Serving
work as they are. Requests that wait at the same time are answered in one batch.
"""

import argparse
import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path

from export import private_ray, ray_proxy
from export.deployment import POLL_SECONDS, served_models
from export.limits import BATCH, REQUEST_BYTES, SECONDS_PER_REQUEST, WAITING, Limits
from export.names import check_folder
from tf_reid.command_line import program, run_command
from tf_reid.config import ConfigError
from tf_reid.web.guard import Rules, names
from tf_reid.web.loopback import bracketed, check_free, check_token, is_loopback
from tfds_builders.listing import shown

SERVICERS = [
    "tensorflow_serving.apis.prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server",
    "tensorflow_serving.apis.model_service_pb2_grpc.add_ModelServiceServicer_to_server",
]
APPLICATION = "tf_reid"


def arguments(argv=None) -> argparse.Namespace:
    limits = Limits()
    parser = argparse.ArgumentParser(
        prog=program("export.serve"),
        description="Serve exported models.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="the folder of exported models (--to of python -m export)")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on; 0.0.0.0 lets others in")
    parser.add_argument("--grpc-port", type=_port, default=8500, help="port of gRPC")
    parser.add_argument("--rest-port", type=_port, default=8501, help="port of REST")
    parser.add_argument("--token", help="what clients have to send as Authorization: Bearer TOKEN, or TF_REID_TOKEN")
    parser.add_argument(
        "--allowed-host",
        nargs="+",
        default=[],
        metavar="NAME",
        help="host names that REST answers to (on loopback: besides localhost and the address)",
    )
    parser.add_argument("--max-image-bytes", type=_count, default=limits.image_bytes, help="bytes of an encoded image")
    parser.add_argument("--max-pixels", type=_count, default=limits.pixels, help="pixels of an image")
    parser.add_argument("--max-images", type=_count, default=limits.images, help="images in a request")
    parser.add_argument("--max-request-bytes", type=_count, default=REQUEST_BYTES, help="bytes of a request")
    parser.add_argument(
        "--queue", type=_count, default=WAITING, help="requests that may wait; more are refused as too many"
    )
    parser.add_argument("--batch", type=_count, default=BATCH, help="requests that are answered in one batch, at most")
    parser.add_argument(
        "--poll-seconds", type=_seconds, default=POLL_SECONDS, help="how often models.config is read for new labels"
    )
    args = parser.parse_args(argv)
    args.token = args.token or os.environ.get("TF_REID_TOKEN") or None  # no default of its option: --help prints those
    return args


def _number(read: Callable[[str], float], least: float, most: float) -> Callable[[str], float]:
    """What reads an option's number between two bounds."""

    def number(text):
        value = read(text)
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text} is not between {least} and {most}")
        return value

    return number


_port, _count, _seconds = _number(int, 1, 65535), _number(int, 1, 2**31 - 1), _number(float, 0.01, 86400.0)


def main(argv=None) -> None:
    args = arguments(argv)
    # These errors are reported here; later they would end in the log of a replica.
    address = address_of(args.host)
    check_token(address, args.token, "the models")
    check_folder(args.folder, "The folder of models")
    served_models(args.folder)
    if args.grpc_port == args.rest_port:
        raise ConfigError(f"gRPC and REST cannot both use port {args.rest_port}; choose another --rest-port.")
    check_free(address, args.grpc_port, "--grpc-port")
    check_free(address, args.rest_port, "--rest-port")
    place = bracketed(address)
    stopped = threading.Event()
    with private_ray.folder() as folder:
        try:
            start(args, address, folder)
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda *_: stopped.set())
            print(
                f"Serving {shown(args.folder)}: gRPC on {place}:{args.grpc_port}, "
                f"REST on http://{place}:{args.rest_port}/v1/models/NAME. Ctrl-C stops.",
                flush=True,
            )
            stopped.wait()
        finally:
            stop()


def address_of(host: str) -> str:
    """The address of this machine that a name or address means, an IPv4 one where there are both.

    Raises:
        ConfigError: it means none.
    """
    try:
        found = socket.getaddrinfo(host.strip("[]") or "-", None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise ConfigError(f"--host {host!r} is neither an address nor the name of one; give one.") from None
    for family, kind, protocol, _, address in sorted(found, key=lambda one: one[0]):
        with socket.socket(family, kind, protocol) as probe:
            try:
                probe.bind(address)
            except OSError:
                continue
            return address[0]
    raise ConfigError(
        f"--host {host} is not an address of this machine; 127.0.0.1 serves this machine alone, 0.0.0.0 all others too."
    )


def start(args: argparse.Namespace, address: str, folder: Path) -> None:
    """Start Ray, its proxies and the models; returns once requests are answered.

    Args:
        address: that the proxies listen on.
        folder: of Ray's own, as `private_ray.folder` gives it.
    """
    verbose = os.environ.get("TF_REID_VERBOSE", "0") != "0"
    private_ray.set_environment(folder)
    os.environ |= ray_proxy.environment(address, rules(args, address))
    # Imported only now, for Ray reads these variables when it is imported.
    import ray
    from ray import serve

    from export.ray_server import deployment

    ray.init(
        address="local",
        include_dashboard=False,
        _temp_dir=private_ray.temporary(folder),
        log_to_driver=verbose,
        logging_level=logging.INFO if verbose else logging.ERROR,
    )
    if not verbose:
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
    serve.start(
        proxy_location="HeadOnly",
        http_options={"host": address, "port": args.rest_port, "request_timeout_s": SECONDS_PER_REQUEST},
        grpc_options={
            "port": args.grpc_port,
            "grpc_servicer_functions": SERVICERS,
            "request_timeout_s": SECONDS_PER_REQUEST,
        },
        logging_config={"log_level": "WARNING", "enable_access_log": False},
    )
    application = deployment(args.batch, args.queue).bind(
        str(args.folder.resolve()),
        tuple(Limits(args.max_image_bytes, args.max_pixels, 2 * args.max_pixels, args.max_images)),
        batch=args.batch,
        # Beside the address that the proxy listens on, the server refuses clients by where they come from.
        local_only=is_loopback(address),
        token=args.token,
        poll_seconds=args.poll_seconds,
    )
    try:
        serve.run(application, name=APPLICATION, route_prefix="/")
    except RuntimeError as error:
        raise RuntimeError(f"{args.folder} cannot be served: {_reason(serve.status()) or error}") from error


def rules(args: argparse.Namespace, address: str) -> Rules:
    """What REST lets in, where it listens on `address`, which --host means."""
    allowed = [args.host, *args.allowed_host] if is_loopback(address) else args.allowed_host
    return Rules(names(address, allowed), args.token, args.max_request_bytes)


def _reason(status):
    """The last line of the traceback with which the replica failed to start, which Ray keeps; "" where it has none."""
    messages = [deployment.message.strip() for deployment in status.applications[APPLICATION].deployments.values()]
    return "\n".join(messages).rpartition("\n")[2].strip()


def stop() -> None:
    """End requests that are being answered, then Ray."""
    import ray
    from ray import serve

    if ray.is_initialized():
        try:
            # Where the start failed, there may be nothing to delete; that failure is the one to report.
            with contextlib.suppress(Exception):
                serve.delete(APPLICATION)
        finally:
            ray.shutdown()


if __name__ == "__main__":
    run_command(main)
