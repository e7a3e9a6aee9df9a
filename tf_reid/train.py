"""Train and evaluate: python -m tf_reid.train --config simpgan [--set key=value ...] [--run DIR]"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tfds_builders
from tf_reid import config as configuration
from tf_reid.command_line import program, settings_option


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=program("tf_reid.train"), description="Train a method, then evaluate it.")
    parser.add_argument(
        "--config", required=True, help="a configuration that comes with tf_reid, such as simpgan, or a YAML file"
    )
    settings_option(parser, "settings in place of the configuration's, such as run.seed=1")
    parser.add_argument(
        "--run", help="the run's folder (default: runs/NAME-OF-THE-CONFIG); an unfinished run in it is resumed"
    )
    parser.add_argument("--dry-run", action="store_true", help="print all settings and stop")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> dict[str, dict[str, Any]]:
    """Run the command; returns what `train` returns, and nothing for a dry run."""
    args = arguments(argv)
    if args.dry_run:
        from tf_reid.methods import METHODS

        settings = configuration.load(args.config, args.set, METHODS)
        for spec in (*settings.data.sets_of("source"), *settings.data.sets_of("target")):
            tfds_builders.parts_of(spec)  # a wrong name is refused
        print(configuration.dump(settings), end="")
        return {}
    return train(args.config, args.set, args.run)


def train(
    config: str | Path, overrides: Sequence[str] = (), run: str | Path | None = None
) -> dict[str, dict[str, Any]]:
    """Train a method, then evaluate it, as `python -m tf_reid.train` does; an unfinished run is resumed.

    Args:
        config: a configuration that comes with tf_reid, such as "simpgan", or a YAML file.
        overrides: settings in place of the configuration's, such as `["run.seed=1", "stages.translation.steps=100"]`.
        run: the run's folder; by default `runs/` with the configuration's name.

    Returns:
        representation -> metrics, as in the run's metrics.json: rank1, mAP and the others of
        `tf_reid.metrics.ranking.score`, per cent, averaged over the protocol's trials. Of several workers the first
        scores the run; the others return nothing.

    Raises:
        ConfigError: a setting is wrong, the folder holds another run or another training uses it, no checkpoint of it
            can be read, the named strategy cannot share a batch, or another worker has other settings or images.
        ValueError: the data set cannot be read, or no query of it has a match.
        OSError: a file cannot be written; the last checkpoint stands.
        NotFinite (a RuntimeError): a loss or a weight became NaN or infinite.
        WorkerLost (a RuntimeError): another of several workers has ended; all are to be started again.
        KeyboardInterrupt, SystemExit: a signal stopped it, and a checkpoint was saved; the same call resumes it.
    """
    from tf_reid.methods import METHODS
    from tf_reid.runs import cluster, lock, run_folder, strategy

    folder = Path(run or Path("runs") / configuration.find(config).stem)
    settings = configuration.load(config, overrides, METHODS)
    devices, sentence = strategy.make_strategy(settings)
    print(sentence)
    own = cluster.own_folder(devices, folder)
    with cluster.naming_lost_workers(cluster.number_among_several(devices)):
        if own != folder:  # the first of several workers has the lock
            return _train_and_evaluate(settings, devices, folder, own)
        run_folder.check_run(folder, settings)
        with lock.training(folder):
            return _train_and_evaluate(settings, devices, folder, own)


def _train_and_evaluate(settings, devices, folder, own):
    from tf_reid.evaluation import comparison, during_training, report, scoring
    from tf_reid.runs import (
        cluster,
        encoder_runs,
        initial_weights,
        reproducibility,
        run_folder,
        splits,
        training,
        validation,
    )

    splits.build_data(settings)
    reproducibility.make_deterministic(settings)
    domains = splits.load_data(settings)
    histories = initial_weights.of_run(folder) or initial_weights.of_method(settings.method)
    seen = initial_weights.known_before(splits.training_records(settings, domains), histories)
    cluster.check_images(devices, seen)
    held_out = validation.records(settings, domains)

    # What could not be scored is refused now rather than after the training.
    scored = domains[splits.scored_domain(settings)]
    trials = splits.fair_trials(settings, scored, seen)
    validating = validation.scored(settings)
    on_validation = splits.fair_trials(validating, scored, seen) if settings.run.validate_every else []
    fewer = during_training.fewer_queries(trials, scored, settings.run.evaluate_queries)
    for of_queries in (trials, fewer, on_validation):
        comparison.check_matches(scored, of_queries)
    run_folder.check_classifier(settings, seen["source"])
    encoder_runs.check(settings, {f"data.{domain}": records for domain, records in domains.items()})
    with devices.scope():
        model = run_folder.build_model(settings, seen["source"].identities)
    model.check_training()
    training.check_batches(model, settings, seen)
    during_training.check_watched(model, settings, scoring.representations(model, settings, scored))
    first = own == folder  # of several workers, the first; the others wait while it scores
    if first:
        run_folder.open_run(folder, settings, seen)  # no earlier: settings that the method refuses leave no run behind

    images, identities = len(seen["source"]), seen["source"].identities
    print(f"{settings.method['name']}: {images} labelled images of {identities} identities; run folder {folder}")

    def scores():
        return scoring.scores(model, settings, domains, seen, during=model.stage) if first else {}

    def validation_scores():  # every worker's: all must decide alike
        return scoring.scores(model, validating, domains, seen, during=model.stage)

    training.train(model, settings, seen, folder, scores, own, held_out, validation_scores)
    results = report.evaluate(model, settings, domains, seen, folder) if first else {}
    cluster.wait_for_all_workers(devices)
    return results


if __name__ == "__main__":
    from tf_reid.command_line import run_command

    run_command(main)
