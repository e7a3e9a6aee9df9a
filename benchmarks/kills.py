"""Trainings that are stopped at random moments and resumed, beside ones that are not: equal, bit for bit?

python -m benchmarks.kills --kills 20 --terms 5 --corrupt 5 --seed 0 [--only METHOD ...] [--jobs 2]
python -m benchmarks.kills --workers 2 --kills 5 --seed 0 --only identity

The second command kills several workers of one run; see `benchmarks.worker_kills`.

Every method trains in a few tiny steps on drawn images, once undisturbed: this is its reference. Every other run is
stopped once, with SIGKILL or SIGTERM, between steps or while it writes, then resumed until it ends. Of some, a file of
the newest checkpoint is damaged in between. The final weights, all variables of the last checkpoint, the features,
metrics.json and the names of the files must be those of the reference. The moments are drawn from the seed; at least
one SIGKILL falls into each stage of each method. The status is 1 if a run differs or a stage was missed.

Do not change the code while it runs, since every training loads it anew.
"""

import argparse
import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from PIL import Image

from benchmarks.run_files import DAMAGES, differences, is_writing, reached
from tf_reid.command_line import run_command
from tf_reid.methods import METHODS
from tf_reid.runs import checkpoints

STEPS, EVERY = 8, 2  # of a stage, and between two checkpoints
SMALL = {  # what makes a method's networks tiny
    "cmgan": {"head_width": 8, "discriminator_widths": [8, 4]},
    "cogan": {"latent_width": 6, "width": 16},
    "crossgan": {"latent_width": 6, "encoder_width": 16, "width": 16, "generator_shared": 2, "search_steps": 2},
    "dgnet": {"width": 4, "scales": 2, "last_stride": 1, "warm_up": 0, "ramp": 1.0},
    "identity": {},
    "simpgan": {"generator_width": 4, "generator_blocks": 1, "discriminator_width": 4, "pool_size": 8},
    "strong": {},
    "view_adaptation": {"similarity_widths": [8, 4], "view_widths": [8]},
}
PATTERN = r"(?P<person>\d+)_(?P<camera>\d+)_(?P<modality>[a-z]+)"
SECOND_CAMERA = {"source": "rgb", "target": "rgb", "night": "infrared"}  # a folder of images -> its modality
SECONDS = 900  # that one training may take


