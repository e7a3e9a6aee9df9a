"""Malformed images, bodies, requests and tables sent to every surface of this software, while good requests go on.

python -m benchmarks.abuse [--inputs 10000] [--seed 0] [--surface api data search page rest grpc frames ...]

All of it is made here from the seed and stays on this machine: servers listen on 127.0.0.1 and on ports that are free.
An input is counted as
right    a sound one, answered rightly
read     a damaged one, of which enough is left to be answered
refused  by one sentence, or by closing a connection that is no HTTP
wrong    a sound one that is refused or read as another picture, a broken one that is answered
crash    a process dies, or an error is none of our own
hang     it takes more than 2 s
5xx      a server calls it its own fault; with gRPC: INTERNAL, UNKNOWN, UNAVAILABLE
The exit status is 1 where a surface has one of the last four, fails a good request or keeps too much memory.
"""

import argparse
import functools
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks.attack import material, runner, verdicts

SURFACES = {  # name -> its part of all inputs
    "api": 0.26,
    "data": 0.12,
    "search": 0.08,
    "page": 0.15,
    "rest": 0.2,
    "grpc": 0.15,
    "frames": 0.04,
}
CROWDS = {"slow-page": 100, "slow-rest": 100, "large-rest": 16}  # name -> inputs that come at once
ALL = [*SURFACES, *CROWDS]


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.abuse")
    parser.add_argument("--inputs", type=int, default=10_000, help="of all surfaces together (default: 10000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--surface", nargs="+", choices=ALL, default=ALL)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    args, began = arguments(argv), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tf-reid-abuse-") as folder:
        make_material(Path(folder))
        reports = []
        for report in attack_all(parts(args.surface, args.inputs), Path(folder), args.seed):
            reports.append(report)
            print(verdicts.table([report]), file=sys.stderr, flush=True)
    failures = [line for report in reports for line in report.failures()]
    print(f"\n{verdicts.table(reports)}\n")
    print(*failures or ["Every surface passes."], sep="\n")
    print(f"{time.monotonic() - began:.0f} s, {os.cpu_count()} cores, seed {args.seed}")
    return 1 if failures else 0


def make_material(place: Path) -> None:
    """In a process of its own, so that this one stays small."""
    log = place / "material.log"
    making = multiprocessing.get_context("spawn").Process(target=_make_material, args=(place, log))
    making.start()
    making.join()
    if making.exitcode:
        raise RuntimeError(f"The model, gallery and images could not be made: {log.read_text()[-2000:]}")


def _make_material(place, log):
    runner.redirect_output(log)
    material.make(place)


def parts(surfaces: Sequence[str], inputs: int) -> dict[str, int]:
    """How many of all inputs each surface gets; together as many as there are."""
    counts = {name: count for name, count in CROWDS.items() if name in surfaces}
    others = [name for name in SURFACES if name in surfaces]
    left, whole = max(inputs - sum(counts.values()), len(others)), sum(SURFACES[name] for name in others)
    counts |= {name: int(left * SURFACES[name] / whole) for name in others}
    if others:
        counts[others[0]] += left - sum(counts[name] for name in others)
    return counts


def attack_all(counts: dict[str, int], place: Path, seed: int) -> Iterator[verdicts.Report]:
    """Attack one surface after another; a server is started for those that it answers."""
    from benchmarks.attack import in_process, servers

    def attack(name, surface, *arguments, server=None):
        log, process = place / f"{name}.log", server.process if server else None
        tracebacks = server.tracebacks() if server else 0
        report = runner.attack(functools.partial(surface, *arguments), name, seed, counts[name], log, process)
        report.tracebacks = server.tracebacks() - tracebacks if server else 0
        return report

    own = {"api": in_process.Api, "data": in_process.Data, "search": in_process.Search}
    for name in [name for name in own if name in counts]:
        yield attack(name, own[name], place)
    if {"page", "slow-page"} & counts.keys():
        with servers.searching(place) as address:
            if "page" in counts:
                yield attack("page", servers.Page, address, server=address)
            if "slow-page" in counts:
                yield attack("slow-page", servers.Slow, address, servers.Page, server=address)
    of_ray = {
        "rest": (servers.Rest,),
        "grpc": (servers.Grpc,),
        "frames": (servers.Frames,),
        "large-rest": (servers.Large,),
        "slow-rest": (servers.Slow, servers.Rest),
    }
    if of_ray.keys() & counts.keys():
        with servers.serving(place) as address:
            for name in [name for name in of_ray if name in counts]:
                surface, *more = of_ray[name]
                yield attack(name, surface, address, *more, server=address)


if __name__ == "__main__":
    sys.exit(main())
