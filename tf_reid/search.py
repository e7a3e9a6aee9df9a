"""Search a gallery by images:

python -m tf_reid.search build --index galleries/street --run runs/simpgan crops/ --pattern '_c(?P<camera>\\d+)'
python -m tf_reid.search query --index galleries/street crop.jpg --cameras 2 3 --top 5
"""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tf_reid.command_line import fraction, positive, program, run_command
from tf_reid.config import ConfigError
from tf_reid.gallery.stores import ADDRESSES, open_gallery
from tfds_builders.listing import shown

if TYPE_CHECKING:
    from tf_reid.gallery.records import Match

FALSE_ACCEPT_RATE = 0.05  # where none was ever named


def main(argv=None) -> Any:
    """Returns what the subcommand returns, which is what it prints."""
    args = arguments(argv)
    subcommands: dict[str, Callable[[argparse.Namespace], Any]] = {
        "build": build,
        "add": add,
        "remove": remove,
        "query": query,
        "stats": stats,
        "serve": serve,
        "copy": copy,
        "snapshot": snapshot,
    }
    return subcommands[args.command](args)


def arguments(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=program("tf_reid.search"), description="Search a gallery by images.")
    subcommands = parser.add_subparsers(dest="command", required=True)

    def subcommand(name, description):
        parser = subcommands.add_parser(name, help=description, description=description)
        parser.add_argument("--index", required=True, help=f"the gallery: {ADDRESSES}")
        return parser

    of_images = "image files and folders; run:gallery or run:FILE: images of the run's data set"
    for name, description in (("build", "make a gallery and add images to it"), ("add", "add images to a gallery")):
        adding = subcommand(name, description)
        adding.add_argument("images", nargs="*", help=of_images)
        _add_encoder_options(adding)
        adding.add_argument(
            "--pattern", help="a regular expression of paths; its groups person, camera and time are kept"
        )
        adding.add_argument("--csv", type=Path, help="a table with the columns path, person, camera and time")
        adding.add_argument("--distractor", default="0", help="identities that are not known, or none (default: 0)")
        adding.add_argument("--junk", default="-1", help="identities whose images are left out, or none (default: -1)")
        adding.add_argument("--batch", type=positive, default=64, help="images embedded at once (default: 64)")
        adding.add_argument(
            "--false-accept-rate",
            type=fraction,
            help="the fraction of queries of unknown identities that may be accepted; it sets the rejection threshold "
            f"(default: the gallery's own, or {FALSE_ACCEPT_RATE})",
        )

    removing = subcommand("remove", "remove images from a gallery")
    removing.add_argument("images", nargs="*", help="image files and folders; run:FILE: an image of the run's data set")
    removing.add_argument("--identity", help="remove all images of this identity")
    removing.add_argument("--until", type=_time, metavar="TIME", help="remove all images up to this time")

    querying = subcommand("query", "find the gallery's images nearest to each query")
    querying.add_argument("images", nargs="+", help=of_images)
    _add_encoder_options(querying)
    querying.add_argument("--top", type=positive, default=10, help="matches for each query (default: 10)")
    querying.add_argument("--cameras", nargs="+", default=[], help="search images of these cameras only")
    querying.add_argument(
        "--not-cameras", nargs="+", default=[], help="search no images of these cameras, such as the query's own"
    )
    querying.add_argument(
        "--since", type=_time, metavar="TIME", help="such as 2026-11-22T14:05 (UTC), or seconds since 1970"
    )
    querying.add_argument("--until", type=_time, metavar="TIME", help="likewise")
    querying.add_argument("--exact", action="store_true", help="compare with every image, however large the gallery")
    querying.add_argument("--json", action="store_true", help="print JSON")
    querying.add_argument("--page", type=Path, metavar="FILE", help="also draw the matches into an .html or .png file")

    describing = subcommand("stats", "print what the gallery holds")
    describing.add_argument("--json", action="store_true", help="print JSON")

    serving = subcommand("serve", "serve a web page that searches by an image dropped on it")
    _add_encoder_options(serving)
    serving.add_argument(
        "--host", default="127.0.0.1", help="the address to listen on; others than this machine's own need a token"
    )
    serving.add_argument("--port", type=int, default=8600)
    serving.add_argument(
        "--token", default=os.environ.get("TF_REID_TOKEN"), help="what users have to enter (default: TF_REID_TOKEN)"
    )
    serving.add_argument(
        "--allowed-host",
        nargs="+",
        default=[],
        metavar="NAME",
        help="host names that the page answers to (on loopback: besides localhost and the address)",
    )

    copying = subcommands.add_parser("copy", help="copy a gallery to another store, or go on with a copy")
    copying.add_argument("source", metavar="FROM", help=f"the gallery that is copied: {ADDRESSES}")
    copying.add_argument("target", metavar="TO", help="where the copy is made, likewise")

    subcommand("snapshot", "let a Qdrant server write a gallery into one file")
    return parser.parse_args(argv)


