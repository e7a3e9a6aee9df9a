"""The cameras: where each looks, how its light falls, and what its optics and coding do to a picture."""

from dataclasses import dataclass

import cv2
import numpy as np

from tfds_builders.synthetic_pedestrians.people import LUMA


@dataclass(frozen=True)
class Camera:
    """One fixed camera. Angles are in radians, picture quantities in 0..1 unless said otherwise."""

    number: int
    scene: str
    heading: float  # the way most people walk here: 0 towards the camera, pi away from it
    pitch: float  # how far it looks down
    light: tuple[float, float, float]  # towards the light: right, up, towards the camera
    ambient: float = 0.45
    turn: float = 0.4  # standard deviation of the heading
    gain: float = 1.0
    gain_spread: float = 0.08
    gamma: float = 1.0
    lift: float = 0.0  # haze: what black is raised to
    saturation: float = 0.88
    cast: tuple[float, float, float] = (1.0, 1.0, 1.0)  # white balance
    gradient: float = 0.1  # brighter on one side by this share
    vignette: float = 0.0
    blur: float = 0.4  # picture elements
    motion: float = 0.0  # picture elements
    noise: float = 0.012
    quality: int = 90  # of the JPEG coding
    half: bool = False  # half the resolution
    occluders: float = 0.1  # share of shots with something in front
    passers: float = 0.15  # share of shots with somebody else in them
    jitter: float = 0.05  # of the bounding box, as a share of its size
    background: float = 1.0  # brightness of the scene, where only what is near is lit


@dataclass(frozen=True)
class Domain:
    """Cameras that see one population of people in one kind of light."""

    name: str
    modality: str  # "rgb" or "infrared"
    population: str  # people are shared by the domains of one population
    views: tuple[Camera, ...]

    @property
    def cameras(self) -> tuple[int, ...]:
        return tuple(view.number for view in self.views)


_TUBES = {"ambient": 0.6, "noise": 0.014, "quality": 75}
_LAMP = {"light": (0.0, 0.1, 1.0), "ambient": 0.4, "noise": 0.02, "quality": 75, "background": 0.7}

DOMAINS = {
    domain.name: domain
    for domain in (
        Domain(
            "street",
            "rgb",
            "city",
            (
                Camera(1, "shops", 0.3, 0.10, (0.55, 0.65, 0.5), cast=(1.06, 1.0, 0.92), gain=1.05),
                Camera(
                    2,
                    "park",
                    2.7,
                    0.16,
                    (-0.6, 0.7, 0.35),
                    ambient=0.35,
                    cast=(0.97, 1.03, 0.92),
                    gamma=1.12,
                    gradient=0.25,
                    gain=1.1,
                ),
                Camera(
                    3,
                    "road",
                    -1.3,
                    0.12,
                    (0.1, 0.95, 0.3),
                    ambient=0.55,
                    cast=(0.94, 1.0, 1.08),
                    gamma=0.95,
                    lift=0.03,
                    saturation=0.85,
                ),
                Camera(
                    4,
                    "square",
                    0.9,
                    0.30,
                    (0.8, 0.5, 0.3),
                    ambient=0.3,
                    cast=(1.12, 1.0, 0.84),
                    gain=1.2,
                    turn=0.6,
                    blur=0.6,
                    quality=75,
                ),
            ),
        ),
        Domain(
            "station",
            "rgb",
            "rail",
            (
                Camera(
                    1,
                    "platform",
                    2.9,
                    0.42,
                    (0.0, 0.9, 0.3),
                    cast=(1.06, 1.0, 0.70),
                    gain=0.72,
                    gamma=1.15,
                    lift=0.05,
                    saturation=0.85,
                    blur=0.8,
                    **_TUBES,
                ),
                Camera(
                    2,
                    "corridor",
                    0.2,
                    0.22,
                    (-0.3, 0.85, 0.4),
                    cast=(0.80, 1.0, 1.10),
                    gain=0.68,
                    lift=0.06,
                    saturation=0.9,
                    blur=0.6,
                    motion=2.0,
                    gradient=0.3,
                    **_TUBES,
                ),
                Camera(
                    3,
                    "concourse",
                    -0.8,
                    0.50,
                    (0.4, 0.85, 0.2),
                    cast=(0.90, 1.04, 0.78),
                    gain=0.62,
                    lift=0.04,
                    saturation=0.9,
                    half=True,
                    vignette=0.3,
                    turn=0.6,
                    **_TUBES,
                ),
                Camera(
                    4,
                    "stairs",
                    1.7,
                    0.36,
                    (0.2, 0.9, 0.3),
                    cast=(0.92, 1.08, 0.86),
                    gain=0.75,
                    gamma=1.15,
                    lift=0.08,
                    saturation=0.85,
                    blur=0.8,
                    motion=1.5,
                    **_TUBES,
                ),
            ),
        ),
        Domain(
            "night",
            "infrared",
            "city",
            (
                Camera(5, "yard", 0.4, 0.14, gain=1.15, vignette=0.35, blur=0.5, **_LAMP),
                Camera(
                    6,
                    "alley",
                    2.6,
                    0.28,
                    gain=1.15,
                    gamma=1.15,
                    vignette=0.5,
                    lift=0.05,
                    blur=0.8,
                    **_LAMP,
                ),
            ),
        ),
    )
}


