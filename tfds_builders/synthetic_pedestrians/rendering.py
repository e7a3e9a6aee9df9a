"""Draws synthetic pedestrians: `render(domain, person, camera, shot)` is a pure function to a small picture.

People, their clothes, cameras and scenes are all made up by seeded random numbers; no photograph is involved.
"""

import cv2
import numpy as np

from tfds_builders.synthetic_pedestrians.bodies import Pose, body_parts
from tfds_builders.synthetic_pedestrians.cameras import DOMAINS, Camera, Domain, photograph
from tfds_builders.synthetic_pedestrians.drawing import View, draw_parts
from tfds_builders.synthetic_pedestrians.people import appearance, lookalikes, numbers
from tfds_builders.synthetic_pedestrians.scenes import HEIGHT, WIDTH, scene

__all__ = ["DOMAINS", "SHAPE", "Domain", "appearance", "lookalikes", "render"]

SHAPE = (128, 64, 3)
_FINE = 3  # drawn at this many times the size, then averaged down
_ROWS, _COLUMNS = SHAPE[0] * _FINE, SHAPE[1] * _FINE
_PASSERS = 10**6  # passers-by are people of the same population whose numbers start here


def render(domain: str, person: int, camera: int, shot: int, seed: int = 0) -> np.ndarray:
    """One shot of one person by one camera.

    Args:
        domain: a key of `DOMAINS`.
        person: any number >= 0; the same number in two domains of one population is the same person.
        camera: one of `DOMAINS[domain].cameras`.
        shot: any number >= 0; pose, box and background change with it.
        seed: any number >= 0; another seed gives other people and shots.

    Returns:
        uint8 [128, 64, 3] RGB; of an infrared domain with three equal channels.

    Raises:
        ValueError: for a domain, camera or number that does not exist.
    """
    if domain not in DOMAINS:
        raise ValueError(f"unknown domain {domain!r}; choose one of {', '.join(DOMAINS)}")
    place = DOMAINS[domain]
    if camera not in place.cameras:
        raise ValueError(f"domain {domain!r} has no camera {camera!r}; choose one of {place.cameras}")
    if min(person, shot, seed) < 0:
        raise ValueError(f"person, shot and seed must be >= 0, got {person}, {shot} and {seed}")
    view = place.views[place.cameras.index(camera)]
    rng = np.random.default_rng(numbers(seed, domain, camera, person, shot))
    picture = _draw(place, view, person, seed, rng)
    small = cv2.resize(picture, (SHAPE[1], SHAPE[0]), interpolation=cv2.INTER_AREA)
    return photograph(small, view, place.modality, rng)


def _draw(place: Domain, camera: Camera, person: int, seed: int, rng: np.random.Generator) -> np.ndarray:
    """The scene with the person in it before the camera's own doing: float32 [384, 192, 3]."""
    top, left = rng.integers(0, HEIGHT - _ROWS), rng.integers(0, WIDTH - _COLUMNS)
    window = scene(camera.scene, seed)[top : top + _ROWS, left : left + _COLUMNS]
    canvas = window.astype(np.float32) * np.float32(camera.background * rng.uniform(0.85, 1.1) / 255)

    who = appearance(place.population, person, seed)
    pose = _pose(camera, rng)
    scale = _ROWS * 0.86 / (who.height * np.cos(camera.pitch) + 0.12) * np.exp(rng.normal(0, camera.jitter))
    column = _COLUMNS * (0.5 + rng.normal(0, camera.jitter))
    row = _ROWS * (0.945 + rng.normal(0, camera.jitter * 0.7))
    ahead = View(camera.pitch, float(scale), float(column), float(row), camera.light, camera.ambient)

    passer = rng.random() < camera.passers
    stranger = _PASSERS + int(rng.integers(1000))
    aside = View(
        camera.pitch,
        float(scale * rng.uniform(0.75, 0.95)),
        float(column + rng.choice([-1, 1]) * rng.uniform(55, 110)),
        float(row - rng.uniform(20, 60)),
        camera.light,
        camera.ambient,
    )
    if passer:
        _stand(canvas, appearance(place.population, stranger, seed), _pose(camera, rng), aside, place.modality)
    _stand(canvas, who, pose, ahead, place.modality)
    if rng.random() < camera.occluders:
        _occlude(canvas, rng)
    return canvas


def _pose(camera: Camera, rng: np.random.Generator) -> Pose:
    back = np.pi if rng.random() < 0.2 else 0.0  # some walk the other way
    standing = rng.random() < 0.2
    return Pose(
        yaw=float(camera.heading + back + rng.normal(0, camera.turn)),
        phase=float(rng.uniform(0, 2 * np.pi)),
        stride=float(rng.uniform(0.02, 0.08) if standing else rng.uniform(0.25, 0.5)),
        elbow=float(rng.uniform(0.1, 0.6)),
        spread=float(rng.uniform(0.06, 0.2)),
        raised=int(rng.choice([0, 0, 0, 0, 1, -1])),
    )


def _stand(canvas, who, pose: Pose, view: View, modality: str) -> None:
    """Draws one person and the soft shadow under the feet."""
    flat, lean = 10 + 60 * np.sin(view.pitch), -view.light[0] * 30
    first = max(int(view.row - 2.5 * flat), 0)
    dx = (np.arange(canvas.shape[1], dtype=np.float32) - np.float32(view.column + lean)) / np.float32(45 + abs(lean))
    dy = (np.arange(first, canvas.shape[0], dtype=np.float32) - np.float32(view.row - 4)) / np.float32(flat)
    shadow = np.float32((1 - view.ambient) * 0.75) * np.exp(-dy * dy)[:, None] * np.exp(-dx * dx)
    canvas[first:] *= 1 - shadow[..., None]
    parts, palette = body_parts(who, pose, modality)
    draw_parts(canvas, parts, palette, pose.yaw, view)


def _occlude(canvas: np.ndarray, rng: np.random.Generator) -> None:
    """Something between camera and person: a pole, a railing, a low wall or a shoulder at the edge."""
    grey = np.float32(rng.uniform(0.1, 0.6)) * rng.uniform(0.85, 1.1, 3).astype(np.float32)
    kind = rng.integers(4)
    if kind == 0:
        left, width = int(rng.uniform(10, 170)), int(rng.uniform(10, 28))
        bow = np.sin(np.linspace(0.3, np.pi, width, dtype=np.float32))[: _COLUMNS - left]
        canvas[:, left : left + width] = grey * (0.5 + 0.5 * bow)[None, :, None]
    elif kind == 1:
        top = int(rng.uniform(200, 290))
        canvas[top : top + 10] = canvas[top + 40 : top + 48] = grey
        for left in range(int(rng.integers(40)), _COLUMNS, 48):
            canvas[top:, left : left + 6] = grey * 0.8
    elif kind == 2:
        canvas[int(rng.uniform(300, 350)) :] = grey
    else:
        middle = (int(rng.choice([-25, _COLUMNS + 25])), int(rng.uniform(260, 380)))
        size = (int(rng.uniform(50, 75)), int(rng.uniform(120, 200)))
        cv2.ellipse(canvas, middle, size, 0, 0, 360, tuple(float(g) for g in grey), -1, cv2.LINE_AA)
