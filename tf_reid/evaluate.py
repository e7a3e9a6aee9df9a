"""Score a run: python -m tf_reid.evaluate --run DIR [--on NAME ...] [--baselines] [--threshold] [--images] ..."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tf_reid.command_line import program, settings_option
from tf_reid.config import ConfigError


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=program("tf_reid.evaluate"), description="Score a trained run.")
    parser.add_argument("--run", required=True, help="the run's folder")
    settings_option(
        parser,
        "other settings: evaluate.*, data.data_dir, data.manual_dir; a setting of the method that only changes "
        "scores, such as method.fine_at_test of dgnet; data.source and data.target, if the images were moved",
    )
    parser.add_argument(
        "--baselines",
        action="store_true",
        help="also score pixels, colour histograms and, where there is a target, two simple ways to adapt to it",
    )
    parser.add_argument(
        "--threshold",
        nargs="*",
        type=float,
        metavar="RATE",
        help="also set distance thresholds for 'the same identity', one for each of these false match rates "
        "(default: 0.001 0.01)",
    )
    parser.add_argument(
        "--images",
        nargs="?",
        const="",
        metavar="FEATURES",
        help="also measure the quality of the images that the run generates, by features of its own encoder (default), "
        "of another run's encoder (its folder) or of InceptionV3 (imagenet, or the path of Keras's weight file "
        "without top)",
    )
    parser.add_argument(
        "--write-images",
        metavar="DIR",
        help="also write the generated images to a new folder, with a table of their identities: a data set for folder",
    )
    parser.add_argument(
        "--across",
        action="store_true",
        help="also translate the queries to the gallery's view, and measure how far they are from the gallery "
        "images of the same identities",
    )
    parser.add_argument(
        "--on",
        nargs="+",
        default=[],
        metavar="NAME",
        help="score on these data sets in place of the run's own, each by its default protocol or as NAME:PROTOCOL, "
        "and write one table; images of your own: '{name: folder, csv: FILE}'",
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> dict[str, dict[str, Any]]:
    """Run the command; returns what `evaluate` returns."""
    args = arguments(argv)
    from tf_reid.metrics import verification

    rates = None if args.threshold is None else args.threshold or verification.RATES
    return evaluate(
        args.run,
        args.set,
        baselines=args.baselines,
        rates=rates,
        images=args.images,
        across=args.across,
        write_images=args.write_images,
        on=args.on,
    )


def evaluate(
    run: str | Path,
    overrides: Sequence[str] = (),
    *,
    baselines: bool = False,
    rates: Sequence[float] | None = None,
    images: str | None = None,
    across: bool = False,
    write_images: str | Path | None = None,
    on: Sequence[str] = (),
) -> dict[str, dict[str, Any]]:
    """Score a trained run, as `python -m tf_reid.evaluate` does: write metrics.json, rank lists and a table.

    Args:
        run: the run's folder.
        overrides: settings of `evaluate`, `data.data_dir`, `data.manual_dir`, or one that the method lists as
            `RESCORED`, in place of the run's, such as `["evaluate.rerank=true"]`. `data.source` and `data.target` may
            name the place where the same images are.
        baselines: also score pixels, colour histograms and, where there is a target, two simple ways to adapt to it.
        rates: also set distance thresholds for "the same identity" at these false match rates, each between 0 and 1.
        images: also measure the quality of the images that the run generates, by features of its own encoder (""), of
            another run's (its folder) or of InceptionV3 ("imagenet", or the path of Keras's weight file).
        across: also translate the queries to the gallery's view, and measure how far they are from the gallery images
            of the same identities.
        write_images: also write the images that the run generates to this new folder, as a data set for `folder`.
        on: score on these data sets in place of the run's own, see `tf_reid.evaluation.cross_domain`; they go with
            `overrides` alone.

    Returns:
        representation -> metrics, as in the run's metrics.json: rank1, mAP and the others of
        `tf_reid.metrics.ranking.score`, per cent, averaged over the protocol's trials; with `rates`, also
        `verification`, see `tf_reid.metrics.verification.verify`. With `on`, data set -> representation -> metrics.

    Raises:
        ConfigError: there is no run, it has no sound checkpoint, its data set has changed, a setting is wrong, or a
            data set of `on` shows identities that the run was trained on.
        ValueError: a rate is too small for the number of pairs, or the run generates no images.
    """
    from tf_reid.evaluation import cross_domain, generated, report, scoring
    from tf_reid.runs import splits

    folder = Path(run)
    if on and (baselines or across or rates is not None or images is not None or write_images is not None):
        raise ConfigError("--on goes with --set alone: leave the other options out, or give them without --on.")
    trained = scoring.open_trained(folder, overrides)
    model, config, domains, seen, averaged, _ = trained
    with averaged():
        if on:
            return cross_domain.evaluate(trained, on, folder)
        if images is not None:
            generated.judge(model, config, seen, folder, images)
        if write_images is not None:
            generated.write_images(model, config, seen, Path(write_images))
        if across:
            scored = domains[splits.scored_domain(config)]
            trial = splits.fair_trials(config, scored, seen)[0]
            generated.across_views(model, config, scored, trial, folder)
        return report.evaluate(model, config, domains, seen, folder, baselines, rates)


if __name__ == "__main__":
    from tf_reid.command_line import run_command

    run_command(main)
