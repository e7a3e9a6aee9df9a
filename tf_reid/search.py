"""A gallery that lasts, searched by images:

python -m tf_reid.search build --index galleries/street --run runs/simpgan crops/ --pattern '_c(?P<camera>\\d+)'
python -m tf_reid.search query --index galleries/street crop.jpg --cameras 2 3 --top 5
"""

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def arguments(argv=None):
    parser = argparse.ArgumentParser(prog="python -m tf_reid.search", description="Search a gallery by images.")
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name, said, *, images=None, model=False):
        found = commands.add_parser(name, help=said, description=said)
        found.add_argument("--index", required=True, help="the gallery: a folder, or qdrant://host:port/collection")
        if images:
            found.add_argument("images", nargs=images, help="files, folders; run:gallery, run:FILE: images of the run")
        if model:
            source = found.add_mutually_exclusive_group()
            source.add_argument("--run", type=Path, help="a run whose encoder embeds (default: what built the gallery)")
            source.add_argument("--model", type=Path, help="a model of python -m export that does")
        return found

    for name, said in (("build", "make a gallery, and add images"), ("add", "add images to a gallery")):
        adding = command(name, said, images="*", model=True)
        adding.add_argument("--pattern", help="regular expression of paths, with groups person, camera, time")
        adding.add_argument("--csv", type=Path, help="a table with columns path, person, camera, time")
        adding.add_argument("--batch", type=int, default=64)
        said = "part of strangers that may be taken for somebody (default: as before, or 0.05)"
        adding.add_argument("--nobody", type=_share, help=said)
    removing = command("remove", "remove images", images="*")
    removing.add_argument("--identity", help="all images of this identity")
    removing.add_argument("--until", metavar="TIME", help="all images up to this time")
    asking = command("query", "find the nearest images", images="+", model=True)
    asking.add_argument("--top", type=int, default=10)
    asking.add_argument("--cameras", nargs="+", default=[], help="only images of these")
    asking.add_argument("--not-cameras", nargs="+", default=[], help="no images of these, such as the query's own")
    asking.add_argument("--since", metavar="TIME", help="such as 2026-11-22T14:05 (UTC), or seconds since 1970")
    asking.add_argument("--until", metavar="TIME")
    asking.add_argument("--exact", action="store_true", help="compare with every image, however many")
    asking.add_argument("--json", action="store_true")
    asking.add_argument("--page", type=Path, metavar="FILE", help="also draw the crops: an .html or a .png file")
    command("stats", "say what the gallery holds").add_argument("--json", action="store_true")
    serving = command("serve", "a web page to drop a crop on", model=True)
    serving.add_argument("--host", default="127.0.0.1", help="others need a token (default: this machine alone)")
    serving.add_argument("--port", type=int, default=8600)
    serving.add_argument("--token", default=os.environ.get("TF_REID_TOKEN"), help="(default: TF_REID_TOKEN)")
    return parser.parse_args(argv)


def main(argv=None):
    args = arguments(argv)
    return {"build": add, "add": add, "remove": remove, "query": query, "stats": stats, "serve": serve}[args.command](
        args
    )


def _share(text):
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} is no part between 0 and 1")
    return value


def open_gallery(place: str, about=None):
    """A folder's gallery, or Qdrant's."""
    if place.startswith(("qdrant://", "qdrants://")):
        from tf_reid.gallery.qdrant_gallery import connected

        return connected(place, about)
    from tf_reid.gallery.faiss_gallery import Gallery

    return Gallery(Path(place), about)


def open_embedder(args, built=None):
    """What embeds, what is named or else what built this gallery; and what a gallery has to know of it."""
    from tf_reid.encoders import encoder

    found = encoder.opened(args.run or args.model or Path(built.about["source"]))
    about = {
        "digest": found.digest,
        "distance": found.distance,
        "width": found.width,
        "source": str(found.source.resolve()),
    }
    return found, about


