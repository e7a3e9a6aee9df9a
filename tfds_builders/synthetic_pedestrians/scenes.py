"""What stands behind the people: one wide painted picture per camera, of which a shot shows a part."""

import functools

import cv2
import numpy as np

from tfds_builders.synthetic_pedestrians.people import numbers

HEIGHT, WIDTH = 448, 1100  # a shot's window is 384 x 192 of it
HORIZON = 120  # the row in which floor and wall meet, unless a scene says otherwise


@functools.lru_cache(maxsize=32)
def scene(name: str, seed: int = 0) -> np.ndarray:
    """The painted scene, uint8 [HEIGHT, WIDTH, 3] RGB; treat it as read-only."""
    canvas = np.zeros((HEIGHT, WIDTH, 3), np.float32)
    SCENES[name](canvas, np.random.default_rng(numbers(seed, "scene", name)))
    picture = (np.clip(canvas, 0, 1) * 255).astype(np.uint8)
    picture.flags.writeable = False
    return picture


def _grain(rng, shape, octaves=(4, 16, 64), strength=0.08):
    """Cloudy noise around 0, float32 [rows, columns]."""
    noise = np.zeros(shape, np.float32)
    for cells in octaves:
        small = rng.normal(0, strength / len(octaves), (max(cells * shape[0] // shape[1], 2), cells))
        noise += cv2.resize(small.astype(np.float32), shape[::-1], interpolation=cv2.INTER_CUBIC)
    return noise


def _floor(canvas, rng, color, joint, tile=(60, 60), horizon=HORIZON, vary=0.04, slant=0.0):
    """Paving in perspective below `horizon`; `tile` in picture elements, `slant` turns it."""
    side = 1024
    plan = np.empty((side, side, 3), np.float32)
    plan[:] = color
    for y in range(0, side, tile[1]):
        for x in range(0, side, tile[0]):
            plan[y : y + tile[1], x : x + tile[0]] += np.float32(rng.normal(0, vary))
    plan[:: tile[1]] = plan[1 :: tile[1]] = joint
    plan[:, :: tile[0]] = plan[:, 1 :: tile[0]] = joint
    plan += _grain(rng, (side, side), (8, 40, 200), 0.12)[..., None]
    corners = np.float32([[0, 0], [side, 0], [side, side], [0, side]])
    shift = slant * WIDTH
    target = np.float32([[0 + shift, horizon], [WIDTH + shift, horizon], [WIDTH * 1.9, HEIGHT], [-WIDTH * 0.9, HEIGHT]])
    warped = cv2.warpPerspective(
        plan,
        cv2.getPerspectiveTransform(corners, target),
        (WIDTH, HEIGHT),
        flags=cv2.INTER_AREA,
        borderMode=cv2.BORDER_REPLICATE,
    )
    canvas[horizon:] = warped[horizon:]


def _wall(canvas, rng, color, joint=None, brick=(40, 20), bottom=HORIZON, shifted=True):
    canvas[:bottom] = np.float32(color) + _grain(rng, (bottom, WIDTH))[..., None]
    if joint is None:
        return
    for number, y in enumerate(range(bottom, -1, -brick[1])):
        canvas[max(y - 2, 0) : y] = joint
        offset = brick[0] // 2 if shifted and number % 2 else 0
        for x in range(offset, WIDTH, brick[0]):
            canvas[max(y - brick[1], 0) : y, x : x + 2] = joint


def _box(canvas, rng, left, top, width, height, color, edge=0.75):
    left, top, right, bottom = int(left), int(top), int(left + width), int(top + height)
    cv2.rectangle(canvas, (left, top), (right, bottom), tuple(float(c) for c in color), -1)
    cv2.rectangle(canvas, (left, top), (right, bottom), tuple(float(c) * edge for c in color), 3)


def _blobs(canvas, rng, count, colors, columns, rows, size=(8, 26)):
    """Foliage: many small discs of changing brightness."""
    for _ in range(count):
        color = np.asarray(colors[int(rng.integers(len(colors)))]) * rng.uniform(0.5, 1.35)
        at = (int(rng.uniform(*columns)), int(rng.uniform(*rows)))
        cv2.circle(canvas, at, int(rng.uniform(*size)), tuple(float(c) for c in color), -1, cv2.LINE_AA)


def _car(canvas, rng, left, bottom, color, length=260):
    height = length * 0.3
    paint = tuple(float(c) for c in color)
    cv2.ellipse(canvas, (int(left + length / 2), int(bottom)), (int(length * 0.55), 12), 0, 0, 360, (0.1,) * 3, -1)
    cabin = np.int32([[0.18, 0.5], [0.32, 1.0], [0.7, 1.0], [0.86, 0.5]] * np.array([length, -height]))
    body = np.int32(
        [[0, 0.1], [0.02, 0.5], [0.16, 0.58], [0.88, 0.58], [1, 0.4], [1, 0.1]] * np.array([length, -height])
    )
    place = np.int32([left, bottom])
    cv2.fillPoly(canvas, [cabin + place], (0.16, 0.19, 0.22))
    cv2.fillPoly(canvas, [body + place], paint)
    for share in (0.2, 0.8):
        cv2.circle(
            canvas,
            (int(left + share * length), int(bottom - 0.1 * height)),
            int(height * 0.24),
            (0.06,) * 3,
            -1,
        )


def _band(canvas, color, near, far, horizon=HORIZON, x_far=0.3, x_near=-0.2):
    """A painted line on the floor that runs away from the camera, `near` and `far` wide."""
    corners = [
        [x_far * WIDTH, horizon],
        [x_far * WIDTH + far, horizon],
        [x_near * WIDTH + near, HEIGHT],
        [x_near * WIDTH, HEIGHT],
    ]
    cv2.fillPoly(canvas, [np.int32(corners)], tuple(float(c) for c in color), cv2.LINE_AA)


def _bright(rng):
    color = rng.uniform(0.15, 0.9, 3)
    return 0.5 * color + 0.5 * color.mean()


def _shops(c, rng):
    _wall(c, rng, (0.62, 0.55, 0.48), (0.50, 0.44, 0.38), (36, 18), bottom=150)
    for x in range(20, WIDTH, 210):
        _box(c, rng, x, 24, 150, 126, (0.22, 0.27, 0.31))
        _box(c, rng, x, -6, 160, 30, _bright(rng))
        for _ in range(5):
            _box(
                c,
                rng,
                x + rng.uniform(8, 110),
                rng.uniform(50, 100),
                rng.uniform(12, 34),
                40,
                _bright(rng) * 0.8,
            )
    _floor(c, rng, (0.60, 0.58, 0.55), (0.46, 0.45, 0.43), (48, 48), 150)


def _park(c, rng):
    c[:130] = (0.70, 0.78, 0.84)
    _blobs(c, rng, 900, [(0.18, 0.32, 0.12), (0.28, 0.42, 0.16), (0.36, 0.46, 0.22)], (0, WIDTH), (-10, 130))
    for x in range(60, WIDTH, 240):
        _box(c, rng, x, 0, 22, 150, (0.26, 0.20, 0.15))
    _floor(c, rng, (0.58, 0.52, 0.44), (0.55, 0.50, 0.42), (200, 200), 140)
    for edge in (0, 620):
        _blobs(c, rng, 900, [(0.28, 0.42, 0.18), (0.40, 0.50, 0.24)], (edge, edge + 260), (140, 260), (3, 9))


def _road(c, rng):
    _wall(c, rng, (0.66, 0.66, 0.64), bottom=110)
    for x in range(0, WIDTH, 120):
        _box(c, rng, x + 20, 10, 60, 60, (0.30, 0.36, 0.42))
    _floor(c, rng, (0.36, 0.36, 0.37), (0.355, 0.355, 0.365), (300, 300), 110, 0.01)
    for x in range(-40, WIDTH, 330):
        _car(c, rng, x + rng.uniform(0, 50), 200, _bright(rng))
    _band(c, (0.85, 0.85, 0.82), 46, 10, 200, 0.35, 0.1)
    _band(c, (0.85, 0.85, 0.82), 46, 10, 200, 0.65, 0.9)


def _square(c, rng):
    c[:60] = (0.82, 0.86, 0.90)
    _wall(c, rng, (0.72, 0.68, 0.58), (0.60, 0.56, 0.48), (80, 34), bottom=96)
    _floor(c, rng, (0.68, 0.60, 0.53), (0.52, 0.45, 0.40), (90, 34), 96, 0.05, 0.2)
    for x in range(30, WIDTH, 300):
        _box(c, rng, x, 96, 130, 40, (0.45, 0.30, 0.20))
        _blobs(c, rng, 120, [(0.25, 0.42, 0.15), (0.45, 0.30, 0.30)], (x, x + 130), (60, 105), (5, 14))


def _platform(c, rng):
    _wall(c, rng, (0.62, 0.60, 0.50), (0.45, 0.44, 0.38), (26, 26), bottom=90, shifted=False)
    for x in range(0, WIDTH, 260):
        _box(c, rng, x + 40, 10, 90, 60, _bright(rng) * 0.8)
    _floor(c, rng, (0.56, 0.53, 0.46), (0.46, 0.44, 0.38), (70, 70), 90, 0.03)
    track = np.int32([[0.62 * WIDTH, 90], [WIDTH, 90], [WIDTH, HEIGHT], [0.95 * WIDTH, HEIGHT]])
    cv2.fillPoly(c, [track], (0.10, 0.10, 0.10))
    _band(c, (0.80, 0.68, 0.20), 60, 14, 90, 0.58, 0.85)
    _band(c, (0.80, 0.68, 0.20), 46, 10, 90, 0.25, 0.12)


def _corridor(c, rng):
    _wall(c, rng, (0.66, 0.68, 0.66), (0.50, 0.52, 0.50), (34, 17), bottom=210)
    c[120:136] = (0.16, 0.28, 0.52)
    for x in range(60, WIDTH, 240):
        _box(c, rng, x, 10, 100, 90, _bright(rng) * 0.9)
    _floor(c, rng, (0.42, 0.42, 0.42), (0.34, 0.34, 0.34), (44, 44), 210, 0.03)


def _concourse(c, rng):
    c[:110] = np.float32((0.30, 0.28, 0.24)) + _grain(rng, (110, WIDTH))[..., None]
    _floor(c, rng, (0.58, 0.54, 0.48), (0.50, 0.46, 0.40), (110, 110), 110, 0.07, -0.1)
    for x in range(30, WIDTH, 180):
        _box(c, rng, x, 96, 34, 110, (0.52, 0.52, 0.50))  # ticket gates
        _box(c, rng, x + 8, 104, 18, 12, (0.75, 0.15, 0.10) if x % 360 < 180 else (0.1, 0.6, 0.2))
    for x in range(100, WIDTH, 420):
        _box(c, rng, x, -4, 66, 240, (0.42, 0.40, 0.36))


def _stairs(c, rng):
    for number, y in enumerate(range(-10, HEIGHT, 34)):
        c[max(y, 0) : max(y + 26, 0)] = np.float32(0.50) + 0.012 * number
        c[max(y + 26, 0) : max(y + 34, 0)] = (0.26, 0.25, 0.24)
        c[max(y, 0) : max(y + 4, 0)] = (0.66, 0.60, 0.28)
    c += _grain(rng, (HEIGHT, WIDTH))[..., None]
    for x in range(40, WIDTH, 340):
        _box(c, rng, x, 0, 16, HEIGHT, (0.30, 0.32, 0.34))
        _box(c, rng, x + 120, 0, 60, 120, (0.55, 0.50, 0.42))


def _yard(c, rng):  # leaves are bright in the near infrared
    c[:] = 0.10
    _blobs(c, rng, 500, [(0.55,) * 3, (0.40,) * 3], (0, WIDTH), (30, 150), (6, 20))
    _floor(c, rng, (0.34,) * 3, (0.28,) * 3, (80, 80), 150, 0.03)
    for x in range(30, WIDTH, 130):
        _box(c, rng, x, 60, 10, 110, (0.6,) * 3)
    c[90:98] = 0.5


def _alley(c, rng):
    _wall(c, rng, (0.30,) * 3, (0.20,) * 3, (44, 20), bottom=190)
    for x in range(50, WIDTH, 260):
        _box(c, rng, x, 60, 80, 130, (0.14,) * 3)
    _floor(c, rng, (0.36,) * 3, (0.24,) * 3, (40, 30), 190, 0.05, 0.1)


SCENES = {
    "shops": _shops,
    "park": _park,
    "road": _road,
    "square": _square,
    "platform": _platform,
    "corridor": _corridor,
    "concourse": _concourse,
    "stairs": _stairs,
    "yard": _yard,
    "alley": _alley,
}