def build(args) -> dict[str, Any]:
    """Make a gallery and add images. After an interruption the same command continues."""
    from tf_reid.encoders.loading import load
    from tf_reid.gallery import embedding, known_models

    if not (args.run or args.model):
        raise ConfigError("build needs --run or --model: the encoder that embeds the images.")
    encoder = load(args.run or args.model)
    known_models.remember(encoder.source)
    crops = _named_crops(args, args.run)
    # The gallery is made only now: a mistake in the images' names leaves no empty one behind.
    with open_gallery(args.index, embedding.about(encoder)) as gallery:
        return _embed_and_add(gallery, encoder, crops, args)


def add(args) -> dict[str, Any]:
    """Add images that the gallery does not hold yet. After an interruption the same command continues."""
    from tf_reid.gallery import known_models

    with open_gallery(args.index) as gallery:
        _repair(gallery, erase=True)
        encoder = _encoder_of(gallery, args)
        crops = _named_crops(args, args.run or known_models.known_source_of(gallery))
        return _embed_and_add(gallery, encoder, crops, args)


def _named_crops(args, run):
    from tf_reid.gallery import crops
    from tfds_builders import labels

    marks = labels.meaning(args.distractor, args.junk)
    of_table = crops.crops_of_table(args.csv, marks) if args.csv else []
    return crops.once(of_table + crops.crops_in(args.images, args.pattern, run, marks))


def _embed_and_add(gallery, encoder, crops, args):
    """Embed and add batch by batch, each as a whole; then measure the rejection threshold."""
    from tqdm import tqdm

    from tf_reid.gallery import crops as named_crops
    from tf_reid.gallery import embedding
    from tf_reid.gallery.rejection import calibrate

    contained = gallery.contained([crop.record.path for crop in crops])
    new = list({crop.record.path: crop for crop in crops if crop.record.path not in contained}.values())
    unreadable = {}
    with tqdm(total=len(new), unit="image", disable=not new) as progress:
        for start in range(0, len(new), args.batch):
            batch = new[start : start + args.batch]
            embeddings, errors = embedding.embed(encoder, named_crops.contents(batch), encoder.gallery_role)
            gallery.add([crop.record for number, crop in enumerate(batch) if number not in errors], embeddings)
            unreadable |= {batch[number].record.path: error for number, error in errors.items()}
            progress.update(len(batch))
    gallery.update_index()

    for path, error in unreadable.items():
        print(f"Left out: {shown(path)} {error}.")
    counts = {"added": len(new) - len(unreadable), "contained": len(contained), "images": len(gallery)}
    print(f"Images added to {gallery.place}: {counts['added']}. The gallery holds {counts['images']}.")
    if contained:
        print(f"Already there and left unchanged: {len(contained)} (to describe them anew, remove them first).")

    rate = args.false_accept_rate or (gallery.rejection or {}).get("false_accept_rate", FALSE_ACCEPT_RATE)
    rejection = calibrate(gallery, rate)
    if rejection:
        print(
            f"Rejection threshold: {rejection['threshold']:.4f}, at a false accept rate of {100 * rate:g} %, "
            f"measured on {rejection['queries']} images of known identity."
        )
    return {**counts, "unreadable": unreadable, "rejection": rejection}


def remove(args) -> dict[str, int]:
    """Remove images by their paths, identity or time, also from the index."""
    from tf_reid.gallery import crops
    from tfds_builders import labels

    if not args.images and args.identity is None and args.until is None:
        raise ConfigError("remove needs paths, --identity or --until.")
    paths = crops.kept_paths(args.images)
    with open_gallery(args.index) as gallery:
        removed = gallery.remove(paths, args.identity, args.until)
        if args.identity is not None and labels.normal(args.identity) != args.identity:
            removed += gallery.remove(identity=labels.normal(args.identity))
        gallery.erase()
        if not removed:
            of_identity = "" if args.identity is None else f" of identity {args.identity}"
            raise ConfigError(
                f"Nothing was removed: {gallery.place} holds no such image{of_identity}. Its files keep nothing of "
                "images that were removed before."
            )
        counts = {"removed": removed, "images": len(gallery)}
    print(f"Images removed from {gallery.place}: {removed}. The gallery holds {counts['images']}.")
    return counts


