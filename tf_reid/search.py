"""Search a gallery by images:

python -m tf_reid.search build --index galleries/street --run runs/simpgan crops/ --pattern '_c(?P<camera>\\d+)'
python -m tf_reid.search query --index galleries/street crop.jpg --cameras 2 3 --top 5
"""

import sys
from typing import TYPE_CHECKING, Any

from tf_reid.command_line import run_command
from tf_reid.config import ConfigError
from tf_reid.gallery.options import FALSE_ACCEPT_RATE, arguments
from tfds_builders.listing import shown

if TYPE_CHECKING:
    from tf_reid.gallery.base import Gallery
    from tf_reid.gallery.records import Match


def main(argv=None) -> Any:
    """Returns what the subcommand returns, which is what it prints."""
    args = arguments(argv)
    subcommands = {
        "build": build,
        "add": add,
        "embed": embed,
        "remove": remove,
        "query": query,
        "stats": stats,
        "serve": serve,
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
        check_same_model(gallery.about, files.about, args.index)
        _repair(gallery, erase=True)
        return _finish(gallery, adding.add_files(gallery, files), args)


def _finish(gallery, added, args):
    """Bring the index up to date, measure the rejection threshold, and report."""
    from tf_reid.gallery.rejection import calibrate

    gallery.update_index()
    counts = _report(args.index, added, len(gallery))
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
                f"Nothing was removed: {args.index} holds no such image{of_identity}. Its files keep nothing of images "
                "that were removed before."
            )
        counts = {"removed": removed, "images": len(gallery)}
    print(f"Images removed from {args.index}: {removed}. The gallery holds {counts['images']}.")
    return counts


def query(args) -> "list[list[Match]]":
    """Search with each image; print the matches, and draw them where `--page` names a file."""
    from tf_reid.gallery import crops, embedding, known_models, report
    from tf_reid.gallery.records import Filters

    if args.page and args.page.suffix not in (".html", ".png"):
        raise ConfigError(f"--page {args.page} must end in .html or .png.")
    with open_gallery(args.index) as gallery:
        cameras, not_cameras = _named_cameras(gallery, args)
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


def _named_cameras(gallery, args):
    """The cameras that --cameras and --not-cameras name, as the gallery writes them (01 may be 1).

    Raises:
        ConfigError: the gallery is empty, or has no camera of a name that was given.
    """
    from tfds_builders import labels

    if not len(gallery):
        raise ConfigError(f"{args.index} holds no image yet; add some with python -m tf_reid.search add.")
    known = gallery.summary()["cameras"] if args.cameras or args.not_cameras else []

    def as_known(name):
        return name if name in known else labels.normal(name)

    sides = tuple(map(as_known, args.cameras)), tuple(map(as_known, args.not_cameras))
    if missing := [name for name in args.cameras + args.not_cameras if as_known(name) not in known]:
        raise ConfigError(
            f"{args.index} has no camera {min(missing)}; its cameras are {', '.join(known) or 'not known'}."
        )
    return sides


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


def open_gallery(place: str, about: dict[str, Any] | None = None) -> "Gallery":
    """The gallery in a folder or on a Qdrant server; with `about`, it is made where there is none."""
    if place.startswith(("qdrant://", "qdrants://")):
        from tf_reid.gallery.qdrant_gallery import connect

        return connect(place, about)
    from tf_reid.gallery.faiss_gallery import FaissGallery

    return FaissGallery(place, about)


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
    encoder = load(named or known_models.source_of(gallery, args.index))
    check_same_model(gallery.about, embedding.about(encoder), args.index)
    if named:
        known_models.remember(encoder.source)
    return encoder


if __name__ == "__main__":
    run_command(main)
