"""Train and evaluate: python -m tf_reid.train --config configs/simpgan.yaml [--set key=value ...] [--run DIR]"""

import argparse
import os
import sys
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

    from tf_reid import evaluation, runs, training

    folder = Path(args.run or Path("runs") / Path(args.config).stem)
    runs.make_deterministic(config)
    runs.open_run(folder, config)
    domains = runs.load_data(config)
    source = runs.training_records(config, domains)["source"]
    strategy = runs.make_strategy(config.run.strategy)
    with strategy.scope():
        model = runs.build_model(config, source)
    print(f"{config.method['name']}: {len(source)} labelled images of {model.identities} persons; run folder {folder}")
    training.train(model, config, domains, folder, lambda: evaluation.scores(model, config, domains))
    return evaluation.evaluate(model, config, domains, folder)


def run_command(command):
    """Run a command; what a user can mend is told in one sentence, without a traceback."""
    try:
        command()
    except KeyboardInterrupt:
        sys.exit("\nStopped. The same command goes on from the last checkpoint.")
    except (ValueError, OSError, RuntimeError) as error:
        if os.environ.get("TF_REID_TRACEBACK"):
            raise
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    run_command(main)
