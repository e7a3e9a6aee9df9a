"""Frames as programs hold them: sound ones however they lie in memory, and arrays that are no uint8 RGB image."""

import numpy as np

from benchmarks.attack import images
from benchmarks.attack.cases import ANSWER, EITHER, REFUSE, Case, choose


def case(rng: np.random.Generator) -> Case:
    """One frame for `export.client`'s `embed_frames`."""
    name = choose(rng, ("rgb", "grey", "few"))
    picture = images.pictures()[name]
    if rng.random() < 0.3:
        kind = choose(rng, list(SOUND))
        return Case(f"sound: {kind}", SOUND[kind](picture), ANSWER, name)
    kind = choose(rng, list(ODD))
    frame, demand = ODD[kind]
    return Case(kind, frame(rng, picture), demand)


def _read_only(picture):
    copy = picture.copy()
    copy.flags.writeable = False
    return copy


SOUND = {
    "as it is": lambda p: p,
    "in Fortran's order": np.asfortranarray,
    "a view with gaps": lambda p: np.repeat(np.repeat(p, 2, 0), 2, 1)[::2, ::2],
    "a crop": lambda p: np.pad(p, ((5, 5), (5, 5), (0, 0)))[5:-5, 5:-5],
    "turned round twice": lambda p: np.ascontiguousarray(p[::-1, :, ::-1])[::-1, :, ::-1],
    "read only": _read_only,
}
ODD = {
    "RGBA": (lambda rng, p: np.dstack([p, p[..., :1]]), REFUSE),
    "grey [H, W]": (lambda rng, p: p[..., 0], REFUSE),
    "grey [H, W, 1]": (lambda rng, p: p[..., :1], REFUSE),
    "two channels": (lambda rng, p: p[..., :2], REFUSE),
    "channels first": (lambda rng, p: p.transpose(2, 0, 1), REFUSE),
    "a batch": (lambda rng, p: p[None], REFUSE),
    "[0, 1]": (lambda rng, p: (p / 255).astype(choose(rng, (np.float32, np.float64, np.float16))), REFUSE),
    "float [0, 255]": (lambda rng, p: p.astype(np.float32), REFUSE),
    "NaN": (lambda rng, p: np.full(p.shape, np.nan), REFUSE),
    "int64": (lambda rng, p: p.astype(np.int64) - 5, REFUSE),
    "uint16": (lambda rng, p: p.astype(np.uint16) * 257, REFUSE),
    "bool": (lambda rng, p: p > 100, REFUSE),
    "complex": (lambda rng, p: p + 1j, REFUSE),
    "texts": (lambda rng, p: p.astype(str), REFUSE),
    "objects": (lambda rng, p: p.astype(object), REFUSE),
    "empty": (lambda rng, p: p[: choose(rng, (0, 5)), :0], REFUSE),
    "no dimension": (lambda rng, p: np.uint8(5), REFUSE),
    "None": (lambda rng, p: None, REFUSE),
    "a path": (lambda rng, p: "image.png", REFUSE),
    "bytes": (lambda rng, p: images.plain("rgb"), REFUSE),
    "a list": (lambda rng, p: p.tolist(), EITHER),
    "36 megapixels": (lambda rng, p: np.broadcast_to(p[:1, :1], (6000, 6000, 3)), REFUSE),
    "one row of 70,000": (lambda rng, p: np.zeros((1, 70_000, 3), np.uint8), EITHER),
    "one pixel": (lambda rng, p: p[:1, :1], EITHER),
}