def query(args) -> "list[list[Match]]":
    """Search with each image; print the matches, and draw them where `--page` names a file."""
    from tf_reid.gallery import crops, embedding, known_models, report
    from tf_reid.gallery.cameras import known_cameras
    from tf_reid.gallery.records import Filters

    if args.page and args.page.suffix not in (".html", ".png"):
        raise ConfigError(f"--page {args.page} must end in .html or .png.")
    with open_gallery(args.index) as gallery:
        cameras, not_cameras = known_cameras(gallery, args.cameras, args.not_cameras)
        _repair(gallery)
        encoder, run = _encoder_of(gallery, args), args.run or known_models.known_source_of(gallery)

        # Embed the queries that can be read.
        named = crops.crops_in(args.images, None, run)
        embeddings, errors = embedding.embed(encoder, crops.contents(named), encoder.query_role)
        readable = []
        for number, path in enumerate(crop.record.path for crop in named):
            if number in errors:
                print(f"Left out: {shown(path)} {errors[number]}.", file=sys.stderr)
            else:
                readable.append(path)
        if not readable:
            raise ConfigError("None of these images can be read, so nothing was searched.")

        # Search.
        filters = Filters(cameras, not_cameras, args.since, args.until)
        matches = gallery.search(embeddings, args.top, filters, args.exact)
        results, rejection = dict(zip(readable, matches, strict=True)), gallery.rejection

    # Report.
    print(report.as_json(results) if args.json else report.as_table(results, rejection))
    if args.page:
        report.draw(args.page, results, crops.reader(run), crops.reader(run), rejection)
        print(f"Written: {args.page}", file=sys.stderr)
    return matches


def stats(args) -> dict[str, Any]:
    """Print what the gallery holds."""
    import json

    from tf_reid.gallery import report

    with open_gallery(args.index) as gallery:
        values = gallery.stats()
    print(json.dumps(values, indent=2) if args.json else report.stats_table(values))
    return values


def serve(args) -> None:
    """Serve the web page until Ctrl-C."""
    from tf_reid.gallery import crops, known_models, web_page

    with open_gallery(args.index) as gallery:
        _repair(gallery)
        encoder = _encoder_of(gallery, args)
        read = crops.reader(args.run or known_models.known_source_of(gallery))
        web_page.run(gallery, encoder, read, args.host, args.port, args.token, args.allowed_host)


def copy(args) -> int:
    """Copy a gallery to another store. After an interruption the same command continues."""
    from tqdm import tqdm

    from tf_reid.gallery import copying

    with open_gallery(args.source) as source, open_gallery(args.target, copying.about_of_copy(source)) as target:
        with tqdm(total=len(source), unit="image") as progress:
            images = copying.copy(source, target, progress.update)
        print(f"Images of {source.place} in {target.place}: {images}. Both hold the same.")
    return images


def snapshot(args) -> str:
    """Let a Qdrant server write a gallery into a file, from which it can be restored."""
    with open_gallery(args.index) as gallery:
        if not hasattr(gallery, "snapshot"):
            raise ConfigError(
                f"{gallery.place} is on no Qdrant server, which alone makes snapshots; back up a folder by copying "
                "its files, and a database with pg_dump, or either with python -m tf_reid.search copy."
            )
        name = gallery.snapshot()
    print(f"Snapshot of {gallery.place}: {name}")
    return name


def _repair(gallery, erase=False):
    """Do and print what an earlier command had to leave; a search is right without it, so a failure stops nothing."""
    for step in (gallery.mend_index, gallery.erase) if erase else (gallery.mend_index,):
        try:
            sentence = step()
        except ConfigError as error:
            sentence = str(error)
        if sentence:
            print(shown(sentence), file=sys.stderr)


def _encoder_of(gallery, args):
    """The encoder that the command names, or else the one that built the gallery; it must be the same model."""
    from tf_reid.encoders.loading import load
    from tf_reid.gallery import embedding, known_models
    from tf_reid.gallery.records import check_same_model

    named = args.run or args.model
    encoder = load(named or known_models.source_of(gallery, gallery.place))
    check_same_model(gallery.about, embedding.about(encoder), gallery.place)
    if named:
        known_models.remember(encoder.source)
    return encoder


def _add_encoder_options(parser):
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--run", type=Path, help="a run whose encoder embeds the images (default: the gallery's own)")
    source.add_argument("--model", type=Path, help="a model made by python -m export, whose encoder embeds the images")


def _time(text):
    from tf_reid.gallery import times

    try:
        return times.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


if __name__ == "__main__":
    run_command(main)
