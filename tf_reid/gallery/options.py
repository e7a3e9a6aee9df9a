"""The options of the search commands. Loads no TensorFlow."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from tf_reid.command_line import fraction, gpus, positive, program
from tf_reid.gallery import times
from tf_reid.gallery.stores import ADDRESSES

FALSE_ACCEPT_RATE = 0.05  # where none was ever named
OF_IMAGES = "image files and folders; run:gallery or run:FILE: images of the run's data set"


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """What the user asks for."""
    parser = argparse.ArgumentParser(prog=program("tf_reid.search"), description="Search a gallery by images.")
    subcommands = parser.add_subparsers(dest="command", required=True)

    def subcommand(name, description):
        parser = subcommands.add_parser(name, help=description, description=description)
        parser.add_argument("--index", required=True, help=f"the gallery: {ADDRESSES}")
        return parser

    for name, description in (("build", "make a gallery and add images to it"), ("add", "add images to a gallery")):
        adding = subcommand(name, description)
        _add_image_options(adding)
        adding.add_argument(
            "--from",
            dest="files",
            metavar="DIR",
            help="add what python -m tf_reid.search embed wrote; a folder or a URL",
        )
        adding.add_argument(
            "--false-accept-rate",
            type=fraction,
            help="the fraction of queries of unknown identities that may be accepted; it sets the rejection threshold "
            f"(default: the gallery's own, or {FALSE_ACCEPT_RATE})",
        )

    embedding = subcommands.add_parser(
        "embed", help="embed images into Parquet files", description="Embed images into Parquet files."
    )
    embedding.add_argument("--to", required=True, metavar="DIR", help="where the files are written; a folder or a URL")
    _add_image_options(embedding)

    removing = subcommand("remove", "remove images from a gallery")
    removing.add_argument("images", nargs="*", help="image files and folders; run:FILE: an image of the run's data set")
    removing.add_argument("--identity", help="remove all images of this identity")
    removing.add_argument("--until", type=_time, metavar="TIME", help="remove all images up to this time")

    querying = subcommand("query", "find the gallery's images nearest to each query")
    querying.add_argument("images", nargs="+", help=OF_IMAGES)
    _add_encoder_options(querying)
    querying.add_argument("--top", type=positive, default=10, help="matches for each query (default: 10)")
    querying.add_argument("--cameras", nargs="+", default=[], help="search images of these cameras only")
    querying.add_argument(
        "--not-cameras", nargs="+", default=[], help="search no images of these cameras, such as the query's own"
    )
    querying.add_argument(
        "--since",
        type=_time,
        metavar="TIME",
        help="search images from this time on: 2026-11-22T14:05 (UTC), or seconds since 1970",
    )
    querying.add_argument("--until", type=_time, metavar="TIME", help="search images up to this time")
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
    serving.add_argument("--port", type=int, default=8600, help="the port of the page (default: 8600)")
    serving.add_argument(
        "--token",
        default=os.environ.get("TF_REID_TOKEN"),
        help="the token that users enter (default: the variable TF_REID_TOKEN)",
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
    copying.add_argument("target", metavar="TO", help="where the copy is made: an address of the same form")

    subcommand("snapshot", "let a Qdrant server write a gallery into one file")
    return parser.parse_args(argv)


def _add_encoder_options(parser: argparse.ArgumentParser) -> None:
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--run", type=Path, help="a run whose encoder embeds the images (default: the gallery's own)")
    source.add_argument("--model", type=Path, help="a model made by python -m export, whose encoder embeds the images")


def _add_image_options(parser: argparse.ArgumentParser) -> None:
    """Options of a command that embeds a gallery's images."""
    parser.add_argument("images", nargs="*", help=f"{OF_IMAGES}; URLs such as s3://bucket/crops")
    _add_encoder_options(parser)
    parser.add_argument("--pattern", help="a regular expression of paths; its groups person, camera and time are kept")
    parser.add_argument("--csv", help="a table with the columns path, person, camera and time; a path or a URL")
    parser.add_argument("--parquet", help="such a table as a Parquet file or a folder of these")
    parser.add_argument("--distractor", default="0", help="the label of unknown identities, or none (default: 0)")
    parser.add_argument("--junk", default="-1", help="the label of images that are left out, or none (default: -1)")
    parser.add_argument("--batch", type=positive, default=64, help="images embedded at once (default: 64)")
    parser.add_argument(
        "--workers",
        type=positive,
        metavar="N",
        help="embed by N processes (default: by this one; with --ray: as many as the cluster has room for)",
    )
    parser.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="run the workers on a Ray cluster: HOST:PORT of its head, or auto (default: this machine)",
    )
    parser.add_argument(
        "--gpus-per-worker",
        type=gpus,
        default=0.0,
        metavar="F",
        help="GPUs of each worker, such as 1, or 0.5 for two on a GPU (default: 0)",
    )


def _time(text: str) -> float:
    try:
        return times.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
