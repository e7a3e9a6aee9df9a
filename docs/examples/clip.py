"""Draws a short video of rendered pedestrians who cross a shopping street: python docs/examples/clip.py clip.avi"""

import sys
from pathlib import Path

import cv2
import numpy as np

from tfds_builders.synthetic_pedestrians.bodies import Pose, body_parts
from tfds_builders.synthetic_pedestrians.cameras import DOMAINS
from tfds_builders.synthetic_pedestrians.drawing import View, draw_parts
from tfds_builders.synthetic_pedestrians.people import appearance
from tfds_builders.synthetic_pedestrians.scenes import HEIGHT, WIDTH, scene

RATE = 10  # frames a second
EMPTY = 5  # frames before anyone enters: a detector that subtracts the background learns it from them
# Who walks: number of the rendered person, first frame, columns a frame. Person 213 comes back from the other side.
WALKS = [(213, 0, 22.0), (164, 12, 20.0), (213, 62, -22.0), (157, 70, -20.0)]
OUTSIDE = 60.0  # pixels beyond the picture, where a walk begins and ends


def draw_clip(path: Path, frames: int = 130) -> None:
    """Write a clip of 550x224 pixels.

    Raises:
        OSError: OpenCV cannot write the file.
    """
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), RATE, (WIDTH // 2, HEIGHT // 2))
    if not writer.isOpened():
        raise OSError(f"OpenCV cannot write {path}; give a path that ends in .avi, in a folder that exists.")
    for number in range(frames):
        writer.write(_frame(number - EMPTY)[..., ::-1])
    writer.release()


def _frame(number: int) -> np.ndarray:
    """One frame, uint8 RGB [224, 550, 3]."""
    camera = DOMAINS["street"].views[0]
    canvas = scene(camera.scene).astype(np.float32) / 255
    for person, first, speed in WALKS:
        walked = abs(speed) * (number - first) - OUTSIDE
        if not -OUTSIDE <= walked <= WIDTH + OUTSIDE:
            continue
        column = walked if speed > 0 else WIDTH - walked
        who = appearance("city", person, 0)
        yaw = np.pi / 2 if speed > 0 else -np.pi / 2  # towards the right or the left edge
        pose = Pose(yaw=yaw, phase=0.9 * (number - first), stride=0.4, elbow=0.3, spread=0.1, raised=0)
        parts, palette = body_parts(who, pose, "rgb")
        view = View(camera.pitch, scale=190.0, column=column, row=420.0, light=camera.light, ambient=camera.ambient)
        draw_parts(canvas, parts, palette, pose.yaw, view)
    frame = (np.clip(canvas, 0, 1) * 255).astype(np.uint8)
    return cv2.resize(frame, (WIDTH // 2, HEIGHT // 2), interpolation=cv2.INTER_AREA)


if __name__ == "__main__":
    draw_clip(Path(sys.argv[1]))
