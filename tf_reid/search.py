"""Search a gallery by images:

python -m tf_reid.search build --index galleries/street --run runs/simpgan crops/ --pattern '_c(?P<camera>\\d+)'
python -m tf_reid.search query --index galleries/street crop.jpg --cameras 2 3 --top 5
"""

import argparse
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tf_reid.command_line import run_command
from tf_reid.config import ConfigError
from tf_reid.gallery.options import FALSE_ACCEPT_RATE, arguments
from tf_reid.gallery.stores import open_gallery
from tfds_builders.listing import shown

if TYPE_CHECKING:
    from tf_reid.gallery.records import Match


def main(argv=None) -> Any:
    """Returns what the subcommand returns, which is what it prints."""
    args = arguments(argv)
    subcommands: dict[str, Callable[[argparse.Namespace], Any]] = {
        "build": build,
        "add": add,
        "embed": embed,
        "remove": remove,
        "query": query,
        "stats": stats,
        "serve": serve,
        "copy": copy,
        "snapshot": snapshot,
    }
    return subcommands[args.command](args)


def build(args) -> dict[str, Any]:
    """Make a gallery and add images. After an interruption the same command continues."""
    from tf_reid.encoders.loading import load
    from tf_reid.gallery import embedding, known_models

    if args.files:
        return _add_files(args, is_new=True)
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

    if args.files:
        return _add_files(args)
    with open_gallery(args.index) as gallery:
        _repair(gallery, erase=True)
        encoder = _encoder_of(gallery, args)
        crops = _named_crops(args, args.run or known_models.known_source_of(gallery))
        return _embed_and_add(gallery, encoder, crops, args)


def embed(args) -> dict[str, Any]:
    """Embed images into Parquet files. After an interruption the same command continues."""
    from tf_reid.encoders.loading import load
    from tf_reid.gallery import adding, embedding
    from tf_reid.gallery.embedding_files import EmbeddingFiles

    if not (args.run or args.model):
        raise ConfigError("embed needs --run or --model: the encoder that embeds the images.")
    encoder = load(args.run or args.model)
    crops = _named_crops(args, args.run)
    with EmbeddingFiles(args.to, embedding.about(encoder)) as files:
        added = adding.add_crops(files, encoder, crops, args.batch, _workers(args))
    return _report(args.to, added, len(files), "Its files hold")


def _named_crops(args, run):
    from tf_reid.gallery import crops
    from tfds_builders import labels

    marks = labels.meaning(args.distractor, args.junk)
    of_tables = crops.crops_of_table(args.csv, marks) if args.csv else []
    if args.parquet:
        of_tables += crops.crops_of_table(args.parquet, marks, is_parquet=True)
    return crops.once(of_tables + crops.crops_in(args.images, args.pattern, run, marks))


def _workers(args):
    """The processes that embed, or None: this one."""
    from tf_reid.encoders.workers import Workers

    if args.workers or args.ray or args.gpus_per_worker:
        return Workers(args.workers, args.ray, args.gpus_per_worker)
    return None


def _embed_and_add(gallery, encoder, crops, args):
    from tf_reid.gallery import adding

    return _finish(gallery, adding.add_crops(gallery, encoder, crops, args.batch, _workers(args)), args)


def _add_files(args, is_new=False):
    """Add what files of embeddings hold. No model is opened."""
    from tf_reid.gallery import adding
    from tf_reid.gallery.embedding_files import EmbeddingFiles
    from tf_reid.gallery.records import check_same_model

    if args.images or args.csv or args.parquet:
        raise ConfigError(f"--from {args.files} names all images that are added; add others by a command of their own.")
    files = EmbeddingFiles(args.files)
    with open_gallery(args.index, files.about if is_new else None) as gallery:
        check_same_model(gallery.about, files.about, gallery.place)
        _repair(gallery, erase=True)
        return _finish(gallery, adding.add_files(gallery, files), args)


def _finish(gallery, added, args):
    """Bring the index up to date, measure the rejection threshold, and report."""
    from tf_reid.gallery.rejection import calibrate

    gallery.update_index()
    counts = _report(gallery.place, added, len(gallery))
    rate = args.false_accept_rate or (gallery.rejection or {}).get("false_accept_rate", FALSE_ACCEPT_RATE)
    rejection = calibrate(gallery, rate)
    if rejection:
        print(
            f"Rejection threshold: {rejection['threshold']:.4f}, at a false accept rate of {100 * rate:g} %, "
            f"measured on {rejection['queries']} images of known identity."
        )
    return {**counts, "rejection": rejection}


def _report(place, added, images, holder="The gallery holds"):
    """Print what was added, and left out, and return it."""
    for path, reason in added.unreadable.items():
        print(f"Left out: {shown(path)} {reason}.")
    print(f"Images added to {shown(place)}: {added.added}. {holder} {images}.")
    if added.contained:
        print(f"Already there and left unchanged: {added.contained} (to describe them anew, remove them first).")
    return {**added._asdict(), "images": images}


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


if __name__ == "__main__":
    run_command(main)
