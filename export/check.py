"""Does a server give the scores that evaluation gave? python -m export.check localhost:8500 simpgan --run runs/simpgan

Embeds every image of the run's protocol by the server, scores the embeddings as `tf_reid.evaluate` does, and compares
with the run's metrics.json. Of NAME_int8, whose convolutions are int8, rank-1 may differ by half a point.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

COMPARED = ("rank1", "rank5", "rank10", "mAP")
MOST_APART = 0.05  # points of per cent: rounding may swap two images that are equally far


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m export.check", description="Score a run's images by a server and compare with metrics.json."
    )
    parser.add_argument("server", help="host:port of gRPC, or http://host:port of REST")
    parser.add_argument("model", help="the served model's name; with several encoders, without _ROLE")
    parser.add_argument("--run", required=True, type=Path, help="the folder of the run that was exported")
    parser.add_argument("--label", default="stable", help="the label of the version that is checked (default: stable)")
    parser.add_argument("--representation", help="what was exported, such as raw (default: the method's own encoders)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> dict[str, tuple[float, float]]:
    """As `check`, with the figures printed."""
    args = arguments(argv)
    return check(args.server, args.model, args.run, label=args.label, representation=args.representation)


def check(
    server: str, model: str, run: str | Path, *, label: str | None = "stable", representation: str | None = None
) -> dict[str, tuple[float, float]]:
    """Compare the scores of a served model's embeddings with those of the run that was exported; print both.

    Args:
        server: "host:port" of gRPC, or "http://host:port" of REST.
        model: its name; where a run has several encoders, without _ROLE.
        run: the run's folder.
        label: of the version that is checked.
        representation: the one that was exported; by default the method's own encoders.

    Returns:
        metric -> (by the server, in metrics.json), per cent.

    Raises:
        ConfigError: they differ by more than rounding (of int8, rank-1 differs by more than half a point), or the run
            was not evaluated.
        ServerError: the server does not answer.
    """
    from export import quantisation, rescoring, saving
    from tf_reid.config import ConfigError
    from tf_reid.evaluation import scoring

    folder = Path(run)
    trained = scoring.open_trained(folder)
    saving.check_finished(trained, folder)
    chosen = saving.chosen(trained, representation, folder)
    path = folder / "metrics.json"
    expected = json.loads(path.read_text()) if path.exists() else {}
    if chosen.representation not in expected:
        raise ConfigError(f"{path} has no scores of {chosen.representation}; evaluate the run: --run {folder}.")
    names = saving.names_of(chosen, model)
    served = rescoring.scores(trained, names, lambda name, images: _embedded(server, name, label, images))
    both = {key: (float(served[key]), float(expected[chosen.representation][key])) for key in COMPARED}
    for key, (by_server, in_file) in both.items():
        print(f"{key:7} {by_server:8.4f} by the server, {in_file:8.4f} in metrics.json")
    allowed = dict.fromkeys(COMPARED, MOST_APART)
    if model.endswith(saving.OF_INT8):  # an export names every quantised model so; a server does not send model.json
        allowed = {"rank1": quantisation.MOST_LOST + MOST_APART}
    if any(abs(both[key][0] - both[key][1]) > most for key, most in allowed.items()):
        raise ConfigError(
            f"{server} does not embed as {folder} does; is {model} another model, or another version of it?"
        )
    return both


def _embedded(server, name, label, images):
    """Embeddings float32 [N, D] that the server answers."""
    import numpy as np
    from tqdm import tqdm

    from export.client import Client

    embeddings = list(Client(server, name, label=label).embed_bytes(tqdm(images, unit="image", desc=name)))
    return np.stack(embeddings) if embeddings else np.zeros((0, 0), np.float32)


if __name__ == "__main__":
    from tf_reid.command_line import run_command

    run_command(main)
