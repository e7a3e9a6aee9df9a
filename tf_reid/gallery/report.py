"""The matches of queries for people and for programs: a table, JSON, and pages of ranked images as HTML or PNG.

`results` is everywhere a dict: a query's path -> its matches, nearest first.
"""

import base64
import html
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from tf_reid.files import write_text
from tf_reid.gallery import times
from tf_reid.gallery.records import Match
from tf_reid.pictures import grids
from tfds_builders import images
from tfds_builders.listing import shown

Results = Mapping[str, Sequence[Match]]
Read = Callable[[str], bytes | None]  # a path -> the image's bytes, None where it is no longer there
SHOWN_HEIGHT = 128
GREY = 230


def as_dict(match: Match, rank: int) -> dict[str, Any]:
    """A match as plain values."""
    return {"rank": rank, "distance": match.distance, "accepted": match.accepted, **match.record._asdict()}


def is_unknown(matches: Sequence[Match]) -> bool | None:
    """Whether even the nearest image is beyond the rejection threshold; None where there is no threshold."""
    if not matches:
        return True
    return None if matches[0].accepted is None else not matches[0].accepted


def as_json(results: Results) -> str:
    """[{"query", "unknown", "matches": [{"rank", "distance", "accepted", "path", "identity", "camera", "time"}]}]"""
    answers = []
    for query, matches in results.items():
        rows = [as_dict(match, rank) for rank, match in enumerate(matches, 1)]
        answers.append({"query": query, "unknown": is_unknown(matches), "matches": rows})
    return json.dumps(answers, indent=2)


def as_table(results: Results, rejection: Mapping[str, Any] | None) -> str:
    """A line for each query and each of its matches."""
    lines = []
    for query, matches in results.items():
        lines.append(shown(query))
        if not matches:
            lines[-1] += "  no image passes the filters"
        elif is_unknown(matches) and rejection:
            lines[-1] += f"  unknown: no image is within the rejection threshold {rejection['threshold']:.3f}"
        for rank, match in enumerate(matches, 1):
            path, identity, camera = (shown(text or "?") for text in match.record[:3])
            lines.append(
                f"  {rank:3d}  {match.distance:8.4f}  identity {identity:>6}  camera {camera:>4}  "
                f"{times.shown(match.record.time):16}  {path}"
            )
    return "\n".join(lines)


def stats_table(stats: Mapping[str, Any]) -> str:
    """What a gallery holds, a value a line."""
    values = dict(stats)
    rejection = values.pop("rejection")
    for key in ("since", "until"):
        if key in values:
            values[key] = times.shown(values[key]) or "no time is known"
    if rejection:
        values["rejection threshold"] = f"{rejection['threshold']:.4f}"
        values["false accept rate"] = f"{100 * rejection['false_accept_rate']:g} %"
    return "\n".join(f"{key.replace('_', ' '):22}{shown(str(value))}" for key, value in values.items())


def draw(path: Path, results: Results, read_query: Read, read: Read, rejection: Mapping[str, Any] | None) -> None:
    """Write the page of ranked images, as its name ends: .png, or .html, which holds its pictures."""
    if path.suffix == ".png":
        grids.write_png(path, as_png(results, read_query, read))
    else:
        write_text(path, as_html(results, read_query, read, rejection))


def as_png(results: Results, read_query: Read, read: Read) -> np.ndarray:
    """uint8 [H, W, 3]; framed green where within the rejection threshold, or where there is none, else red.

    Raises:
        ValueError: no query has a match.
    """
    columns = max((len(matches) for matches in results.values()), default=0)
    if not columns:
        raise ValueError("No query has a match, so there is nothing to draw.")
    tiles, accepted, captions = [], [], []
    for matches in results.values():
        empty = columns - len(matches)
        tiles += [_pixels(read(match.record.path)) for match in matches] + [_pixels(None)] * empty
        accepted.append([match.accepted is not False for match in matches] + [False] * empty)
        captions.append(["\n".join(_caption(match, rank)) for rank, match in enumerate(matches, 1)] + [""] * empty)
    order = np.arange(len(tiles)).reshape(len(results), columns)
    queries = np.stack([_pixels(read_query(path)) for path in results])
    titles = [shown(path.rsplit("/", 1)[-1])[-24:] for path in results]
    return grids.rank_list(queries, np.stack(tiles), order, np.array(accepted), titles, captions)


