"""The tables and figures of the papers: python -m benchmarks.tables dgnet-3 --size cpu --seeds 0 1 2

Trains what a table needs, scores it, and writes NAME.md and NAME.csv with the paper's figures beside ours, and NAME.png
for a figure. Tables share runs. Finished runs are not repeated and unfinished ones are resumed, so the same command
completes a table.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.tables import claims, cmgan, crossgan, dgnet, simpgan, strong, view_adaptation
from benchmarks.tables.definitions import Table
from tf_reid.command_line import positive, run_command, settings_option

PAPERS = {
    "SimPGAN": simpgan,
    "DG-Net": dgnet,
    "cmGAN": cmgan,
    "Cross-GAN": crossgan,
    "Cross-Entropy Adversarial View Adaptation": view_adaptation,
    "Bag of Tricks and a Strong Baseline": strong,
    "The papers' claims, tested again": claims,
}
TABLES: dict[str, Table] = {table.name: table for paper in PAPERS.values() for table in paper.TABLES}


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tables", description=__doc__.split("\n")[0])
    parser.add_argument("tables", nargs="*", metavar="TABLE", help="such as dgnet-3; all: every one that a paper has")
    parser.add_argument(
        "--list", action="store_true", help="print what every table shows, and which are left out and why"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the commands that would be run, and stop")
    parser.add_argument(
        "--size",
        choices=["cpu", "full"],
        default="cpu",
        help="cpu (default): small networks on rendered people, nothing to download; full: the papers' own",
    )
    parser.add_argument(
        "--seeds", type=int, nargs="+", action="extend", help="one run each (default: 0; for tables of claims: 0 1 2)"
    )
    parser.add_argument(
        "--trials",
        type=int,
        nargs="+",
        action="extend",
        help="a run for each of these splits of a protocol that has several (default: all)",
    )
    parser.add_argument("--parallel", type=positive, default=1, help="runs at once; they divide CPU cores and GPUs")
    settings_option(parser, "for every run, such as data.manual_dir=ARCHIVES; what a row itself sets stays")
    parser.add_argument("--runs", type=Path, help="folder of the runs and tables (default: runs/tables/SIZE)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = arguments(argv)
    if args.list:
        print(listing())
        return

    from benchmarks.tables import running
    from tf_reid.runs import side_by_side

    tables = chosen(args.tables, args.size)
    root = args.runs or Path("runs/tables") / args.size
    seeds = args.seeds or max((table.seeds for table in tables), key=len)
    side_by_side.check_once("--seeds", seeds, "number")
    side_by_side.check_once("--trials", args.trials or [], "number")
    plan = running.Plan(running.Request(args.size, seeds, root, args.trials, args.set))
    for table in tables:
        plan.add(table)
    running.check(plan.runs.values())
    if args.dry_run:
        for run in plan.runs.values():
            lines = list(running.commands(run))
            print("\n".join(lines) if lines else f"# {run.folder}: finished")
        return

    from benchmarks.tables import output

    workers = side_by_side.Workers(args.parallel, side_by_side.gpus() if args.parallel > 1 else ())
    failures = side_by_side.make_all(plan.runs.values(), args.parallel, workers)
    command = shlex.join(["python", "-m", "benchmarks.tables", *(sys.argv[1:] if argv is None else argv)])
    for table in tables:
        print(output.write(table, plan, command))
        print(f"Written: {root / table.name}.md and .csv")
    if failures:
        sys.exit(f"{len(failures)} of {len(plan.runs)} runs failed; the same command tries them again.")


def chosen(names: Sequence[str], size: str) -> list[Table]:
    """The tables of these names.

    Raises:
        ConfigError: there is no such table, or not of this size.
    """
    from tf_reid.config import ConfigError

    if not names:
        raise ConfigError(f"Name a table, or all; --list describes them: {', '.join(TABLES)}.")
    if "all" in names:
        return [table for table in TABLES.values() if table.of_paper and table.columns(size)]
    for name in names:
        if name not in TABLES:
            raise ConfigError(f"There is no table {name!r}; --list describes them: {', '.join(TABLES)}.")
        if not TABLES[name].columns(size):
            raise ConfigError(f"{name} has no rows at --size {size}; --list says which sizes each table has.")
    return [TABLES[name] for name in names]


def listing() -> str:
    """Every table with what it shows, and what is left out with the reason, paper by paper."""
    lines = []
    for title, paper in PAPERS.items():
        lines += ["", title]
        for table in paper.TABLES:
            sizes = " and ".join(size for size in ("cpu", "full") if table.columns(size))
            ours = "" if table.of_paper else "Not in the paper. "
            lines.append(f"  {table.name} ({sizes}): {ours}{table.shows}")
            lines += [f"    not yet possible: {row.title}. {row.missing}" for row in table.rows if row.missing]
        lines += [f"  {out.name}, left out: {out.shows} {out.why}" for out in paper.LEFT_OUT]
    return "\n".join(lines[1:])


if __name__ == "__main__":
    run_command(main)
