"""Does a server give the scores that evaluation gave? python -m export.check localhost:8500 simpgan --run runs/simpgan

Embeds every image of the run's protocol by the server, scores the embeddings as `tf_reid.evaluate` does, and compares
with the run's metrics.json.
"""

import argparse
import json
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def arguments(argv=None):
    parser = argparse.ArgumentParser(prog="python -m export.check", description="Score a run's images by a server.")
    parser.add_argument("server", help="host:port of gRPC, or http://host:port of REST")
    parser.add_argument("model", help="its name; with several encoders, without _ROLE")
    parser.add_argument("--run", required=True, type=Path)
    parser.add_argument("--label", default="stable", help="of the version (default: stable)")
    parser.add_argument("--representation", help="that was exported (default: the method's own encoders)")
    return parser.parse_args(argv)


def main(argv=None) -> dict:
    """Returns metric -> (by the server, in metrics.json).

    Raises:
        ConfigError: they differ by more than rounding.
    """
    args = arguments(argv)
    import numpy as np
    from tqdm import tqdm

    from export import saving
    from export.client import Client
    from tf_reid.config import ConfigError
    from tf_reid.evaluation import comparison, extraction, scoring
    from tf_reid.runs import splits

    run = scoring.open_trained(args.run)
    saving.check_finished(run, args.run)
    chosen = saving.chosen(run, args.representation)
    records = run.domains[splits.scored_domain(run.config)]
    trials = splits.fair_trials(run.config, records, run.seen)
    names = saving.names_of(chosen, args.model)

    def embedded(name, indices):
        images = tqdm(records.images[indices], unit="image", desc=name)
        return indices, np.stack(list(Client(args.server, name, label=args.label).embed_bytes(images)))

    found = {}
    for role, parts in extraction.roles(names, records, trials).items():
        found[role] = extraction.filled([embedded(*part) for part in parts if len(part[1])], len(records))
    sides = extraction.query_and_gallery(found)
    compared = comparison.Comparison(*sides, run.config.evaluate.distance, run.config.evaluate.rerank)
    served = comparison.score(compared, records, trials)
    expected = json.loads((args.run / "metrics.json").read_text())[chosen.representation]
    both = {key: (float(served[key]), expected[key]) for key in ("rank1", "rank5", "rank10", "mAP")}
    for key, (ours, theirs) in both.items():
        print(f"{key:7} {ours:8.4f} by the server, {theirs:8.4f} in metrics.json")
    if any(abs(ours - theirs) > 0.05 for ours, theirs in both.values()):
        raise ConfigError(
            f"{args.server} does not embed as {args.run} does; is {args.model} another model, or version?"
        )
    return both


if __name__ == "__main__":
    from tf_reid.command_line import run_command

    run_command(main)
