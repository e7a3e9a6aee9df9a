"""A grid of settings: the trainings that try it, and what their scores on validation identities say."""

import csv
import hashlib
import io
import itertools
import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from tf_reid.config import ConfigError, full_key
from tf_reid.runs.side_by_side import Training, Workers, check_once, command
from tf_reid.settings import Config

# Settings that no grid varies, and what to do instead.
DECIDED = {
    "run.seed": "name seeds with --seeds",
    "data.validation": "all trainings are scored on the same identities, so give it by --set",
    "evaluate.identities": "a grid is scored on validation identities alone",
    **dict.fromkeys(
        (
            "data.source",
            "data.source_cameras",
            "data.source_split",
            "data.target",
            "data.target_split",
            "data.trial",
            "evaluate.protocol",
        ),
        "it decides which identities are held out, and scores on others cannot be compared; give it by --set",
    ),
}
BAR = re.compile(r"(\w+): +\d+%\|[^|]*\| *(\d+)/(\d+)")  # of a stage, as tqdm writes it
METRICS = ("rank1", "mAP")  # that a table shows


@dataclass(frozen=True)
class Over:
    """A setting and the values that are tried, each as YAML text."""

    key: str
    values: tuple[str, ...]

    @classmethod
    def read(cls, text: str) -> "Over":
        """`method.dropout=0,0.5`: the values are what stands between the brackets of a list in YAML.

        A list among them has brackets of its own, a text with a comma has quotation marks.

        Raises:
            ConfigError: there is no key or no value, one is there twice, or they are no YAML.
        """
        key, _, values = text.partition("=")
        try:
            read = yaml.safe_load(f"[{values}]")
        except (yaml.YAMLError, ValueError, RecursionError):
            read = None
        if not key or not read or not isinstance(read, list):
            raise ConfigError(f"--over takes key=value,value, such as method.dropout=0,0.5; got {text!r}.")
        shown = tuple(_as_text(value) for value in read)
        if len(set(shown)) < len(shown):
            raise ConfigError(f"--over {text}: a value is there twice.")
        return cls(key, shown)


def _as_text(value: Any) -> str:
    """A value on one line, as `--set` reads it."""
    text: str = yaml.safe_dump(value, default_flow_style=True, width=10**9)
    return text.removesuffix("\n").removesuffix("\n...")


@dataclass
class Cell(Training):
    """One training of a grid.

    Attributes:
        choice: the settings that the grid varies, as `--set` takes them.
        representation: whose score decides.
    """

    choice: tuple[str, ...]
    seed: int
    representation: str

    def make(self, workers: Workers) -> None:
        """As `Training.make`.

        Raises:
            ConfigError: its metrics have no such representation; those of the others would have none either.
        """
        super().make(workers)
        self.entry()

    def entry(self) -> dict[str, Any]:
        """The metrics of its representation.

        Raises:
            ConfigError: there is none of this name.
        """
        metrics: dict[str, dict[str, Any]] = json.loads(self.scores.read_text())
        if self.representation not in metrics:
            raise ConfigError(
                f"--representation {self.representation}: {self.folder} has none of this name; it has "
                f"{', '.join(metrics)}."
            )
        return metrics[self.representation]

    def progress(self) -> str:
        """How far it is, as its log says: such as "classifier 120/450"."""
        if self.is_trained():
            return "finished"
        if not self.log.exists():
            return "waiting"
        with open(self.log, "rb") as file:
            file.seek(max(0, self.log.stat().st_size - 4096))
            bars = BAR.findall(file.read().decode(errors="replace"))
        return "{} {}/{}".format(*bars[-1]) if bars else "begins"


@dataclass(frozen=True)
class Line:
    """What the trainings of one choice have scored, on validation identities.

    Attributes:
        values: metric -> its value in each finished training.
        planned: how many trainings there are once all are finished.
    """

    choice: tuple[str, ...]
    values: dict[str, list[float]]
    planned: int

    @property
    def is_complete(self) -> bool:
        return all(len(values) == self.planned for values in self.values.values())


def cells(
    config: str,
    overs: Sequence[Over],
    seeds: Sequence[int],
    settings: Sequence[str],
    root: Path,
    representation: str = "raw",
) -> list[Cell]:
    """The trainings of a grid, choice by choice: every value of a setting with every value of the others.

    Args:
        settings: of every training.
        root: their folders lie within it.
        representation: whose score decides.

    Raises:
        ConfigError: a setting is varied twice, or both varied and set, or it is not for a grid to vary; a seed is
            there twice, or set.
    """
    check_once("--seeds", seeds, "seed")
    varied = [full_key(over.key) for over in overs]
    fixed = [full_key(setting.split("=")[0]) for setting in settings]
    if "run.seed" in fixed:
        raise ConfigError(f"--set run.seed: {DECIDED['run.seed']}.")
    for place, (over, key) in enumerate(zip(overs, varied, strict=True)):
        for decided, instead in DECIDED.items():
            if _is_part(key, decided) or _is_part(decided, key):
                raise ConfigError(f"--over {over.key}: {instead}.")
        if any(_is_part(key, other) or _is_part(other, key) for other in varied[:place]):
            raise ConfigError(f"--over {over.key}: this setting is there twice; name all its values in one --over.")
        if any(_is_part(one, key) for one in fixed):
            raise ConfigError(f"--over {over.key}: this setting is there twice; give it by --over or by --set.")
    choices = itertools.product(*([f"{over.key}={value}" for value in over.values] for over in overs))
    made = []
    for choice, seed in itertools.product(choices, seeds):
        own = (*settings, *choice, f"run.seed={seed}", "evaluate.identities=validation")
        made.append(Cell(root / f"{_folder_name(choice)}-{seed}", config, own, choice, seed, representation))
    return made


