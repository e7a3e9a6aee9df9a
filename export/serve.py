"""Serve a folder of exported models without containers: python -m export.serve models

Speaks TF Serving's gRPC PredictionService and ModelService, and its REST interface: clients of TF Serving work as they
are. The models lie in replicas of Ray Serve, on this machine or on a cluster; requests that wait are joined on each.
"""

import argparse
import asyncio
import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from export import cluster
from export.cluster import LOCAL, Wanted
from export.deployment import POLL_SECONDS, served_models
from export.limits import BATCH, REQUEST_BYTES, WAITING, Limits
from export.names import check_folder
from tf_reid.command_line import gpus, program, run_command
from tf_reid.config import ConfigError
from tf_reid.encoders import private_ray, ray_session
from tf_reid.web.guard import Rules, names
from tf_reid.web.loopback import bracketed, check_free, check_token, is_loopback
from tfds_builders.listing import shown


class _HelpWithDefaults(argparse.ArgumentDefaultsHelpFormatter):
    """Options without a default, and switches, have none in their help."""

    def _get_help_string(self, action):
        return super()._get_help_string(action) if action.default else action.help


def arguments(argv=None) -> argparse.Namespace:
    limits = Limits()
    parser = argparse.ArgumentParser(
        prog=program("export.serve"),
        description="Serve exported models.",
        formatter_class=_HelpWithDefaults,
    )
    parser.add_argument("folder", type=Path, help="the folder of exported models (--to of python -m export)")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on; 0.0.0.0 lets others in")
    parser.add_argument("--grpc-port", type=_port, default=8500, help="port of gRPC")
    parser.add_argument("--rest-port", type=_port, default=8501, help="port of REST")
    parser.add_argument(
        "--token", help="clients have to send Authorization: Bearer TOKEN (default: the variable TF_REID_TOKEN)"
    )
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
        "--queue", type=_count, default=WAITING, help="requests that may wait, for all replicas; more are refused"
    )
    parser.add_argument("--batch", type=_count, default=BATCH, help="requests that are answered in one batch, at most")
    parser.add_argument(
        "--poll-seconds",
        type=_seconds,
        default=POLL_SECONDS,
        help="how often models.config is read for new labels; SIGHUP has it read at once",
    )
    parser.add_argument(
        "--replicas", type=_replicas, default=1, metavar="N", help="processes with the models, or auto: by the load"
    )
    parser.add_argument(
        "--gpus-per-replica", type=gpus, default=0.0, metavar="F", help="GPUs of each replica, such as 1 or 0.5"
    )
    parser.add_argument(
        "--ray",
        default=LOCAL,
        metavar="ADDRESS",
        help="the Ray cluster that carries the replicas, HOST:PORT or auto; local starts one for this server",
    )
    parser.add_argument("--access-log", metavar="FILE", help="write a line in JSON for each request; - is stderr")
    parser.add_argument("--log-addresses", action="store_true", help="name clients' addresses in the access log")
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


def _replicas(text):
    return None if text == "auto" else _number(int, 1, 1000)(text)


def main(argv=None) -> None:
    args = arguments(argv)
    # These errors are reported here; later they would end in the log of a replica.
    address = address_of(args.host)
    check_token(address, args.token, "the models")
    check_folder(args.folder, "The folder of models")
    served_models(args.folder)
    check_access_log(args.access_log)
    ray_session.check_cluster(args.ray)
    if args.grpc_port == args.rest_port:
        raise ConfigError(f"gRPC and REST cannot both use port {args.rest_port}; choose another --rest-port.")
    check_free(address, args.grpc_port, "--grpc-port")
    check_free(address, args.rest_port, "--rest-port")
    place = bracketed(address)
    wanted = wanted_replicas(args)
    stopped = threading.Event()
    with private_ray.folder() if args.ray == LOCAL else contextlib.nullcontext() as folder:
        try:
            replicas = cluster.start(wanted, folder)
            with running(args, address, replicas) as reread:
                for number in (signal.SIGINT, signal.SIGTERM):
                    signal.signal(number, lambda *_: stopped.set())
                signal.signal(signal.SIGHUP, lambda *_: reread())
                print(
                    f"Serving {shown(args.folder)}: gRPC on {place}:{args.grpc_port}, "
                    f"REST on http://{place}:{args.rest_port}/v1/models/NAME. Ctrl-C stops.",
                    flush=True,
                )
                stopped.wait()
        finally:
            cluster.stop(wanted)


def check_access_log(name: str | None) -> None:
    """Raise a ConfigError where --access-log names a file that cannot be written; makes the file."""
    if name in (None, "-"):
        return
    try:
        with open(name, "a"):
            pass
    except OSError as error:
        raise ConfigError(f"--access-log {name}: the file cannot be written: {error.strerror}.") from None


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


def wanted_replicas(args: argparse.Namespace) -> Wanted:
    # On a cluster several servers have applications side by side.
    name = "tf_reid" if args.ray == LOCAL else f"tf_reid_{socket.gethostname()}_{args.grpc_port}"
    limits = Limits(args.max_image_bytes, args.max_pixels, 2 * args.max_pixels, args.max_images)
    return Wanted(args.ray, name, args.replicas, args.gpus_per_replica, args.folder, limits, args.batch)


@contextlib.contextmanager
def running(args: argparse.Namespace, address: str, replicas: cluster.RayReplicas) -> Iterator[Callable[[], None]]:
    """Inside, requests are answered; yields what has models.config read at once. At the end, what waits is answered."""
    from export.ports import Ports

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def done(coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result()

    try:
        ports = done(Ports.opened(args, address, rules(args, address), replicas))
        try:
            yield lambda: loop.call_soon_threadsafe(ports.reread.set)
        finally:
            done(ports.close())
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


def rules(args: argparse.Namespace, address: str) -> Rules:
    """What REST lets in, where it listens on `address`, which --host means."""
    allowed = [args.host, *args.allowed_host] if is_loopback(address) else args.allowed_host
    return Rules(names(address, allowed), args.token, args.max_request_bytes)


if __name__ == "__main__":
    run_command(main)
