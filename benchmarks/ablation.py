"""A table of a method's variants over seeds (and over a protocol's splits), as in docs/results.md.

python -m benchmarks.ablation --config cmgan --seeds 0 1 2 [--variants full ...] [--parallel 2]

Finished runs are not repeated and unfinished runs are resumed, so the same command completes a table. A run with other
settings in the same folder is an error.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from tf_reid import config as configuration
from tf_reid.command_line import run_command
from tf_reid.config import ConfigError
from tf_reid.files import write_text
from tf_reid.methods import METHODS
from tf_reid.runs import run_folder

NO_TEACHER = ["stages.teacher.steps=0"]
NOT_FED = [f"method.{key}=0" for key in ("primary_weight", "appearance_code_weight", "generated_identity_weight")]
VARIANTS = {
    "cmgan": {
        "full": [],
        "no_adversary": ["method.adversarial_weight=0"],
        "triplet_only": ["method.identity_weight=0"],
        "identification_only": ["method.triplet_weight=0"],
        **{f"margin_{margin}": [f"method.margin={margin}"] for margin in (0.7, 0.9, 1.2, 1.5, 1.6)},
    },
    "dgnet": {
        "both": [],
        # Only Eq. 3 trains E_a here, for as many steps as in the other variants: the generator's gradient is detached.
        "baseline": [*NO_TEACHER, *NOT_FED],
        "without_feeding": [*NO_TEACHER, *NOT_FED, "method.detach_appearance=false"],
        "without_identity": [
            *[*NO_TEACHER, *NOT_FED, "method.detach_appearance=false"],
            *["method.identity_weight=0", "stages.pretrain.steps=0"],
        ],
        "without_cycle": ["method.cycle_weight=0"],
        "released_eq_4": ["method.code_gradient=released"],
        "not_detached": ["method.detach_appearance=false"],
        "stripes": ["method.stripes=true"],
        **{f"alpha_{share}": [f"method.fine_ratio={share}"] for share in (0.05, 0.1, 0.4, 0.8)},
        **{f"beta_{weight}": [f"method.fine_at_test={weight}"] for weight in (0.0, 0.25, 1.0, 2.0)},
        **{
            f"teacher_{style}": [f"method.teacher_style={style}", *steps]
            for style, steps in {"hard": [], "both": [], "appearance": NO_TEACHER, "uniform": NO_TEACHER}.items()
        },
    },
    "crossgan": {
        "full": [],
        "without_alignment": ["method.alignment_weight=0", "stages.alignment.steps=0"],
        "without_gan": ["method.adversarial_weight=0", "method.matching_weight=0"],
        "without_matching": ["method.matching_weight=0"],
        **{
            f"k{k}_l{last}": [f"method.generator_shared={k}", f"method.discriminator_shared={last}"]
            for k in range(5)
            for last in range(6)
        },
    },
    "view_adaptation": {
        "adaptive": [],
        "plain": ["method.weighting=uniform"],
        "no_confusion": ["method.adaptation=none"],
        "shared": ["method.shared=true"],
        "swapped": ["method.probe_backbone=small_vgg", "method.gallery_backbone=small"],
        "alike": ["method.probe_backbone=small", "method.gallery_backbone=small"],
        "inside": ["method.weighting=inside"],
        "pooled": ["method.weighting=pooled"],
        "adda": ["method.adaptation=adda"],
        "mmd": ["method.adaptation=mmd"],
        "literal": ["method.literal_alg1=true"],
        **{f"gamma_{gamma}": [f"method.contrastive_weight={gamma}"] for gamma in (0.5, 1.0, 5.0, 10.0)},
    },
}


def main():
    args = arguments()
    method = configuration.load(args.config, args.set, METHODS).method["name"]
    if unknown := set(args.variants or ()) - set(VARIANTS[method]):
        raise ConfigError(f"{method} has no variant {min(unknown)}; its variants are {', '.join(VARIANTS[method])}.")
    variants = {name: VARIANTS[method][name] for name in args.variants or VARIANTS[method]}
    folder = args.runs or Path("runs/ablation") / Path(args.config).stem
    draws = [(seed, trial) for seed in args.seeds for trial in args.trials]
    first = next(iter(variants))
    also = {"across.json": ["--across"]} if args.across else {}  # a run's file -> the options that write it
    if args.images is not None:
        also["images.json"] = ["--images", *([args.images] if args.images else [])]

    def one_run(job):
        name, (seed, trial) = job
        settings = [f"run.seed={seed}", f"data.trial={trial}", *variants[name], *args.set]
        options = ["--baselines"] * (args.baselines and name == first)
        run = folder / f"{name}_{seed}_{trial}"
        train_and_score(args, run, settings, *options)
        if not all((run / file).exists() for file in also):
            command(args, run, "evaluate", *itertools.chain(*also.values()))

    with ThreadPoolExecutor(args.parallel) as pool:
        list(pool.map(one_run, [(name, draw) for draw in draws for name in variants]))
    for protocol in args.protocols:
        metrics = {}
        for name in variants:
            of_draws = [scores(folder / f"{name}_{seed}_{trial}", protocol) for seed, trial in draws]
            for representation in of_draws[0]:
                if all(representation in one for one in of_draws):
                    title = name if representation == "raw" else f"{name}, {representation}"
                    metrics[title] = [one[representation] for one in of_draws]
        drawn = f"seeds {' '.join(map(str, args.seeds))}"
        if len(args.trials) > 1:
            drawn += f", splits {' '.join(map(str, args.trials))}"
        print(f"{args.config}, {drawn}: {markdown(metrics, args.columns)}")
    runs_of = {name: [folder / f"{name}_{seed}_{trial}" for seed, trial in draws] for name in variants}
    for file in also:
        print(table_of_files(runs_of, file))
    if args.curve:
        print(f"{args.curve}, mean over the runs at these steps:\n\n{curves(runs_of, args.curve)}")


def arguments():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ablation")
    parser.add_argument("--config", required=True)
    parser.add_argument("--variants", nargs="+", help=f"default: all; {known_variants()}")
    parser.add_argument(
        "--trials", type=int, nargs="+", default=[0], help="train and score on these splits (data.trial)"
    )
    parser.add_argument("--baselines", action="store_true", help="also score pixels and colour histograms")
    parser.add_argument("--across", action="store_true", help="also as `tf_reid.evaluate --across` does")
    parser.add_argument("--images", nargs="?", const="", metavar="FEATURES", help="also as `tf_reid.evaluate --images`")
    parser.add_argument("--curve", metavar="TAG", help="also this curve, such as adversarial/view/accuracy")
    parser.add_argument("--columns", nargs="+", default=["rank1", "rank10", "rank20", "mAP"])
    common_arguments(parser)
    return parser.parse_args()


def known_variants() -> str:
    return "; ".join(f"{method}: {', '.join(variants)}" for method, variants in VARIANTS.items())


def common_arguments(parser):
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--protocols", nargs="+", default=[None], help="score by these, such as whole for GRID")
    parser.add_argument("--set", nargs="+", default=[], metavar="key=value", help="for every run")
    parser.add_argument("--runs", type=Path, help="where the runs are kept")
    parser.add_argument("--parallel", type=int, default=1, help="how many runs at once; they divide the CPU cores")


def train_and_score(args, run, settings, *options):
    """Train, unless the run has all its scores; score it by every protocol.

    Raises:
        ConfigError: there is a run with other settings in this folder.
    """
    run.parent.mkdir(parents=True, exist_ok=True)
    run_folder.check_run(run, configuration.load(args.config, settings, METHODS))
    missing = [protocol for protocol in args.protocols if not score_file(run, protocol).exists()]
    if not missing:
        return
    command(args, run, "train", "--config", args.config, "--set", *settings)
    for protocol in missing:
        command(args, run, "evaluate", *(["--set", f"evaluate.protocol={protocol}"] if protocol else []), *options)
        write_text(score_file(run, protocol), (run / "metrics.json").read_text())


def score_file(run, protocol) -> Path:
    return run / f"metrics_{protocol}.json"


def scores(run, protocol) -> dict:
    return json.loads(score_file(run, protocol).read_text())


def command(args, run, name, *options):
    """python -m tf_reid.NAME --run RUN ..., its output in RUN.log."""
    threads = str(max(1, os.cpu_count() // args.parallel))
    environment = {**os.environ, "TF_NUM_INTRAOP_THREADS": threads, "OMP_NUM_THREADS": threads}
    with open(run.with_name(f"{run.name}.log"), "a") as log:
        line = [sys.executable, "-m", f"tf_reid.{name}", "--run", str(run), *options]
        done = subprocess.run(line, stdout=log, stderr=subprocess.STDOUT, env=environment)
    if done.returncode:
        sys.exit(f"{' '.join(line)} failed; see {log.name}.")


def markdown(metrics: dict, columns) -> str:
    """Title -> metrics of several runs: a table of mean ± standard deviation over the runs (of means over trials)."""
    first = next(iter(metrics.values()))[0]
    head = (
        f"protocol {first['protocol']} ({first['trials']} trial(s), {first['queries']:g} queries, "
        f"{first['gallery']:g} gallery images). {first['description']}"
    )
    rows = {
        title: {c: f"{mean(results, c):.1f} ± {spread(results, c):.1f}" for c in columns}
        for title, results in metrics.items()
    }
    return f"{head}\n\n{table(rows)}"


def table_of_files(runs_of: dict, file: str) -> str:
    """Variant -> runs: a table of their JSON `file`, title -> values; mean ± standard deviation over the runs."""
    rows = {}
    for variant, folders in runs_of.items():
        of_runs = [json.loads((folder / file).read_text()) for folder in folders]
        for title in of_runs[0]:
            results = [of_run[title] for of_run in of_runs]
            cells = {c: f"{mean(results, c):.4g} ± {spread(results, c):.2g}" for c in results[0]}
            rows[f"{variant}, {title}"] = cells
    return table(rows)


def mean(results, column):
    return np.mean([result[column] for result in results])


def spread(results, column):
    return np.std([result[column] for result in results])


def curves(runs_of: dict, tag: str, points=10) -> str:
    """Variant -> runs: a table of what they logged under a tag, averaged over runs and over a tenth of the steps."""
    rows = {}
    for name, folders in runs_of.items():
        logged = [logged_values(folder, tag) for folder in folders]
        steps = np.array(sorted(set.intersection(*map(set, logged))))
        if not len(steps):
            raise ConfigError(f"{tag} was not logged by {name}; a run logs every run.log_every steps.")
        parts = np.array_split(steps, min(points, len(steps)))
        rows[name] = {
            f"to {part[-1]}": f"{np.mean([values[step] for values in logged for step in part]):.2f}" for part in parts
        }
    return table(rows)


def table(rows: dict) -> str:
    """Title -> column -> cell: in Markdown; a column that a row lacks is left empty."""
    columns = list(dict.fromkeys(column for cells in rows.values() for column in cells))
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for title, cells in rows.items():
        lines.append(f"| {title.replace('_', ' ')} | " + " | ".join(cells.get(column, "") for column in columns) + " |")
    return "\n".join(lines) + "\n"


def logged_values(run, tag) -> dict[int, float]:
    """Step -> value, of every event file of a run; where a resumed run logged a step twice, its last value."""
    import tensorflow as tf

    values = {}
    for file in sorted((run / "tensorboard").glob("events*")):
        for event in tf.compat.v1.train.summary_iterator(str(file)):
            for value in event.summary.value:
                if value.tag == tag:
                    values[event.step] = float(tf.make_ndarray(value.tensor))
    return values


if __name__ == "__main__":
    run_command(main)