def _is_part(key: str, whole: str) -> bool:
    """Whether a setting is another one or a part of it: "data.source.root" is one of "data.source"."""
    return key == whole or key.startswith(f"{whole}.")


def _folder_name(choice: Sequence[str]) -> str:
    """A name that tells a choice from every other: "method.dropout=0.5", with a mark where it had to be changed."""
    text = ",".join(choice)
    name = re.sub(r"[^\w.=,-]+", "_", text)[:100]
    return name if name == text else f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def lines(made: Sequence[Cell]) -> list[Line]:
    """The scores of every choice, in the grid's order.

    Raises:
        ConfigError: a run has none of its representation.
    """
    by_choice: dict[tuple[str, ...], list[Cell]] = {}
    for cell in made:
        by_choice.setdefault(cell.choice, []).append(cell)
    of_choices = []
    for choice, own in by_choice.items():
        entries = [cell.entry() for cell in own if cell.is_trained()]
        values = {metric: [entry[metric] for entry in entries] for metric in METRICS}
        of_choices.append(Line(choice, values, len(own)))
    return of_choices


def best(of_choices: Sequence[Line], metric: str) -> Line | None:
    """The choice with the highest mean, of those whose trainings are all finished; the first of equal ones.

    A choice with a score that is not finite is never the best.
    """
    complete = [line for line in of_choices if line.is_complete and np.isfinite(line.values[metric]).all()]
    return max(complete, key=lambda line: np.mean(line.values[metric]), default=None)


def markdown(of_choices: Sequence[Line], metric: str) -> str:
    """A table of the choices; the best one is marked."""
    chosen = best(of_choices, metric)
    rows = ["| | " + " | ".join(METRICS) + " | runs |", "|---" * (len(METRICS) + 2) + "|"]
    for line in of_choices:
        title = f"`{' '.join(line.choice)}`" + (" **best**" if line is chosen else "")
        texts = [_shown(line.values[name]) for name in METRICS]
        rows.append(f"| {title} | " + " | ".join(texts) + f" | {len(line.values[metric])} of {line.planned} |")
    return "\n".join(rows)


def _shown(values: Sequence[float]) -> str:
    if not values:
        return "-"
    return f"{np.mean(values):.1f}" + (f" ± {np.std(values):.1f}" if len(values) > 1 else "")


def comma_separated(of_choices: Sequence[Line]) -> str:
    """One line for each choice and metric."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["choice", "metric", "mean", "spread", "runs", "planned"])
    for line in of_choices:
        for metric, values in line.values.items():
            mean, spread = (np.mean(values), np.std(values)) if values else ("", "")
            writer.writerow([" ".join(line.choice), metric, mean, spread, len(values), line.planned])
    return text.getvalue()


def set_line(choice: Sequence[str]) -> str:
    """The choice as it is typed."""
    return shlex.join(["--set", *choice])


def final_command(path: str, config: Config, settings: Sequence[str], run: Path) -> str:
    """The command that trains the choice on all identities, and scores it on those of the test.

    Where the protocol holds some out, it trains on all others. With a target, validation identities stay held out:
    their labels train nothing there, and they may be those of the test in another trial, which is then not scored.

    Args:
        config: the settings with the choice, as they were read. settings: as they are typed.
    """
    whole = _without_validation(config) if config.data.validation and config.data.target is None else []
    if config.evaluate.identities == "validation":
        whole.append("evaluate.identities=test")
    replaced = [setting.split("=")[0] for setting in whole]
    kept = [setting for setting in settings if setting.split("=")[0] not in replaced]
    return shlex.join(command("train", "--config", path, "--run", run, "--set", *kept, *whole))


def _without_validation(config: Config) -> list[str]:
    """Settings with which no identity is held out, and nothing is chosen by one."""
    settings = ["data.validation=0"]
    if config.run.validate_every:
        settings.append("run.validate_every=0")
    if config.run.keep == "best":
        settings.append("run.keep=last")
    for name, stage in config.stages.items():
        settings += [f"stages.{name}.{key}=null" for key in stage.watched]
    return settings
