"""Score a run: python -m tf_reid.evaluate --run DIR [--baselines] [--threshold] [--images] [--across] [--set ...]"""

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
    parser.add_argument(
        "--threshold",
        nargs="*",
        type=float,
        metavar="RATE",
        help="also set thresholds of 'the same person' at these rates of false matches (default: 0.001 0.01)",
    )
    parser.add_argument(
        "--images",
        nargs="?",
        const="",
        metavar="FEATURES",
        help="also judge the images that the run generates: by its own encoder, by that of another run (its folder), "
        "or by InceptionV3 (imagenet, or the path of Keras's weights file without top)",
    )
    parser.add_argument(
        "--across", action="store_true", help="also compare queries, put in the gallery's view, with the gallery"
    )
    return parser.parse_args(argv)


def main(argv=None) -> dict:
    """Returns the metrics by representation, as in the run's metrics.json."""
    args = arguments(argv)
    from tf_reid.evaluation import generated, scoring
    from tf_reid.metrics import verification
    from tf_reid.runs import splits

    folder = Path(args.run)
    model, config, domains, seen, averaged, _ = scoring.open_trained(folder, args.set)
    rates = args.threshold or verification.RATES if args.threshold is not None else None
    options = {"baselines": args.baselines, "rates": rates}
    with averaged():
        if args.images is not None:
            generated.judge(model, config, seen, folder, args.images)
        if args.across:
            scored = domains[splits.scored_domain(config)]
            trial = splits.fair_trials(config, scored, seen)[0]
            generated.across_views(model, config, scored, trial, folder)
        return scoring.evaluate(model, config, domains, seen, folder, **options)


if __name__ == "__main__":
    from tf_reid.command_line import run_command

    run_command(main)