def as_html(results: Results, read_query: Read, read: Read, rejection: Mapping[str, Any] | None) -> str:
    """One file that holds its pictures."""
    rows = []
    for query, matches in results.items():
        tiles = [_tile(read_query(query), ["query"], "query")]
        for rank, match in enumerate(matches, 1):
            frame = "accepted" if match.accepted else "rejected"
            tiles.append(_tile(read(match.record.path), _caption(match, rank), frame))
        marked = " · <b>unknown</b>" if is_unknown(matches) else ""
        rows.append(f'<h2>{html.escape(shown(query))}{marked}</h2><div class="row">{"".join(tiles)}</div>')
    if rejection:
        legend = (
            f"Framed green: within the rejection threshold {rejection['threshold']:.3f} "
            f"(false accept rate {100 * rejection['false_accept_rate']:g} %); grey: beyond it."
        )
    else:
        legend = "This gallery has no rejection threshold."
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Ranked images</title><style>{STYLE}</style>
<h1>Ranked images</h1><p>Nearest first. {legend}</p>
{"".join(rows)}</html>
"""


STYLE = """
body{font:14px system-ui,sans-serif;margin:24px;color:#222}
h2{font-size:15px;margin:20px 0 6px}
.row{display:flex;flex-wrap:wrap;gap:10px}
figure{margin:0;width:96px;font-size:11px;overflow-wrap:anywhere}
figure img,figure .none{height:128px;max-width:96px;border:4px solid #bbb;display:block}
figure .none{width:56px;background:#eee}
figure.accepted img{border-color:#2a9d3a} figure.query img{border-color:#2f6fdb}
"""


def thumbnail(content: bytes | None) -> str | None:
    """A JPEG of bounded size as a data URI; None where there is no image to show."""
    image = _decoded(content)
    if image is None:
        return None
    width = max(1, round(image.shape[1] * SHOWN_HEIGHT / image.shape[0]))
    small = cv2.resize(image, (min(width, 4 * SHOWN_HEIGHT), SHOWN_HEIGHT), interpolation=cv2.INTER_AREA)
    return "data:image/jpeg;base64," + base64.b64encode(cv2.imencode(".jpg", small[..., ::-1])[1].tobytes()).decode()


def _decoded(content):
    """uint8 [H, W, 3] in RGB, or None where there is no image to show."""
    try:
        return images.pixels(content) if content else None
    except ValueError:  # the file was replaced since by one that is no sound image
        return None


def _pixels(content):
    image = _decoded(content)
    if image is None:
        return np.full((SHOWN_HEIGHT, SHOWN_HEIGHT // 2, 3), GREY, np.uint8)
    return cv2.resize(image, (SHOWN_HEIGHT // 2, SHOWN_HEIGHT), interpolation=cv2.INTER_AREA)


def _tile(content, caption, frame):
    source = thumbnail(content)
    picture = f'<img src="{source}" alt="">' if source else '<div class="none"></div>'
    text = "<br>".join(html.escape(line) for line in caption)
    return f'<figure class="{frame}">{picture}<figcaption>{text}</figcaption></figure>'


def _caption(match, rank):
    """Lines of text."""
    _, identity, camera, time = match.record
    lines = [f"{rank}: {match.distance:.3f}", f"identity {shown(identity or '?')}"]
    lines.append(f"camera {shown(camera or '?')}")
    return [*lines, times.shown(time)] if time is not None else lines
