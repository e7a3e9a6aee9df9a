"""A run's encoders as SavedModels for TF Serving: python -m export --run runs/simpgan --to models"""

import argparse
import os
import shutil
from functools import partial
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def arguments(argv=None):
    parser = argparse.ArgumentParser(prog="python -m export", description="Export a run's encoders for serving.")
    parser.add_argument("--run", required=True, type=Path, help="the folder of a trained run")
    parser.add_argument("--to", required=True, type=Path, metavar="FOLDER", help="where models are served from")
    parser.add_argument("--name", help="of the model (default: the run's folder); with several encoders, NAME_ROLE")
    parser.add_argument(
        "--representation", help="one of metrics.json, such as raw (default: the method's own encoders)"
    )
    parser.add_argument(
        "--gallery", type=Path, metavar="INDEX", help="a gallery that the endpoint `search` compares with"
    )
    parser.add_argument("--top", type=int, default=20, help="matches that `search` answers with (default: 20)")
    parser.add_argument("--images", action="store_true", help="also NAME_images, which makes images as the method does")
    return parser.parse_args(argv)


def main(argv=None) -> dict[str, Path]:
    """Returns model name -> the folder of its new version."""
    args = arguments(argv)
    from export import deployment, proof, saving
    from tf_reid.evaluation import scoring

    run = scoring.open_trained(args.run)
    saving.check_finished(run, args.run)
    chosen = saving.chosen(run, args.representation)
    if args.gallery:
        saving.add_search(chosen, args.gallery, args.top)
    name = args.name or args.run.resolve().name
    # Name of a model -> what saves it into a folder, and what proves it there.
    jobs = {
        model: (partial(saving.write, role=role, chosen=chosen), partial(proof.prove, role=role, chosen=chosen))
        for role, model in saving.names_of(chosen, name).items()
    }
    if args.images:
        maker = saving.maker_of_images(run)
        jobs[f"{name}_images"] = (
            partial(saving.write_images, servable=maker),
            partial(proof.prove_images, servable=maker),
        )
    saving.remove_abandoned(args.to, jobs)
    version = saving.next_version(args.to, jobs)
    beside = {model: args.to / model / f".{version}.{os.getpid()}" for model in jobs}
    found = {model: args.to / model / str(version) for model in jobs}
    try:
        for model, (save, prove) in jobs.items():
            save(beside[model], run=run, run_folder=args.run)
            prove(beside[model], run=run)
        for model, folder in beside.items():
            os.replace(folder, found[model])
    finally:
        for folder in beside.values():
            shutil.rmtree(folder, ignore_errors=True)
    deployment.write(args.to)
    for folder in found.values():
        print(f"Exported: {folder}")
    return found


if __name__ == "__main__":
    from tf_reid.command_line import run_command

    run_command(main)
