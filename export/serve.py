"""Serve a folder of exported models without containers: python -m export.serve models

Speaks TF Serving's gRPC PredictionService and ModelService, and its REST interface, on Ray Serve: clients of TF Serving
work as they are. Requests that wait at the same time are answered in one batch.
"""

import argparse
import logging
import os
import signal
import threading
from pathlib import Path

from export import ray_proxy
from export.deployment import POLL_SECONDS, served_models
from export.limits import Limits
from tf_reid.command_line import program, run_command
from tf_reid.web.guard import Rules, names
from tf_reid.web.loopback import check_free, check_token, is_loopback

SERVICERS = [
    "tensorflow_serving.apis.prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server",
    "tensorflow_serving.apis.model_service_pb2_grpc.add_ModelServiceServicer_to_server",
]
APPLICATION = "tf_reid"
SECONDS_PER_REQUEST = 60


def arguments(argv=None) -> argparse.Namespace:
    limits = Limits()
    parser = argparse.ArgumentParser(
        prog=program("export.serve"),
        description="Serve exported models.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="the folder of exported models (--to of python -m export)")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on; 0.0.0.0 lets others in")
    parser.add_argument("--grpc-port", type=int, default=8500, help="port of gRPC")
    parser.add_argument("--rest-port", type=int, default=8501, help="port of REST")
    parser.add_argument("--token", help="what clients have to send as Authorization: Bearer TOKEN, or TF_REID_TOKEN")
    parser.add_argument(
        "--allowed-host",
        nargs="+",
        default=[],
        metavar="NAME",
        help="names by which REST may be asked for; on loopback, further ones",
    )
    parser.add_argument("--max-image-bytes", type=int, default=limits.image_bytes, help="bytes of an encoded image")
    parser.add_argument("--max-pixels", type=int, default=limits.pixels, help="pixels of an image")
    parser.add_argument("--max-images", type=int, default=limits.images, help="images in a request")
    parser.add_argument("--max-request-bytes", type=int, default=32 * 2**20, help="bytes of a request")
    parser.add_argument("--queue", type=int, default=256, help="requests that may wait; more are refused as too many")
    parser.add_argument("--batch", type=int, default=16, help="requests that are answered in one batch, at most")
    parser.add_argument(
        "--poll-seconds", type=float, default=POLL_SECONDS, help="how often models.config is read for new labels"
    )
    args = parser.parse_args(argv)
    args.token = args.token or os.environ.get("TF_REID_TOKEN") or None  # no default of its option: --help prints those
    return args


def main(argv=None) -> None:
    args = arguments(argv)
    check_token(args.host, args.token, "the models")
    # These errors are reported here; later they would end in the log of a replica.
    served_models(args.folder)
    check_free(args.host, args.grpc_port, "--grpc-port")
    check_free(args.host, args.rest_port, "--rest-port")
    stopped = threading.Event()
    try:
        start(args)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stopped.set())
        print(
            f"Serving {args.folder}: gRPC on {args.host}:{args.grpc_port}, "
            f"REST on http://{args.host}:{args.rest_port}/v1/models/NAME. Ctrl-C stops.",
            flush=True,
        )
        stopped.wait()
    finally:
        stop()


def start(args: argparse.Namespace) -> None:
    """Start Ray, its proxies and the models; returns once requests are answered."""
    verbose = os.environ.get("TF_REID_VERBOSE", "0") != "0"
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ |= ray_proxy.environment(args.host, rules(args))
    # Imported only now, for Ray reads these variables when it is imported.
    import ray
    from ray import serve

    from export.ray_server import deployment

    ray.init(
        address="local",
        include_dashboard=False,
        log_to_driver=verbose,
        logging_level=logging.INFO if verbose else logging.ERROR,
    )
    if not verbose:
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
    serve.start(
        proxy_location="HeadOnly",
        http_options={"host": args.host, "port": args.rest_port, "request_timeout_s": SECONDS_PER_REQUEST},
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
        local_only=is_loopback(args.host),
        token=args.token,
        poll_seconds=args.poll_seconds,
    )
    try:
        serve.run(application, name=APPLICATION, route_prefix="/")
    except RuntimeError as error:
        raise RuntimeError(f"{args.folder} cannot be served: {_reason(serve.status()) or error}") from error


def rules(args: argparse.Namespace) -> Rules:
    """What REST lets in."""
    return Rules(names(args.host, args.allowed_host), args.token, args.max_request_bytes)


def _reason(status):
    """The last line of the traceback with which the replica failed to start, which Ray keeps; "" where it has none."""
    messages = [deployment.message.strip() for deployment in status.applications[APPLICATION].deployments.values()]
    return "\n".join(messages).rpartition("\n")[2].strip()


def stop() -> None:
    """End requests that are being answered, then Ray."""
    import ray
    from ray import serve

    if ray.is_initialized():
        serve.delete(APPLICATION)
        ray.shutdown()


if __name__ == "__main__":
    run_command(main)
