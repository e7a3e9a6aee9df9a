"""A run's encoders as SavedModels for TF Serving: python -m export --run runs/simpgan --to models"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from tf_reid.command_line import program
from tfds_builders.listing import shown


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=program("export"), description="Export a run's encoders for serving.")
    parser.add_argument("--run", required=True, type=Path, help="the folder of a finished run")
    parser.add_argument(
        "--to", required=True, type=Path, metavar="FOLDER", help="the folder that models are served from"
    )
    parser.add_argument(
        "--name", help="the model's name (default: that of the run's folder); with several encoders, NAME_ROLE"
    )
    parser.add_argument(
        "--representation", help="one of metrics.json, such as raw (default: the method's own encoders)"
    )
    parser.add_argument(
        "--gallery", type=Path, metavar="FOLDER", help="add the endpoint `search`, which compares with this gallery"
    )
    parser.add_argument("--top", type=int, default=20, help="matches in an answer of `search` (default: 20)")
    parser.add_argument(
        "--images", action="store_true", help="also export NAME_images, which makes images as the method does"
    )
    parser.add_argument(
        "--quantise",
        choices=["int8"],
        help="also export NAME_int8, whose convolutions are int8, unless rank-1 falls by more than half a point",
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> dict[str, Path]:
    """Returns model's name -> the folder of its new version."""
    args = arguments(argv)
    from export.exporting import export_run

    exported = export_run(
        args.run,
        args.to,
        name=args.name,
        representation=args.representation,
        gallery=args.gallery,
        top=args.top,
        images=args.images,
        quantise=args.quantise,
    )
    for folder in exported.values():
        print(f"Exported: {shown(folder)}")
    return exported


if __name__ == "__main__":
    from tf_reid.command_line import run_command

    run_command(main)
