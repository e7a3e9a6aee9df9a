"""Try a grid of settings: python -m tf_reid.tune --config identity --over method.dropout=0,0.5 --set data.validation=30

Every choice is trained, for every seed, and scored on validation identities alone. The same command completes a grid
that was stopped.
"""

import argparse
import contextlib
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tf_reid import config as configuration
from tf_reid.command_line import positive, program, settings_option


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=program("tf_reid.tune"), description="Try a grid of settings, and choose by validation identities alone."
    )
    parser.add_argument("--config", required=True, help="a configuration, as for tf_reid.train")
    parser.add_argument(
        "--over",
        action="append",
        required=True,
        metavar="key=value,value",
        help="a setting and the values to try, as in a YAML list; with several --over, all combinations are tried",
    )
    parser.add_argument(
        "--seeds", type=int, nargs="+", action="extend", help="train with each of these seeds (default: 0)"
    )
    settings_option(parser, "settings of every training")
    parser.add_argument(
        "--side-by-side", type=positive, default=1, metavar="N", help="trainings at a time; they divide cores and GPUs"
    )
    parser.add_argument(
        "--metric", choices=["mAP", "rank1"], default="mAP", help="the score that decides (default: mAP)"
    )
    parser.add_argument(
        "--representation",
        default="raw",
        help="the one whose score decides, such as translated of simpgan (default: raw)",
    )
    parser.add_argument("--to", type=Path, help="folder of the runs and tables (default: runs/tune_NAME-OF-THE-CONFIG)")
    parser.add_argument("--dry-run", action="store_true", help="print the commands that would be run, and stop")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command.

    Raises:
        ConfigError: a setting or --representation is wrong, no identity is held out, or a folder holds another run.
    """
    args = arguments(argv)

    from tf_reid.files import write_text
    from tf_reid.methods import METHODS
    from tf_reid.runs import run_folder, side_by_side, tuning, validation

    stem = configuration.find(args.config).stem
    root = args.to or Path("runs") / f"tune_{stem}"
    overs = [tuning.Over.read(text) for text in args.over]
    cells = tuning.cells(args.config, overs, args.seeds or [0], args.set, root, args.representation)
    configs = [configuration.load(args.config, cell.settings, METHODS) for cell in cells]
    for cell, config in zip(cells, configs, strict=True):
        validation.check_settings(config)
        run_folder.check_scored_alike(cell.folder, config, "--to")
    if args.dry_run:
        for cell in cells:
            print(f"# {cell.folder}: finished" if cell.is_trained() else shlex.join(cell.training()))
        return

    _check_that_identities_are_held_out(configs[0])
    workers = side_by_side.Workers(args.side_by_side, side_by_side.gpus() if args.side_by_side > 1 else ())
    with _live(lambda: _table(cells)):
        failures = side_by_side.make_all(cells, args.side_by_side, workers)

    lines = tuning.lines(cells)
    again = shlex.join(["python", "-m", "tf_reid.tune", *(sys.argv[1:] if argv is None else argv)])
    head = f"`{again}`\n\nScored on validation identities: `{args.representation}`, mean ± spread over the seeds."
    parts = [head, tuning.markdown(lines, args.metric)]
    if chosen := tuning.best(lines, args.metric):
        of_choice = configuration.load(args.config, [*args.set, *chosen.choice], METHODS)
        run = Path("runs") / f"{stem}_chosen"
        final = tuning.final_command(args.config, of_choice, [*args.set, *chosen.choice], run)
        complete = sum(line.is_complete for line in lines)
        of_choices = f"of {complete} of {len(lines)} choices"
        of_choices += "; the others are not finished" if complete < len(lines) else ""
        parts += [f"Chosen by {args.metric}: `{tuning.set_line(chosen.choice)}`, {of_choices}."]
        parts += [f"To train it:\n\n    {final}"]
    text = "\n\n".join(parts) + "\n"
    write_text(root / "tune.md", text)
    write_text(root / "tune.csv", tuning.comma_separated(lines))
    print(text)
    print(f"Written: {root / 'tune.md'} and .csv")
    if failures:
        sys.exit(f"{len(failures)} of {len(cells)} trainings failed; the same command tries them again.")


def _check_that_identities_are_held_out(config: configuration.Config) -> None:
    """Refuse a grid without them before anything is trained; it also builds the data set, once for all trainings."""
    import tensorflow as tf

    from tf_reid.runs import splits, validation

    with contextlib.suppress(RuntimeError):
        tf.config.set_visible_devices([], "GPU")  # their memory is the trainings'
    validation.records(config, splits.load_data(config))


def _live(table: Callable[[], Any]) -> contextlib.AbstractContextManager[Any]:
    """In this context a table is shown at the end of the terminal, anew every second."""
    from rich.live import Live

    if not sys.stdout.isatty():
        return contextlib.nullcontext()
    return Live(get_renderable=table, refresh_per_second=1)


def _table(cells: Sequence[Any]) -> Any:
    """How far every training is."""
    from rich.table import Table
    from rich.text import Text

    table = Table("choice", "seed", "state")
    for cell in cells:
        table.add_row(Text(" ".join(cell.choice)), str(cell.seed), cell.progress())  # Text: brackets are no markup
    return table


if __name__ == "__main__":
    from tf_reid.command_line import run_command

    run_command(main)
