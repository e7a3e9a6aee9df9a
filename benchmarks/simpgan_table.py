"""The table of SimPGAN's variants and of the baselines they have to beat, over seeds, as in docs/results.md.

python -m benchmarks.simpgan_table --source viper --target grid --seeds 0 1 2 [--set key=value ...] [--parallel 2]

Per seed: one run without translation trains the classifier (direct transfer, histogram, colour covariance and adaptive
BatchNorm are scored with it), then one run of `simpgan` a variant starts from that classifier. Finished runs are not
repeated and killed ones go on, so the same command completes a table; runs with other settings are refused.
"""

import argparse
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.ablation import common_arguments, markdown, scores, train_and_score

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
    parser.add_argument("--variants", nargs="+", default=["gan", "cycle", "full"], choices=VARIANTS)
    common_arguments(parser)
    return parser.parse_args()


def main():
    args = arguments()
    folder = (args.runs or Path("runs/simpgan_table")) / f"{args.source}_to_{args.target}".replace("/", "-")
    with ThreadPoolExecutor(args.parallel) as pool:
        list(pool.map(lambda seed: one_seed(args, folder, seed), args.seeds))
    for protocol in args.protocols:
        print(table(args, folder, protocol))


def one_seed(args, folder, seed):
    """Train what is not trained yet, and score everything under every protocol."""
    common = [f"data.source={args.source}", f"data.target={args.target}", f"run.seed={seed}", *args.set]
    direct = folder / f"direct_{seed}"
    train_and_score(args, direct, ["stages.translation.steps=0", *common], "--baselines")
    from_direct = [f"method.classifier={direct}", "stages.classifier.steps=0"]
    for variant in args.variants:
        train_and_score(args, folder / f"{variant}_{seed}", [*from_direct, *VARIANTS[variant], *common])


def table(args, folder, protocol) -> str:
    rows = [("direct" if name == "raw" else name, "direct", name) for name in BASELINES]
    rows += [(variant, variant, "translated") for variant in args.variants]
    found = {
        title: [scores(folder / f"{run}_{seed}", protocol)[kind] for seed in args.seeds] for title, run, kind in rows
    }
    return f"{args.source} -> {args.target}, seeds {' '.join(map(str, args.seeds))}: {markdown(found, COLUMNS)}"


if __name__ == "__main__":
    main()
