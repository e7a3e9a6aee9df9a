"""Score a run: python -m tf_reid.evaluate --run DIR [--baselines] [--threshold] [--set evaluate.key=value ...]"""

import argparse
import os
import re
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
    parser.add_argument(
        "--threshold",
        nargs="*",
        type=float,
        metavar="RATE",
        help="also set thresholds of 'the same person' at these rates of false matches (default: 0.001 0.01)",
    )
    return parser.parse_args(argv)


def main(argv=None) -> dict:
    """Returns the metrics by representation, as in the run's metrics.json."""
    args = arguments(argv)
    from tf_reid import evaluation, runs, splits, verification
    from tf_reid.config import ConfigError

    allowed = re.compile(r"evaluate\..*|data\.(data|manual)_dir=.*")
    refused = [setting for setting in args.set if not allowed.match(setting)]
    if refused:
        raise ConfigError(
            f"--set {refused[0]}: a trained run can only change evaluate.*, data.data_dir, data.manual_dir."
        )
    folder = Path(args.run)
    trained, config = runs.load_run(folder), runs.load_run(folder, args.set)
    runs.make_deterministic(config)
    domains = splits.load_data(config)
    seen = splits.training_records(trained, domains)
    runs.check_data(folder, seen)
    model = runs.build_model(config, seen["source"])
    progress = runs.Progress(folder, model)
    if not progress.restore(partially=True):
        raise ConfigError(f"{folder} has no checkpoint yet; train it with --run {folder}.")
    rates = args.threshold or verification.RATES if args.threshold is not None else None
    options = {"baselines": args.baselines, "rates": rates}
    finished = int(progress.stage)
    if finished < len(config.stages):
        name = list(config.stages)[finished]
        print(f"The run is not finished: stage {name} is at step {int(model.step)} of {config.stages[name].steps}.")
        model.begin(name)
        with model.averaged():
            return evaluation.evaluate(model, config, domains, seen, folder, **options)
    return evaluation.evaluate(model, config, domains, seen, folder, **options)


if __name__ == "__main__":
    from tf_reid.train import run_command

    run_command(main)