@dataclasses.dataclass(frozen=True)
class Stop:
    """When a run is stopped, and how.

    Attributes:
        stage, step: the run is stopped as soon as a checkpoint of this step is there, or a later one; ...
        moment: ... some `seconds` later ("steps"), or in the next save of a checkpoint ("save") or of networks
            ("networks"). Or, whatever the step, as soon as the run's folder appears ("start").
        damage: what happens to the newest checkpoint before the run is resumed: one of DAMAGES, or nothing.
    """

    method: str
    stage: int
    step: int
    moment: str
    seconds: float
    by: signal.Signals = signal.SIGKILL
    damage: str = ""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a run that was stopped.

    Attributes:
        reached: the stage and step of the newest checkpoint when the run was stopped; None: there was none.
        differences: what is not as in the reference, in words.
    """

    stop: Stop
    reached: tuple[int, int] | None
    while_writing: bool
    resumed_from: str
    differences: list[str]


def main() -> None:
    args = arguments()
    if args.workers > 1:
        from benchmarks import worker_kills

        sys.exit(worker_kills.run(args))
    stops = list(plan(args.only or list(METHODS), args.kills, args.terms, args.corrupt, args.seed))
    folder = args.runs or Path(tempfile.mkdtemp(prefix="tf_reid_kills_"))
    if folder.exists() and any(folder.iterdir()):
        sys.exit(f"{folder} is not empty: choose another folder, since every run has to begin anew.")
    print(f"{len(stops)} runs are stopped; their folder is {folder}.", flush=True)
    draw_images(folder / "images")
    start = time.monotonic()
    with ThreadPoolExecutor(args.jobs) as pool:
        for method in pool.map(lambda method: reference(folder, method), {stop.method: None for stop in stops}):
            print(f"{time.monotonic() - start:5.0f} s: {method} was trained undisturbed.", flush=True)
        print(line("method", "stopped after", "by", "damage", "resumed from", "result"), flush=True)
        outcomes = []
        for outcome in pool.map(lambda numbered: stopped(folder, *numbered), enumerate(stops)):
            outcomes.append(outcome)
            print(row(outcome), flush=True)
    problems = summary(outcomes, time.monotonic() - start)
    if not problems and not args.runs:
        shutil.rmtree(folder)
    sys.exit(1 if problems else 0)


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.kills", description="Stop trainings, resume them, and compare them with others."
    )
    parser.add_argument("--kills", type=int, default=20, help="by SIGKILL (at least one in each stage is made)")
    parser.add_argument("--terms", type=int, default=5, help="by SIGTERM")
    parser.add_argument("--corrupt", type=int, default=5, help="by SIGKILL, whose newest checkpoint is then damaged")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=METHODS, metavar="METHOD", help="these methods alone")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs at a time (default: one a core)")
    parser.add_argument("--workers", type=int, default=1, help="of each run, which are killed and started one by one")
    parser.add_argument("--apart", type=float, default=20.0, help="seconds, at most, until a worker is started again")
    parser.add_argument(
        "--runs",
        type=Path,
        help="an empty folder for the runs, which are then kept; of several workers also one whose reference is used",
    )
    return parser.parse_args(argv)


# --------------------------------------------------------------------- what is done


def plan(methods: Sequence[str], kills: int, terms: int, corrupt: int, seed: int) -> Iterator[Stop]:
    """The stops, drawn from the seed: first a SIGKILL in each stage, then as many more as are wanted."""
    rng = np.random.default_rng(seed)
    stages = [(method, stage) for method in methods for stage in range(len(METHODS[method].STAGES))]

    def steps(least: int = 0) -> dict:
        return {"step": int(rng.integers(least, STEPS // EVERY - 1) * EVERY), "seconds": float(rng.uniform(0, 0.2))}

    for number, (method, stage) in enumerate(stages):
        yield Stop(method, stage, moment=("steps", "save")[number % 2], **steps())
    for number in range(max(0, kills - len(stages))):
        method, stage = stages[rng.integers(len(stages))]
        moment = ("start", "networks", "save", "steps")[number % 4]
        yield Stop(method, stage, moment=moment, **steps())
    for _ in range(terms):
        method, stage = stages[rng.integers(len(stages))]
        yield Stop(method, stage, moment="steps", by=signal.SIGTERM, **steps(least=1))
    for number in range(corrupt):
        method, stage = stages[rng.integers(len(stages))]
        damage = list(DAMAGES)[number % len(DAMAGES)]
        yield Stop(method, stage, moment="steps", damage=damage, **steps(least=0 if stage else 2))  # two are there


def draw_images(folder: Path) -> None:
    """Three data sets of twelve identities: coloured blocks and as much noise, four images by each of two cameras."""
    for number, (name, second) in enumerate(SECOND_CAMERA.items()):
        (folder / name).mkdir(parents=True)
        rng = np.random.default_rng(number)
        for identity in range(1, 13):
            blocks = rng.integers(-60, 60, size=(4, 2, 3))
            for camera, modality in ((1, "rgb"), (2, second)):
                for shot in range(4):
                    pixels = (128 + blocks + rng.integers(-60, 60, blocks.shape)).astype(np.uint8)
                    image = Image.fromarray(pixels.repeat(8, axis=0).repeat(8, axis=1))
                    image.save(folder / name / f"{identity}_{camera}_{modality}_{shot}.png")


def settings(folder: Path, method: str, steps: int = STEPS) -> list[str]:
    """What `--set` takes to make a method's run small; so many steps a stage."""

    def images(name: str) -> dict[str, str]:
        return {"name": "folder", "root": str(folder / "images" / name), "pattern": PATTERN}

    values = {"data.source": images("night" if method == "cmgan" else "source")}
    if method == "simpgan":
        values["data.target"] = images("target")
    values |= {"data.image_size": [32, 16], "data.augment.pad": 2, "data.data_dir": str(folder / method / "built")}
    values |= {f"method.{key}": value for key, value in SMALL[method].items()}
    for stage in METHODS[method].STAGES:
        of_batch = {"batch_size": 4, "images_per_view": 1, "images_per_identity": 2}
        values |= {f"stages.{stage}.{key}": value for key, value in of_batch.items()}
        values[f"stages.{stage}.steps"] = steps
    values |= {"run.checkpoint_every": EVERY, "run.log_every": EVERY, "run.pictures_every": steps // 2}
    values |= {"run.strategy": "one", "evaluate.protocol": None}
    return [f"{key}={json.dumps(value)}" for key, value in values.items()]


def started(folder: Path, method: str, run: Path) -> subprocess.Popen:
    """A training in a process of its own; what it prints is added to a file beside its folder."""
    run.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "tf_reid.train", "--config", method, "--run", str(run)]
    with log_of(run).open("ab") as log:
        return subprocess.Popen([*command, "--set", *settings(folder, method)], stdout=log, stderr=subprocess.STDOUT)


def log_of(run: Path) -> Path:
    return run.with_name(f"{run.name}.log")


