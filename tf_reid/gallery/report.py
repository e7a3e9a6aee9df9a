"""What a search found, for people and for programs: a table, JSON, a page of ranked crops as HTML or PNG."""

import base64
import datetime
import html
import json

import cv2
import numpy as np

from tf_reid.pictures import grids

SHOWN_HEIGHT = 128


def line_of(match, rank) -> dict:
    """A match as plain values."""
    return {"rank": rank, "distance": match.distance, "within": match.within, **match.record._asdict()}


def as_json(queries, found) -> str:
    answers = [
        {"query": path, "nobody": nobody(matches), "matches": [line_of(m, rank) for rank, m in enumerate(matches, 1)]}
        for path, matches in zip(queries, found, strict=True)
    ]
    return json.dumps(answers, indent=2)


def nobody(matches) -> bool | None:
    """Whether even the nearest image is farther than a stranger's; None where that was not calibrated."""
    if not matches:
        return True
    return None if matches[0].within is None else not matches[0].within


def as_table(queries, found, calibrated) -> str:
    lines = []
    for path, matches in zip(queries, found, strict=True):
        said = ""
        if nobody(matches):
            said = "  nobody" + (f" within {calibrated['distance']:.3f}" if calibrated and matches else "")
        lines.append(f"{path}{said}")
        lines += [
            f"  {rank:3d}  {m.distance:8.4f}  identity {m.record.identity or '?':>6}  "
            f"camera {m.record.camera or '?':>4}  {when(m.record.time):16}  {m.record.path}"
            for rank, m in enumerate(matches, 1)
        ]
    return "\n".join(lines)


def when(time) -> str:
    """Seconds since 1970 as people read them, UTC."""
    return "" if time is None else f"{datetime.datetime.fromtimestamp(time, datetime.timezone.utc):%Y-%m-%d %H:%M}"


def as_png(queries, found, read_query, read) -> np.ndarray:
    """uint8 [H, W, 3]; framed green where within the calibrated distance, else red."""
    most = max(map(len, found), default=0)
    if not most:
        raise ValueError("Nothing was found, so there is nothing to draw.")
    tiles, order, right, captions = [], [], [], []
    for matches in found:
        order.append([len(tiles) + k for k in range(most)])
        tiles += [_pixels(read(m.record.path)) for m in matches] + [_pixels(None)] * (most - len(matches))
        right.append([m.within is not False for m in matches] + [False] * (most - len(matches)))
        captions.append([_caption(m, rank, "\n") for rank, m in enumerate(matches, 1)] + [""] * (most - len(matches)))
    query = np.stack([_pixels(read_query(path)) for path in queries])
    titles = [path.rsplit("/", 1)[-1][-24:] for path in queries]
    return grids.rank_list(query, np.stack(tiles), np.array(order), np.array(right), titles, captions)


def as_html(queries, found, read_query, read, calibrated) -> str:
    """One file that holds its pictures."""
    rows = []
    for path, matches in zip(queries, found, strict=True):
        tiles = "".join(
            _tile(read(m.record.path), _caption(m, rank, "<br>"), m.within) for rank, m in enumerate(matches, 1)
        )
        said = " · <b>nobody</b>" if nobody(matches) else ""
        name = html.escape(path)
        rows.append(f'<h2>{name}{said}</h2><div class="row">{_tile(read_query(path), "query", "query")}{tiles}</div>')
    about = "Framed green: nearer than strangers come" if calibrated else "No distance is calibrated"
    if calibrated:
        share = f"{100 * calibrated['rate']:g} %"
        about += f" ({calibrated['distance']:.3f}; {share} of strangers come nearer to somebody); grey: farther."
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Ranked crops</title><style>{STYLE}</style>
<h1>Ranked crops</h1><p>Nearest first. {about}</p>
{"".join(rows)}</html>
"""


STYLE = """
body{font:14px system-ui,sans-serif;margin:24px;color:#222}
h2{font-size:15px;margin:20px 0 6px}
.row{display:flex;flex-wrap:wrap;gap:10px}
figure{margin:0;width:96px;font-size:11px;overflow-wrap:anywhere}
figure img,figure .none{height:128px;max-width:96px;border:4px solid #bbb;display:block}
figure .none{width:56px;background:#eee}
figure.yes img{border-color:#2a9d3a} figure.query img{border-color:#2f6fdb}
"""


def thumbnail(content: bytes | None) -> str | None:
    """A JPEG of bounded size as a data URI; None where there is no image to show."""
    image = _decoded(content)
    if image is None:
        return None
    width = max(1, round(image.shape[1] * SHOWN_HEIGHT / image.shape[0]))
    small = cv2.resize(image, (min(width, 4 * SHOWN_HEIGHT), SHOWN_HEIGHT), interpolation=cv2.INTER_AREA)
    return "data:image/jpeg;base64," + base64.b64encode(cv2.imencode(".jpg", small)[1].tobytes()).decode()


def _decoded(content):
    """uint8 [H, W, 3], BGR, or None where there is no image to show."""
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR) if content else None


def _tile(content, caption, kind):
    source = thumbnail(content)
    shown = f'<img src="{source}" alt="">' if source else '<div class="none"></div>'
    marked = {True: "yes", "query": "query"}.get(kind, "no")
    return f'<figure class="{marked}">{shown}<figcaption>{caption}</figcaption></figure>'


def _caption(match, rank, between):
    record = match.record
    said = [f"{rank}: {match.distance:.3f}", f"person {record.identity or '?'}", f"camera {record.camera or '?'}"]
    said += [when(record.time)] if record.time is not None else []
    return between.join(html.escape(part) if between == "<br>" else part for part in said)


def _pixels(content):
    image = _decoded(content)
    if image is None:
        return np.full((SHOWN_HEIGHT, SHOWN_HEIGHT // 2, 3), 230, np.uint8)
    return cv2.resize(image, (SHOWN_HEIGHT // 2, SHOWN_HEIGHT), interpolation=cv2.INTER_AREA)[..., ::-1]
