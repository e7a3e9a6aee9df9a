"""Lists the data sets, builds one or says what is wrong with it: python -m tfds_builders [build|doctor NAME ...]"""

from __future__ import annotations

import argparse
import pathlib
import sys

from tfds_builders import DATASETS, KINDS, DatasetError, builder, builder_class, prepare


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns 0, 1 for a data set that cannot be built or is not sound, or 130 for Ctrl-C."""
    options = parse(arguments)
    try:
        if options.command == "build":
            build(options)
        elif options.command == "doctor":
            return doctor(options)
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
    script = pathlib.Path(sys.argv[0]).name
    program = script if script.startswith("tf-reid-") else "python -m tfds_builders"
    parser = argparse.ArgumentParser(prog=program, description="List, build or examine data sets.")
    parser.add_argument("--data-dir", help="where prepared data sets live (default: TFDS's own)")
    commands = parser.add_subparsers(dest="command")
    building = commands.add_parser("build", help="build a data set")
    examining = commands.add_parser("doctor", help="report every problem of a data set's files, and build nothing")
    for command in (building, examining):
        command.add_argument("dataset", help="viper, synthetic_pedestrians/street, folder, ...")
        command.add_argument("--data-dir", default=argparse.SUPPRESS, help="where prepared data sets live")
        command.add_argument("--manual-dir", help="the folder that holds the archive, or its unpacked folder")
        command.add_argument("--root", help="folder: where your images are")
        command.add_argument("--pattern", help="folder: regular expression with groups person and camera")
        command.add_argument("--csv", help="folder: table with the columns path,person,camera")
        command.add_argument("--camera", help="folder: the camera of images whose name or row gives none")
        command.add_argument("--distractor", help="folder: identities that match no query, or none (default: 0)")
        command.add_argument("--junk", help="folder: identities that are left out, or none (default: -1)")
    building.add_argument(
        "--again", action="store_true", help="build the data set anew, in place of the one that is there"
    )
    building.add_argument("--kind", choices=KINDS, default="images", help="what to build (default: images)")
    examining.add_argument("--images", choices=("sample", "all"), default="sample", help="which images to decode")
    return parser.parse_args(arguments)


def spec_of(options: argparse.Namespace) -> dict:
    """Returns what `builder` is asked for."""
    keys = ("root", "pattern", "csv", "camera", "distractor", "junk")
    given = {key: getattr(options, key) for key in keys if getattr(options, key) is not None}
    return {"name": options.dataset} | given


def build(options: argparse.Namespace) -> None:
    built = prepare(
        builder(spec_of(options), kind=options.kind, data_dir=options.data_dir), options.manual_dir, again=options.again
    )
    for split, info in built.info.splits.items():
        print(f"{split}: {info.num_examples}")


def doctor(options: argparse.Namespace) -> int:
    """Prints what the doctor finds, the problems first; returns 0 where the data set is sound and else 1."""
    from tfds_builders.doctor import examine

    diagnosis = examine(
        spec_of(options),
        data_dir=options.data_dir,
        manual_dir=options.manual_dir,
        every_image=options.images == "all",
    )
    found = len(diagnosis.problems)
    print(f"{options.dataset}: " + (f"{found} problem{'s' * (found > 1)}" if found else "sound"))
    for problem in diagnosis.problems:
        print(f"- {problem}")
    for note in diagnosis.notes:
        print(f"  {note}")
    return 1 if found else 0


def print_table(data_dir: str | None) -> None:
    """Prints one line a data set and variant: which kinds are built, what it needs, its terms."""
    rows = [("data set", "built", "needs", "terms")]
    for name in DATASETS:
        cls = builder_class(name)
        if name == "folder":
            rows.append((name, "-", "--root and --pattern, or --csv", cls.TERMS))
            continue
        for spec in cls.specs():
            kinds = {kind: builder(spec, kind=kind, data_dir=data_dir) for kind in KINDS}
            built = ", ".join(kind for kind, one in kinds.items() if one.data_path.exists()) or "no"
            archive = kinds["images"].archive
            needs = f"{archive.files[0]} or {archive.folder}/" if archive else "nothing"
            rows.append((spec, built, needs, archive.terms if archive else cls.TERMS))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


if __name__ == "__main__":
    from tf_reid.command_line import data  # a command may use the commands' frame; the data sets do not

    data()
