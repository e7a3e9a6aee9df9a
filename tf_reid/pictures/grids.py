"""Pictures for people's eyes: grids, rank lists, TensorBoard's Embedding Projector. Images are uint8 RGB."""

from pathlib import Path

import cv2
import numpy as np

from tf_reid.files import write_bytes

INK = (30, 30, 30)
QUERY_FRAME, RIGHT_FRAME, WRONG_FRAME = (70, 100, 170), (20, 150, 60), (205, 40, 40)
FONT, LINE = cv2.FONT_HERSHEY_SIMPLEX, 18  # a line of text is 18 pixels high
GAP, FRAME = 8, 5
TILE_HEIGHT = 160  # smaller images are enlarged to this or somewhat more, by a whole number
SPRITE_SIZE = 8192  # the widest texture the projector's page may load


def grid(rows, column_titles=(), row_titles=(), scale=None):
    """Images in rows and columns with titles, such as input, translated, reconstructed.

    Args:
        rows: uint8 [R, C, H, W, 3], or a list of [n, H, W, 3] whose n may differ.
        column_titles, row_titles: strings, one a column and one a row, or none at all. Line breaks in a row's are kept.
        scale: size of a tile over the size of an image; None enlarges small images by a whole number.

    Returns:
        uint8 [H', W', 3].

    Raises:
        ValueError: images of another type, of different sizes, or a wrong number of titles.
    """
    rows = [_checked(row) for row in rows]
    columns = max((len(row) for row in rows), default=0)
    sizes = {row.shape[1:3] for row in rows}
    if not columns or len(sizes) > 1:
        raise ValueError(f"A grid needs images of one size, not {sorted(sizes) or 'no image'}.")
    for name, titles, count in (("column", column_titles, columns), ("row", row_titles, len(rows))):
        if len(titles) not in (0, count):
            raise ValueError(f"There are {len(titles)} {name} titles for {count} {name}s.")

    height, width = sizes.pop()
    scale = scale or int(np.ceil(TILE_HEIGHT / height))
    height, width = round(height * scale), round(width * scale)
    left = GAP + max((text_width(line) + GAP for title in row_titles for line in title.split("\n")), default=0)
    words = [word for title in column_titles for word in title.split()]
    pitch = max(width, max((text_width(word) for word in words), default=0)) + GAP
    wrapped = [_wrap(title, pitch - GAP) for title in column_titles]
    top = GAP + max((len(lines) for lines in wrapped), default=0) * LINE
    canvas = np.full((top + len(rows) * (height + GAP), left + columns * pitch, 3), 255, np.uint8)
    for column, lines in enumerate(wrapped):
        _write_lines(canvas, lines, left + column * pitch, top - 4 - len(lines) * LINE)
    for row, images in enumerate(rows):
        y = top + row * (height + GAP)
        if len(row_titles):
            lines = row_titles[row].split("\n")
            _write_lines(canvas, lines, GAP, y + (height - LINE * len(lines)) // 2)
        for column, image in enumerate(images):
            x = left + column * pitch
            canvas[y : y + height, x : x + width] = _resize(image, height, width)
    return canvas


def rank_list(query, gallery, order, correct, query_captions=(), gallery_captions=()):
    """One row a query: the query framed in blue, then the gallery images found, right in green, wrong in red.

    Args:
        query: uint8 [Q, H, W, 3]. gallery: uint8 [G, H, W, 3]; its size may differ.
        order: int [Q, K], indices into `gallery`, best first. correct: bool [Q, K].
        query_captions: [Q] strings. gallery_captions: [Q][K] strings, in `order`'s order. Line breaks are
            kept: "identity 12\\ncamera 2\\n0.134" stands in three lines.

    Returns:
        uint8 [H', W', 3].

    Raises:
        ValueError: images of another type, or arrays that do not fit together.
    """
    query, gallery = _checked(query), _checked(gallery)
    order, correct = np.asarray(order), np.asarray(correct, bool)
    if order.ndim != 2 or order.shape != correct.shape or len(order) != len(query) or not order.size:
        raise ValueError(
            f"`order` {list(order.shape)} and `correct` {list(correct.shape)} must both be [Q, K], "
            f"with Q = {len(query)} queries."
        )

    enlarge = int(np.ceil(TILE_HEIGHT / query.shape[1]))
    height, width = query.shape[1] * enlarge, query.shape[2] * enlarge
    captions = [
        [query_captions[row] if len(query_captions) else "query"]
        + [gallery_captions[row][k] if len(gallery_captions) else f"rank {k + 1}" for k in range(order.shape[1])]
        for row in range(len(order))
    ]
    lines = max(caption.count("\n") + 1 for row in captions for caption in row)
    pitch_x = max(width, max(text_width(line) for row in captions for c in row for line in c.split("\n")))
    pitch_x += 2 * FRAME + GAP
    pitch_y = height + 2 * FRAME + lines * LINE + GAP
    apart = 2 * GAP  # sets the query apart from what it found
    canvas = np.full((GAP + len(order) * pitch_y, GAP + apart + (1 + order.shape[1]) * pitch_x, 3), 255, np.uint8)
    for row in range(len(order)):
        tiles = [(query[row], QUERY_FRAME)]
        tiles += [
            (gallery[index], RIGHT_FRAME if right else WRONG_FRAME)
            for index, right in zip(order[row], correct[row], strict=True)
        ]
        for column, (image, colour) in enumerate(tiles):
            x, y = GAP + column * pitch_x + (apart if column else 0), GAP + row * pitch_y
            canvas[y : y + height + 2 * FRAME, x : x + width + 2 * FRAME] = colour
            canvas[y + FRAME : y + FRAME + height, x + FRAME : x + FRAME + width] = _resize(image, height, width)
            _write_lines(canvas, captions[row][column].split("\n"), x, y + height + 2 * FRAME)
    return canvas


def write_png(path, image):
    """Write uint8 [H, W, 3] RGB (or [H, W, 4] RGBA) as a PNG; the file appears whole or not at all."""
    conversion = cv2.COLOR_RGBA2BGRA if image.shape[2] == 4 else cv2.COLOR_RGB2BGR
    _, data = cv2.imencode(".png", cv2.cvtColor(np.ascontiguousarray(image), conversion))
    write_bytes(path, data.tobytes())


def write_projector(log_dir, features, labels, thumbnails, seed=0):
    """Write features for TensorBoard's Embedding Projector: `tensorboard --logdir log_dir`, tab Projector.

    Args:
        log_dir: a folder of its own, made if missing; earlier projector files in it are replaced.
        features: float [N, D].
        labels: dict of column name -> N values (identity, camera, split, ...), to colour and search by.
        thumbnails: uint8 [N, h, w, 3].
        seed: where N thumbnails do not fit one sprite of 8192 × 8192 pixels, decides which of them are shown.

    Returns:
        int, the number of points written.

    Raises:
        ValueError: lengths that differ, or images of another type.
    """
    from google.protobuf import text_format
    from tensorboard.plugins.projector import ProjectorConfig
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    features, thumbnails = np.asarray(features), _checked(thumbnails)
    labels = {name: np.asarray(values) for name, values in labels.items()}
    for name, values in {"thumbnails": thumbnails, **labels}.items():
        if len(values) != len(features):
            raise ValueError(f"There are {len(values)} {name} for {len(features)} features.")

    side = max(thumbnails.shape[1:3])
    most = (SPRITE_SIZE // side) ** 2
    if len(features) > most:
        kept = np.sort(np.random.default_rng(seed).choice(len(features), most, replace=False))
        features, thumbnails = features[kept], thumbnails[kept]
        labels = {name: values[kept] for name, values in labels.items()}

    log_dir = Path(log_dir)
    table = [list(labels), *zip(*(values.tolist() for values in labels.values()), strict=True)]
    if len(labels) == 1:  # the projector takes a single column for values alone, without a header
        table = table[1:]
    write_bytes(log_dir / "features.tsv", _tsv([[f"{value:.6g}" for value in row] for row in features.tolist()]))
    write_bytes(log_dir / "metadata.tsv", _tsv(table))
    write_png(log_dir / "sprite.png", _sprite(thumbnails, side))
    config = ProjectorConfig()
    embedding = config.embeddings.add(tensor_name="features", tensor_path="features.tsv", metadata_path="metadata.tsv")
    embedding.sprite.image_path = "sprite.png"
    embedding.sprite.single_image_dim.extend([side, side])
    write_bytes(log_dir / "projector_config.pbtxt", text_format.MessageToString(config).encode())
    # Below the folder TensorBoard was started on, it only looks into folders that hold an event file.
    if not list(log_dir.glob("events.out.tfevents.*")):
        EventFileWriter(str(log_dir)).close()
    return len(features)


def _sprite(thumbnails, side):
    """All thumbnails on one square RGBA sheet: the projector draws square points, the rest is transparent."""
    count, height, width, _ = thumbnails.shape
    cells = int(np.ceil(np.sqrt(count)))
    sheet = np.zeros((cells * side, cells * side, 4), np.uint8)
    for number, image in enumerate(thumbnails):
        y = number // cells * side + (side - height) // 2
        x = number % cells * side + (side - width) // 2
        sheet[y : y + height, x : x + width] = np.dstack([image, np.full((height, width), 255, np.uint8)])
    return sheet


def _tsv(rows):
    lines = ["\t".join(str(value).replace("\t", " ").replace("\n", " ") for value in row) for row in rows]
    return ("\n".join(lines) + "\n").encode()


def _checked(images):
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise ValueError(f"Images must be uint8 [N, H, W, 3], not {images.dtype} {list(images.shape)}.")
    return images


def _resize(image, height, width):
    """Nearest when enlarged, which shows the true pixels; area when reduced, which shows them all."""
    larger = height >= image.shape[0]
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_NEAREST if larger else cv2.INTER_AREA)


def text_width(text: str) -> int:
    """How many pixels a line of text is wide."""
    return cv2.getTextSize(text, FONT, 0.42, 1)[0][0]


def _wrap(text, width):
    """Broken at spaces into lines of at most `width` pixels (a longer word stays whole)."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and text_width(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _write_lines(canvas, lines, x, y):
    """Lines of text below one another from the corner (x, y)."""
    for number, line in enumerate(lines):
        cv2.putText(canvas, line, (x, y + number * LINE + 14), FONT, 0.42, INK, 1, cv2.LINE_AA)
