"""Look at a trained run: python -m tf_reid.visualize --run RUN [WHAT ...] [--count N] [--identities ID ...]"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from tf_reid.command_line import program, settings_option


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=program("tf_reid.visualize"),
        description="Draw pages about a trained run: PNG files in RUN/pages, also shown by TensorBoard.",
    )
    parser.add_argument("--run", required=True, metavar="RUN", help="folder of the run")
    parser.add_argument(
        "what",
        nargs="*",
        metavar="WHAT",
        help="pages to draw (default: all that the run has). Every run has: ranks (rank lists), map (features in the "
        "plane), projector (TensorBoard's Embedding Projector), cmc (CMC curves of its last evaluation); attention "
        "where the encoder has maps. By method: "
        "translation (simpgan); swaps, interpolation (dgnet); cross_view, interpolation, prior (crossgan)",
    )
    parser.add_argument("--count", type=int, default=6, metavar="N", help="number of images on a page (default: 6)")
    parser.add_argument(
        "--identities", type=int, nargs="+", default=[], metavar="ID", help="show these identities (default: random)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of random choices (default: 0)")
    parser.add_argument(
        "--plane", choices=["tsne", "pca"], default="tsne", help="how features become points of the map (default: tsne)"
    )
    parser.add_argument(
        "--beside", type=Path, nargs="+", default=[], metavar="RUN", help="other runs, for their curves on the page cmc"
    )
    settings_option(
        parser,
        "other settings: evaluate.*, data.data_dir, data.manual_dir; data.source and data.target, if the images "
        "were moved",
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> list[Path]:
    """Draw the pages; returns their files.

    Raises:
        ConfigError: there is no such run, or it has no page of this name.
        ValueError: an identity that was asked for has no query.
    """
    args = arguments(argv)
    from tf_reid.config import ConfigError

    if args.count < 1:
        raise ConfigError(f"--count {args.count}: a page needs at least one image.")
    import tensorflow as tf
    from tqdm import tqdm

    from tf_reid.evaluation import scoring
    from tf_reid.evaluation.run_pages import Options, RunPages
    from tf_reid.pictures import grids

    folder = Path(args.run)
    run = scoring.open_trained(folder, args.set)
    written = []
    with run.averaged(), tf.summary.create_file_writer(str(folder / "tensorboard")).as_default(step=0):
        draw = RunPages(run, folder, Options(args.count, args.identities, args.seed, args.plane, args.beside)).drawers()
        if unknown := set(args.what) - set(draw):
            raise ConfigError(f"This run has no page {min(unknown)!r}; its pages are: {', '.join(draw)}.")
        for what in tqdm(args.what or list(draw), unit="page"):
            for name, picture in draw[what]().items():
                written.append(folder / "pages" / f"{name}.png")
                grids.write_png(written[-1], picture)
                tf.summary.image(f"pages/{name}", picture[None])
    print("Written:", *written, sep="\n  ")
    return written


if __name__ == "__main__":
    from tf_reid.command_line import run_command

    run_command(main)
