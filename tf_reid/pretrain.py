"""python -m tf_reid.pretrain --to FILE.weights.h5 [--config pretrain] [--set key=value ...] [--run DIR]"""

import argparse
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

import tfds_builders
from tf_reid import config as configuration
from tf_reid.command_line import program, settings_option
from tf_reid.config import ConfigError
from tf_reid.files import write_bytes, write_text
from tf_reid.runs import initial_weights
from tf_reid.runs.initial_weights import ENDING, card_file
from tf_reid.settings import Config
from tf_reid.train import train

FIGURES = ("protocol", "queries", "gallery", "rank1", "rank5", "rank10", "mAP")
RENDERED = "synthetic_pedestrians"  # the one data set that shows no real person, and is bound to no terms


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=program("tf_reid.pretrain"),
        description="Train a backbone, and write its weights with a card, for `weights: FILE` of every method.",
    )
    parser.add_argument("--to", required=True, help=f"the file to write, NAME{ENDING}; NAME.card.yaml stands beside it")
    parser.add_argument("--config", default="pretrain", help="a configuration of the method strong (default: pretrain)")
    settings_option(parser, "settings in place of the configuration's, such as method.backbone=ResNet50")
    parser.add_argument("--run", default="runs/pretrain", help="the run's folder; an unfinished run in it is resumed")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the command; returns what `pretrain` returns."""
    args = arguments(argv)
    return pretrain(args.to, args.config, args.set, args.run)


def pretrain(
    to: str | Path, config: str | Path = "pretrain", overrides: Sequence[str] = (), run: str | Path = "runs/pretrain"
) -> dict[str, Any]:
    """Train a backbone as `tf_reid.train` does, and write its weights and their card.

    Args:
        to: the file of weights, NAME.weights.h5. The card NAME.card.yaml is written beside it, after it.
        config, overrides, run: as of `tf_reid.train.train`. A finished run is not trained again.

    Returns:
        The card.

    Raises:
        ConfigError: the file has another ending, the method keeps no backbone, or its figures would not be of
            validation identities; and as `train`.
        OSError: a file cannot be written. What stood in its place still stands.
    """
    from tf_reid.methods import METHODS

    settings = configuration.load(config, overrides, METHODS)
    check(Path(to), settings)
    train(config, overrides, run)
    weights = (Path(run) / "networks" / f"backbone{ENDING}").read_bytes()
    card = card_of(Path(run), settings, weights)
    write_bytes(to, weights)
    write_text(card_file(Path(to)), yaml.safe_dump(card, sort_keys=False, width=110))
    print(f"Written: {to}, {card_file(Path(to))}")
    return card


def check(to: Path, settings: Config) -> None:
    """Refuse before a training what could not be written, and figures of test identities.

    Raises:
        ConfigError: see `pretrain`.
    """
    if not to.name.endswith(ENDING):
        raise ConfigError(f"--to {to}: name a file that ends in {ENDING}, by which Keras knows weights.")
    if to.is_dir():
        raise ConfigError(f"--to {to}: this is a folder; name a file.")
    if not all(stage.steps for stage in settings.stages.values()):
        raise ConfigError("stages.classifier.steps is 0, so that there are no weights to write; set it higher.")
    if settings.method["name"] != "strong":
        raise ConfigError(f"method.name is {settings.method['name']!r}; pretrain trains the method strong.")
    if settings.evaluate.identities != "validation":
        raise ConfigError("evaluate.identities must be validation: the card's figures are not of test identities.")


def card_of(run: Path, settings: Config, weights: bytes) -> dict[str, Any]:
    """What the weights are, what they were made of and how well they do, of a finished run."""
    metrics = json.loads((run / "metrics.json").read_text())["raw"]
    trained_on = json.loads((run / "data.json").read_text())["source"]
    names = [name_of(spec) for spec in settings.data.sets_of("source")]
    began_with = initial_weights.of_run(run).get("weights", initial_weights.history(None))
    bound = [name for name in names if not name.startswith(RENDERED)]
    bound += [name for name in began_with["do_not_pass_on"] if name not in bound]
    return {
        "weights": {
            "backbone": settings.method["backbone"],
            "image_size": list(settings.data.image_size),
            "sha256": hashlib.sha256(weights).hexdigest(),
        },
        "data": {
            "sets": [{"name": name, "terms": terms(name)} for name in names],
            "initial_weights": began_with["sets"],
            "images": trained_on["images"],
            "identities": trained_on["identities"],
            "do_not_pass_on": bound,
            "note": note(bound),
        },
        "validation": {key: metrics[key] for key in FIGURES},
        "revision": json.loads((run / "environment.json").read_text())["revision"],
        "settings": settings.model_dump(),
        "known_identities": initial_weights.together([identities_of(settings), began_with["known"]]),
    }


def identities_of(settings: Config) -> initial_weights.Identities:
    """The identities that a finished run was trained on, and those of validation where weights were chosen by them."""
    from tf_reid.runs import splits

    seen = splits.training_records(settings, splits.load_data(settings))
    return initial_weights.known_after(settings, seen["source"])


def name_of(source: Any) -> str:
    """Of a data set as the configuration has it: a name, or the mapping of a folder."""
    return source if isinstance(source, str) else source["name"]


def terms(name: str) -> str:
    """A data set's terms of use, in a few words."""
    cls: Any = tfds_builders.builder_class(name.split("/")[0])
    return cls.TERMS or cls.ARCHIVE.terms


def note(bound: Sequence[str]) -> str:
    """What the terms mean for whoever has the weights."""
    if not bound:
        return "Trained on rendered people alone."
    return (
        f"The terms of {', '.join(bound)} bind whoever uses these weights. Do not pass them on unless all of these "
        "terms allow it."
    )


if __name__ == "__main__":
    from tf_reid.command_line import run_command

    run_command(main)
