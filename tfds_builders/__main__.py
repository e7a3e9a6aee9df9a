"""Lists the data sets and builds one: python -m tfds_builders [build NAME ...]"""

from __future__ import annotations

import argparse
import os
import sys

from tfds_builders import DATASETS, KINDS, DatasetError, builder, builder_class, prepare


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns 0, 1 for a data set that cannot be built or 130 for Ctrl-C."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow's start-up lines would bury ours
    options = parse(arguments)
    try:
        if options.command == "build":
            build(options)
        else:
            print_table(options.data_dir)
    except (DatasetError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; nothing half-built is left behind", file=sys.stderr)
        return 130
    return 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tfds_builders", description="List the data sets, or build one.")
    parser.add_argument("--data-dir", help="where prepared data sets live (default: TFDS's own)")
    command = parser.add_subparsers(dest="command").add_parser("build", help="build a data set")
    command.add_argument("dataset", help="viper, synthetic_pedestrians/street, folder, ...")
    command.add_argument("--data-dir", default=argparse.SUPPRESS, help="where prepared data sets live")
    command.add_argument("--manual-dir", help="the folder that holds the archive, or its unpacked folder")
    command.add_argument("--again", action="store_true", help="build it anew, in place of what is there")
    command.add_argument("--kind", choices=KINDS, default="images")
    command.add_argument("--root", help="folder: where your images are")
    command.add_argument("--pattern", help="folder: regular expression with groups person and camera")
    command.add_argument("--csv", help="folder: table with the columns path,person,camera")
    return parser.parse_args(arguments)


def build(options: argparse.Namespace) -> None:
    spec = {"name": options.dataset}
    spec |= {key: getattr(options, key) for key in ("root", "pattern", "csv") if getattr(options, key) is not None}
    built = prepare(
        builder(spec, kind=options.kind, data_dir=options.data_dir), options.manual_dir, again=options.again
    )
    for split, info in built.info.splits.items():
        print(f"{split}: {info.num_examples}")


def print_table(data_dir: str | None) -> None:
    """Prints one line a data set and variant: which kinds are built, what it needs, its terms."""
    rows = [("data set", "built", "needs", "terms")]
    for name in DATASETS:
        cls = builder_class(name)
        needs = f"{cls.ARCHIVE.files[0]} or {cls.ARCHIVE.folder}/" if cls.ARCHIVE else "nothing"
        terms = cls.ARCHIVE.terms if cls.ARCHIVE else cls.TERMS
        if name == "folder":
            rows.append((name, "-", "--root and --pattern, or --csv", terms))
            continue
        for spec in cls.specs():
            built = [kind for kind in KINDS if builder(spec, kind=kind, data_dir=data_dir).data_path.exists()]
            rows.append((spec, ", ".join(built) or "no", needs, terms))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


if __name__ == "__main__":
    sys.exit(main())
