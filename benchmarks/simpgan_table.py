"""The table of SimPGAN's variants and of the baselines they have to beat, over seeds, as in docs/results.md.

python -m benchmarks.simpgan_table --source viper --target grid --seeds 0 1 2 [--set key=value ...] [--parallel 2]

Per seed: one run without translation trains the classifier (direct transfer, histogram, colour covariance and adaptive
BatchNorm are scored with it), then one run of `simpgan` a variant starts from that classifier. Finished runs are not
repeated and killed ones go on, so the same command completes a table; runs with other settings are refused.
"""

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from tf_reid import config as configuration
from tf_reid import runs
from tf_reid.methods import METHODS

VARIANTS = {
    "gan": ["method.cycle_weight=0", "method.similarity_weight=0"],
    "cycle": ["method.similarity_weight=0"],
    "full": [],
    "full_identity": ["method.identity_weight=5.0"],
    "full_colour": ["method.generator=colour"],
}
COLUMNS = ("rank1", "rank5", "rank10", "mAP")
BASELINES = ("raw", "colour_histogram", "colour_covariance", "adaptive_batch_norm")


def arguments():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simpgan_table")
    parser.add_argument("--source", required=True)
    parser.add_argument("--target", required=True)
    parser.add_argument("--config", default="configs/simpgan_viper_to_grid.yaml")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--variants", nargs="+", default=["gan", "cycle", "full"], choices=VARIANTS)
    parser.add_argument("--protocols", nargs="+", default=[None], help="score under these too, such as whole for GRID")
    parser.add_argument("--set", nargs="+", default=[], metavar="key=value", help="for every run")
    parser.add_argument("--runs", type=Path, default=Path("runs/simpgan_table"))
    parser.add_argument("--parallel", type=int, default=1, help="runs at once, each with its share of the cores")
    return parser.parse_args()


def main():
    args = arguments()
    folder = args.runs / f"{args.source}_to_{args.target}".replace("/", "-")
    folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(args.parallel) as pool:
        list(pool.map(lambda seed: one_seed(args, folder, seed), args.seeds))
    for protocol in args.protocols:
        print(table(args, folder, protocol))


def one_seed(args, folder, seed):
    """Train what is not trained yet, and score everything under every protocol."""
    common = [f"data.source={args.source}", f"data.target={args.target}", f"run.seed={seed}", *args.set]
    direct = folder / f"direct_{seed}"
    one_run(args, direct, ["stages.translation.steps=0", *common], "--baselines")
    from_direct = [f"method.classifier={direct}", "stages.classifier.steps=0"]
    for variant in args.variants:
        one_run(args, folder / f"{variant}_{seed}", [*from_direct, *VARIANTS[variant], *common])


def one_run(args, run, settings, *options):
    """Train, unless every score of the run is there; score under every protocol.

    Raises:
        ConfigError: there is a run with other settings in this folder.
    """
    runs.check_run(run, configuration.load(args.config, settings, METHODS))
    scores = {protocol: run / f"metrics_{protocol}.json" for protocol in args.protocols}
    if all(path.exists() for path in scores.values()):
        return
    command(args, run, "train", "--config", args.config, "--set", *settings)
    for protocol, path in scores.items():
        if not path.exists():
            command(args, run, "evaluate", *(["--set", f"evaluate.protocol={protocol}"] if protocol else []), *options)
            runs.write_text(path, (run / "metrics.json").read_text())


def command(args, run, name, *options):
    """python -m tf_reid.NAME --run RUN ..., its output in RUN.log."""
    threads = str(max(1, os.cpu_count() // args.parallel))
    environment = {**os.environ, "TF_NUM_INTRAOP_THREADS": threads, "OMP_NUM_THREADS": threads}
    with open(run.with_suffix(".log"), "a") as log:
        line = [sys.executable, "-m", f"tf_reid.{name}", "--run", str(run), *options]
        done = subprocess.run(line, stdout=log, stderr=subprocess.STDOUT, env=environment)
    if done.returncode:
        sys.exit(f"{' '.join(line)} failed; see {log.name}.")


def table(args, folder, protocol) -> str:
    """Markdown: mean ± standard deviation over seeds (of the mean over the protocol's trials), per cent."""
    rows = [(name, "direct", name) for name in BASELINES]
    rows += [(variant, variant, "translated") for variant in args.variants]
    first = json.loads((folder / f"direct_{args.seeds[0]}" / f"metrics_{protocol}.json").read_text())["raw"]
    lines = [
        f"{args.source} -> {args.target}, protocol {first['protocol']} ({first['trials']} trial(s), "
        f"{first['queries']} queries, {first['gallery']} gallery images), seeds {' '.join(map(str, args.seeds))}. "
        f"{first['description']}",
        "",
        "| | " + " | ".join(COLUMNS) + " |",
        "|---" * (len(COLUMNS) + 1) + "|",
    ]
    for name, run, representation in rows:
        files = [folder / f"{run}_{seed}" / f"metrics_{protocol}.json" for seed in args.seeds]
        values = [json.loads(file.read_text())[representation] for file in files]
        cells = (f"{np.mean(v):.1f} ± {np.std(v):.1f}" for v in ([r[c] for r in values] for c in COLUMNS))
        lines.append(f"| {'direct' if name == 'raw' else name.replace('_', ' ')} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
