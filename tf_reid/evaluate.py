"""Score a run: python -m tf_reid.evaluate --run DIR [--baselines] [--set evaluate.key=value ...]"""

import argparse
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def arguments(argv=None):
    parser = argparse.ArgumentParser(prog="python -m tf_reid.evaluate", description="Score a trained run.")
    parser.add_argument("--run", required=True, help="the run's folder")
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="key=value",
        help="override evaluate.* or data.*_dir",
    )
    parser.add_argument("--baselines", action="store_true", help="also score what a translation has to beat")
    return parser.parse_args(argv)


def main(argv=None) -> dict:
    """Returns the metrics by representation, as in the run's metrics.json."""
    args = arguments(argv)
    from tf_reid import config as configuration
    from tf_reid.methods import METHODS

    folder = Path(args.run)
    from tf_reid import evaluation, runs

    runs.load_run(folder)
    config = configuration.load(str(folder / "config.yaml"), args.set, METHODS)
    runs.make_deterministic(config)
    domains = runs.load_data(config)
    model = runs.build_model(config, runs.training_records(config, domains)["source"])
    if not runs.Progress(folder, model).restore(partially=True):
        raise configuration.ConfigError(f"{folder} has no checkpoint yet; train it with --run {folder}.")
    return evaluation.evaluate(model, config, domains, folder, baselines=args.baselines)


if __name__ == "__main__":
    from tf_reid.train import run_command

    run_command(main)