def photograph(picture: np.ndarray, camera: Camera, modality: str, rng: np.random.Generator) -> np.ndarray:
    """What the camera delivers of `picture`, float32 [128, 64, 3] RGB in 0..1: uint8 of the same shape."""
    rows, columns = picture.shape[:2]
    x, y = np.linspace(-1, 1, columns, dtype=np.float32), np.linspace(-1, 1, rows, dtype=np.float32)[:, None]
    lamp = rng.normal(0, 0.25, 2)
    light = (
        1 + camera.gradient * rng.choice([-1, 1]) * x - camera.vignette * ((x - lamp[0]) ** 2 + (y - lamp[1]) ** 2) / 2
    )
    gain = camera.gain * float(np.exp(rng.normal(0, camera.gain_spread)))
    picture = np.clip(picture, 0, 1) ** camera.gamma * np.maximum(light, 0.1)[..., None].astype(np.float32) * gain
    if modality == "rgb":
        grey = picture @ np.float32(LUMA)
        picture = grey[..., None] + camera.saturation * (picture - grey[..., None])
        picture = picture * np.float32(camera.cast) * rng.normal(1, 0.02, 3).astype(np.float32)
    picture = camera.lift + (1 - camera.lift) * picture
    picture = _optics(picture.astype(np.float32), camera, rng)

    channels = 3 if modality == "rgb" else 1
    grain = camera.noise * rng.standard_normal((rows, columns, channels), np.float32)
    picture = picture + 0.7 * grain + 0.5 * cv2.GaussianBlur(grain, (3, 3), 0.8).reshape(grain.shape)
    coded = (np.clip(picture, 0, 1) * 255).round().astype(np.uint8)
    if modality == "infrared":
        coded = np.ascontiguousarray(coded[..., 0])
        done = cv2.imdecode(
            cv2.imencode(".jpg", coded, [cv2.IMWRITE_JPEG_QUALITY, camera.quality])[1], cv2.IMREAD_GRAYSCALE
        )
        return np.repeat(done[..., None], 3, axis=2)
    bgr = np.ascontiguousarray(coded[..., ::-1])
    done = cv2.imdecode(cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, camera.quality])[1], cv2.IMREAD_COLOR)
    return np.ascontiguousarray(done[..., ::-1])


def _optics(picture, camera, rng):
    """Defocus, motion and the sensor's resolution."""
    picture = cv2.GaussianBlur(picture, (0, 0), max(camera.blur * rng.uniform(0.7, 1.4), 0.05))
    steps = round(camera.motion * rng.uniform(0, 1.3))
    if steps > 1:
        kernel = np.full((1, steps), 1 / steps, np.float32)
        picture = cv2.filter2D(picture, -1, kernel)
    if camera.half:
        rows, columns = picture.shape[:2]
        small = cv2.resize(picture, (columns // 2, rows // 2), interpolation=cv2.INTER_AREA)
        picture = cv2.resize(small, (columns, rows), interpolation=cv2.INTER_LINEAR)
    return picture
