"""Look at a run: python -m tf_reid.visualize --run DIR [WHAT ...] [--count N] [--identities ID ...] [--seed N]"""

import argparse
import functools
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

POINTS = 1000  # of the map of features


def arguments(argv=None):
    parser = argparse.ArgumentParser(
        prog="python -m tf_reid.visualize",
        description="Write pages to look at, as PNG files in the run's folder `pages` and for TensorBoard.",
    )
    parser.add_argument("--run", required=True, help="the run's folder")
    parser.add_argument(
        "what",
        nargs="*",
        metavar="WHAT",
        help="ranks, attention (where the encoder looks), map (features in the plane), projector; and, by method, "
        "translation, swaps, interpolation, cross_view, prior. Default: all that the run's method has",
    )
    parser.add_argument("--count", type=int, default=6, help="how many images a page is made of (default: 6)")
    parser.add_argument("--identities", type=int, nargs="+", default=[], metavar="ID", help="whose images are shown")
    parser.add_argument("--seed", type=int, default=0, help="draws the images that are not named (default: 0)")
    parser.add_argument("--plane", choices=["tsne", "pca"], default="tsne", help="how features become a map")
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="key=value", help="override evaluate.* or data.*_dir"
    )
    return parser.parse_args(argv)


def main(argv=None) -> list[Path]:
    """Returns the pages written."""
    args = arguments(argv)
    if args.count < 1:
        raise ValueError(f"--count {args.count}: a page is made of one image or more.")
    import tensorflow as tf
    from tqdm import tqdm

    from tf_reid.evaluation import scoring
    from tf_reid.pictures import grids

    folder = Path(args.run)
    run = scoring.open_trained(folder, args.set)
    written = []
    with run.averaged(), tf.summary.create_file_writer(str(folder / "tensorboard")).as_default(step=0):
        draw = _pages(run, folder, args)
        if unknown := set(args.what) - set(draw):
            raise ValueError(f"This run has no page {min(unknown)!r}; it has {', '.join(draw)}.")
        for what in tqdm(args.what or list(draw), unit="page"):
            for name, picture in draw[what]().items():
                written.append(folder / "pages" / f"{name}.png")
                grids.write_png(written[-1], picture)
                tf.summary.image(f"pages/{name}", picture[None])
    print("Written:", *written, sep="\n  ")
    return written


def _pages(run, folder, args) -> dict:
    """WHAT -> a function that draws: name of the file -> picture."""
    import numpy as np

    from tf_reid.evaluation import extraction, pages, scoring
    from tf_reid.runs import splits

    model, config, size = run.model, run.config, run.config.data.image_size
    scored, source = run.domains[splits.scored_domain(config)], run.seen["source"]
    trial = splits.fair_trials(config, scored, run.seen)[0]
    found = scoring.representations(model, config, scored)

    def chosen(matches):
        return pages.shown(scored, trial, size, args.seed, args.identities, args.count, matches)

    @functools.cache
    def compared(name):
        return scoring.comparison_of(found[name], scored, [trial], config)

    def made(what):
        first, second = chosen(matches="probe" in model.encoders())
        if "target" in run.seen:
            first, second = pages.random_images(source, size, args.seed, len(first.images)), first
        return {what: pages.drawn(model.pages()[what](first, second))}

    def ranks():
        options = size, args.seed, args.identities, args.count
        return {f"ranks_{name}": pages.rank_list(compared(name), scored, trial, *options) for name in found}

    def attention():
        return {"attention": pages.attention(model.maps(), *chosen(matches=True))}

    def feature_map():
        images, of_query = pages.some_images(trial, args.seed, POINTS)
        panels = {"pixels": pages.pixels_in_rows(scored.take(images), size)}
        panels |= {name: pages.features_of(compared(name), images, of_query) for name in found}
        groups, identities = [f"camera {camera}" for camera in scored.camera[images]], scored.identity[images]
        if "target" in run.seen:  # beside the source, which the target is to be like
            beside = source.take(np.random.default_rng(args.seed).permutation(len(source))[: POINTS // 2])
            raw = extraction.extract(found["raw"]["image"], beside, size)
            theirs = dict.fromkeys(panels, raw) | {"pixels": pages.pixels_in_rows(beside, size)}
            panels = {name: np.concatenate([features, theirs[name]]) for name, features in panels.items()}
            groups, identities = groups + ["source"] * len(beside), np.pad(identities, (0, len(beside)))
        return {"map": pages.feature_map(panels, np.array(groups), identities, args.plane, args.seed)}

    def projector():
        for name in found:
            pages.write_projector(folder, name, compared(name), scored, trial, size, args.seed)
        return {}

    draw = {what: functools.partial(made, what) for what in model.pages()}
    draw |= {"ranks": ranks, "attention": attention, "map": feature_map, "projector": projector}
    if not model.maps():
        del draw["attention"]
    return draw


if __name__ == "__main__":
    from tf_reid.command_line import run_command

    run_command(main)