def reference(folder: Path, method: str) -> str:
    """Train a method undisturbed; returns its name."""
    run = folder / method / "reference"
    if started(folder, method, run).wait(SECONDS):
        raise RuntimeError(f"{method} cannot be trained: {log_of(run).read_text()[-2000:]}")
    return method


def stopped(folder: Path, number: int, stop: Stop) -> Outcome:
    """Train a run, stop it, resume it, and compare it with its method's reference."""
    run = folder / stop.method / f"stop_{number:02}"
    process = started(folder, stop.method, run)
    wait_for(stop, process, run)
    if process.poll() is not None:
        return Outcome(stop, reached(run), False, "", ["it ended before it could be stopped"])
    process.send_signal(stop.by)
    ended = process.wait(SECONDS)
    if stop.by == signal.SIGTERM and ended != 128 + stop.by:
        return Outcome(stop, reached(run), False, "", [f"SIGTERM ended it with status {ended}"])
    at, while_writing = reached(run), is_writing(run)
    if stop.damage:
        DAMAGES[stop.damage](run / "checkpoints")
    before = log_of(run).stat().st_size
    status = started(folder, stop.method, run).wait(SECONDS)
    printed = log_of(run).read_bytes()[before:].decode()
    if status:
        return Outcome(stop, at, while_writing, "", [f"it is not resumed: {last_line(printed)}"])
    resuming = re.search(r"Resuming stage (\w+) at step (\d+)", printed)
    resumed_from = " ".join(resuming.groups()) if resuming else "a stage's start"
    reference = folder / stop.method / "reference"
    found = list(differences(reference, run, with_curves=stop.by == signal.SIGKILL))
    return Outcome(stop, at, while_writing, resumed_from, found)


def wait_for(stop: Stop, process: subprocess.Popen, run: Path) -> None:
    """Return at the moment of the stop, or when the process has ended.

    A save that is over before it is seen must not take the run into its next stage: the stage's last checkpoint but one
    is the latest moment.
    """
    wanted, latest = (stop.stage, stop.step), (stop.stage, STEPS - EVERY)
    if stop.moment == "networks":
        wanted, latest = latest, (stop.stage + 1, 0)
    at, seen = (-1, 0), [-1]
    while process.poll() is None:
        if stop.moment == "start" and run.exists() and any(run.iterdir()):
            return
        if (run / "data.json").exists() and (there := checkpoints.numbers(run / "checkpoints")) != seen:
            at, seen = reached(run) or (0, 0), there
        if stop.moment == "steps" and at >= wanted:
            time.sleep(stop.seconds)
            return
        if stop.moment in ("save", "networks") and (at >= latest or (at >= wanted and is_writing(run))):
            return
        time.sleep(0.002)


# --------------------------------------------------------------------- report


def row(outcome: Outcome) -> str:
    """A line of the table."""
    stop, at = outcome.stop, "nothing saved"
    if outcome.reached:
        stages = [*METHODS[stop.method].STAGES, "all stages"]
        at = f"{stages[outcome.reached[0]]} {outcome.reached[1]}"
    at += ", writing" * outcome.while_writing
    result = "; ".join(outcome.differences[:3]) or "equal"
    return line(stop.method, at, stop.by.name, stop.damage, outcome.resumed_from, result)


def line(*cells: str) -> str:
    return "".join(f"{cell:{width}}" for cell, width in zip(cells, (17, 24, 9, 15, 18, 0), strict=True))


def summary(outcomes: Sequence[Outcome], seconds: float) -> int:
    """Print what came out; returns how many runs differ and how many stages were never stopped."""
    planned = {(one.stop.method, one.stop.stage) for one in outcomes}
    killed = {(o.stop.method, (o.reached or (0, 0))[0]) for o in outcomes if o.stop.by == signal.SIGKILL}
    missed = sorted(planned - killed)
    wrong = sum(bool(one.differences) for one in outcomes)
    writing = sum(one.while_writing for one in outcomes)
    print(f"{len(outcomes)} runs were stopped, {writing} of them while they wrote; {len(outcomes) - wrong} are equal.")
    print(f"SIGKILL fell into {len(planned) - len(missed)} of {len(planned)} stages; {seconds:.0f} s in all.")
    for method, stage in missed:
        print(f"No run was killed in stage {list(METHODS[method].STAGES)[stage]} of {method}.")
    return wrong + len(missed)


def last_line(printed: str) -> str:
    lines = [line for line in printed.splitlines() if line.startswith("Error")] or printed.splitlines() or ["nothing"]
    return lines[-1][:300]


if __name__ == "__main__":
    run_command(main)
