"""Train and evaluate: python -m tf_reid.train --config configs/simpgan.yaml [--set key=value ...] [--run DIR]"""

import argparse
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def arguments(argv=None):
    parser = argparse.ArgumentParser(prog="python -m tf_reid.train", description="Train a method, then evaluate it.")
    parser.add_argument("--config", required=True, help="a YAML file, such as configs/simpgan.yaml")
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="key=value", help="override settings")
    parser.add_argument(
        "--run", help="the run's folder (default: runs/NAME-OF-THE-CONFIG); an unfinished run there goes on"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the resolved configuration and stop")
    return parser.parse_args(argv)


def main(argv=None) -> dict:
    """Returns the metrics by representation, as in the run's metrics.json."""
    args = arguments(argv)
    from tf_reid import config as configuration
    from tf_reid.methods import METHODS

    config = configuration.load(args.config, args.set, METHODS)
    if args.dry_run:
        print(configuration.dump(config), end="")
        return {}

    from tf_reid.evaluation import extraction, scoring
    from tf_reid.runs import run_folder, splits, training

    folder = Path(args.run or Path("runs") / Path(args.config).stem)
    strategy = run_folder.make_strategy(config.run.strategy)
    run_folder.make_deterministic(config)
    run_folder.check_batches(config, strategy)
    own = run_folder.own_folder(strategy, folder)
    if own == folder:
        run_folder.check_run(folder, config)
    domains = splits.load_data(config)
    seen = splits.training_records(config, domains)
    # Refused now rather than after the training.
    scored = domains[splits.scored_domain(config)]
    extraction.check_matches(scored, splits.fair_trials(config, scored, seen))
    run_folder.check_classifier(config, seen["source"])
    with strategy.scope():
        model = run_folder.build_model(config, seen["source"].identities)
    scoring.representations(model, config, scored)  # likewise
    if own == folder:
        run_folder.open_run(folder, config, seen)  # not before: a setting that the method refuses leaves no run behind
    images, identities = len(seen["source"]), model.identities
    print(f"{config.method['name']}: {images} labelled images of {identities} persons; run folder {folder}")
    training.train(model, config, seen, folder, lambda: scoring.scores(model, config, domains, seen), own)
    return scoring.evaluate(model, config, domains, seen, own)


if __name__ == "__main__":
    from tf_reid.command_line import run_command

    run_command(main)