def add(args):
    """Embed and add what is not there yet. Each batch is whole; after a kill, the same command goes on."""
    from tqdm import tqdm

    from tf_reid.config import ConfigError
    from tf_reid.encoders.encoder import SEARCHED
    from tf_reid.gallery import crops, faiss_gallery

    if args.command == "build" and not (args.run or args.model):
        raise ConfigError("build needs --run or --model: what is to embed the images.")
    into = None if args.command == "build" else open_gallery(args.index)
    embedder, about = open_embedder(args, into)
    asked = crops.crops_of_table(args.csv) if args.csv else []
    asked += crops.crops_in(args.images, args.pattern, args.run or Path(about["source"]))
    if into is None:  # not before: a mistake in what was asked leaves no empty gallery
        into = open_gallery(args.index, about)
    faiss_gallery.check_same_model(into.about, about, args.index)
    there = into.known([crop.record.path for crop in asked])
    fresh = list({crop.record.path: crop for crop in asked if crop.record.path not in there}.values())
    refused = {}
    with tqdm(total=len(fresh), unit="image", disable=not fresh) as bar:
        for start in range(0, len(fresh), args.batch):
            part = fresh[start : start + args.batch]
            found, bad = embedder.embed([crop.read() for crop in part], SEARCHED)
            refused |= {part[number].record.path: said for number, said in bad.items()}
            into.add([crop.record for number, crop in enumerate(part) if number not in bad], found)
            bar.update(len(part))
    into.lay_out()
    for path, said in refused.items():
        print(f"Left out: {path} {said}.")
    known = f"; {len(there)} were there and stay as they are (remove them to have them described anew)" if there else ""
    print(f"{len(fresh) - len(refused)} images added to {args.index}{known}; it holds {len(into)}.")
    rate = args.nobody or (into.about.get("nobody") or {}).get("rate", 0.05)
    calibrated = faiss_gallery.calibrate(into, rate)
    if calibrated:
        said = f"a stranger comes within {calibrated['distance']:.4f} of somebody in {100 * rate:g} % of searches"
        print(f"By {calibrated['asked']} images whose person is known, {said}.")
    return into


def remove(args):
    from tf_reid.config import ConfigError
    from tf_reid.gallery.crops import OF_A_RUN, seconds

    if not args.images and args.identity is None and args.until is None:
        raise ConfigError("remove needs paths, --identity or --until.")
    found = open_gallery(args.index)
    paths = [path if path.startswith(OF_A_RUN) else str(Path(path).resolve()) for path in args.images]
    count = found.remove(paths, args.identity, None if args.until is None else seconds(args.until))
    if not count:
        raise ConfigError(f"Nothing was removed: {args.index} holds no such image.")
    found.lay_out(always=True)  # the index forgets them too
    print(f"{count} images removed from {args.index}; it holds {len(found)}.")
    return count


def query(args):
    """Returns the matches of each image."""
    from tf_reid.config import ConfigError
    from tf_reid.encoders.encoder import SEARCHING
    from tf_reid.files import write_text
    from tf_reid.gallery import crops, faiss_gallery, report
    from tf_reid.pictures import grids

    if args.page and args.page.suffix not in (".html", ".png"):
        raise ConfigError(f"--page {args.page} must end in .html or .png.")
    into = open_gallery(args.index)
    embedder, about = open_embedder(args, into)
    faiss_gallery.check_same_model(into.about, about, args.index)
    run = args.run or Path(into.about["source"])
    asked = crops.crops_in(args.images, None, run)
    contents = {crop.record.path: crop.read() for crop in asked}
    embedded, refused = embedder.embed(list(contents.values()), SEARCHING)
    names = list(contents)
    for number, said in refused.items():
        print(f"Left out: {names[number]} {said}.", file=sys.stderr)
    names = [name for number, name in enumerate(names) if number not in refused]
    since, until = (None if time is None else crops.seconds(time) for time in (args.since, args.until))
    if not names:
        raise ConfigError("None of these images can be read, so nothing was searched.")
    if not len(into):
        raise ConfigError(f"{args.index} holds no image yet; add some with python -m tf_reid.search add.")
    if named := set(args.cameras + args.not_cameras):
        cameras = into.summary()["cameras"]
        if unknown := named - set(cameras):
            there = ", ".join(cameras) or "none that is known"
            raise ConfigError(f"{args.index} has no camera {min(unknown)}, but {there}.")
    filters = faiss_gallery.Filters(tuple(args.cameras), tuple(args.not_cameras), since, until)
    matches = into.search(embedded, args.top, filters, args.exact)
    calibrated = into.about.get("nobody")
    print(report.as_json(names, matches) if args.json else report.as_table(names, matches, calibrated))
    if args.page:
        read = crops.reader(run)
        if args.page.suffix == ".png":
            grids.write_png(args.page, report.as_png(names, matches, contents.get, read))
        else:
            write_text(args.page, report.as_html(names, matches, contents.get, read, calibrated))
        print(f"Written: {args.page}", file=sys.stderr)
    return matches


def stats(args):
    import json

    found = open_gallery(args.index).stats()
    print(json.dumps(found, indent=2) if args.json else "\n".join(f"{key:22}{value}" for key, value in found.items()))
    return found


def serve(args):
    from tf_reid.gallery import crops, faiss_gallery, web_page

    into = open_gallery(args.index)
    embedder, about = open_embedder(args, into)
    faiss_gallery.check_same_model(into.about, about, args.index)
    web_page.run(into, embedder, crops.reader(Path(into.about["source"])), args.host, args.port, args.token)


if __name__ == "__main__":
    from tf_reid.command_line import run_command

    run_command(main)
