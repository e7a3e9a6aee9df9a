"""Which version of an exported model a label names: canary, promotion and rollback.

python -m export.label models                      every model, its versions and labels
python -m export.label models simpgan canary 2     the label is put on this version
"""

import argparse
from pathlib import Path

from export import workspace
from export.deployment import POLL_SECONDS, Served, exported_versions, served_models, set_label
from tf_reid.command_line import program, run_command


def arguments(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=program("export.label"),
        description="Show which versions of exported models are served, or put a label on one of them. "
        "A version is served while a label names it.",
    )
    parser.add_argument("folder", type=Path, help="the folder of exported models")
    parser.add_argument("model", nargs="?", help="the name of a model")
    parser.add_argument("label", nargs="?", help="such as stable or canary")
    parser.add_argument("version", nargs="?", type=int, help="any exported version of the model")
    args = parser.parse_args(argv)
    if args.model is not None and args.version is None:
        parser.error("name a model, a label and a version, or the folder alone")
    return args


def main(argv=None) -> dict[str, Served]:
    """Returns what is served of every model, which it prints."""
    args = arguments(argv)
    served = served_models(args.folder)
    if args.model is not None:
        with workspace.locked(args.folder):
            set_label(args.folder, args.model, args.label, args.version)
        served = served_models(args.folder)
    exported = exported_versions(args.folder)
    for name, (versions, labels) in served.items():
        print(f"{name}: exported {_listed(exported[name])}; served {_listed(versions)}")
        for label, version in sorted(labels.items()):
            print(f"  {label:12}{version}")
    if args.model is not None:
        print(f"A server reads this within {POLL_SECONDS} seconds; it need not be restarted.")
    return served


def _listed(versions):
    return ", ".join(map(str, versions))


if __name__ == "__main__":
    run_command(main)
