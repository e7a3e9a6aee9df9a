"""Numbers the people of a video: python docs/examples/tracker.py --run runs/dgnet clip.avi tracked.avi

A detector gives boxes, the encoder an embedding for each, and an embedding near one that is known gets its number.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np
from scipy.optimize import linear_sum_assignment

import tf_reid


def arguments(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Number the people of a video by what they look like.")
    parser.add_argument("clip", type=Path, help="a video by a fixed camera; its first frame shows no people")
    parser.add_argument("written", type=Path, help="the video to write (.avi)")
    parser.add_argument("--run", required=True, help="a finished run, or an exported model")
    parser.add_argument("--threshold", type=float, default=0.3, help="distance up to which two boxes are one identity")
    return parser.parse_args(argv)


def boxes_of_people(frame: np.ndarray, empty: np.ndarray) -> np.ndarray:
    """Boxes [N, 4] (left, top, right, bottom) of what differs from the empty scene. Your detector goes here."""
    changed = (cv2.absdiff(frame, empty).max(axis=2) > 40).astype(np.uint8)
    changed = cv2.morphologyEx(changed, cv2.MORPH_CLOSE, np.ones((15, 7), np.uint8))
    _, _, regions, _ = cv2.connectedComponentsWithStats(changed)
    regions = regions[1:]  # the first one is the background
    left, top, width, height = regions[:, :4].T
    # A person whom the picture's edge cuts looks like another person: wait for the whole one.
    whole = (regions[:, 4] > 800) & (left > 0) & (left + width < frame.shape[1])
    return np.stack([left, top, left + width, top + height], axis=1)[whole]


def numbers_of(features: np.ndarray, known: list[np.ndarray], encoder, threshold: float) -> list[int]:
    """The identity of each box; `known` holds an embedding an identity, and is brought up to date."""
    numbers = [-1] * len(features)
    if len(features) and known:
        distances = encoder.distances(features, np.stack(known))
        # One identity is in a frame once at most, so boxes and identities are matched one to one.
        for box, identity in zip(*linear_sum_assignment(distances), strict=True):
            if distances[box, identity] <= threshold:
                numbers[box] = int(identity)
                known[identity] = 0.9 * known[identity] + 0.1 * features[box]
    for box, number in enumerate(numbers):
        if number < 0:
            numbers[box] = len(known)
            known.append(features[box])
    return numbers


def track(clip: Path, written: Path, run: str, threshold: float) -> list[list[int]]:
    """Writes the video with a numbered box around everyone; returns the identities in each frame."""
    encoder = tf_reid.load(run)
    video = cv2.VideoCapture(str(clip))
    readable, empty = video.read()
    if not readable:
        raise OSError(f"{clip} is not a video that OpenCV can read.")
    size = (empty.shape[1], empty.shape[0])
    writer = cv2.VideoWriter(str(written), cv2.VideoWriter_fourcc(*"MJPG"), video.get(cv2.CAP_PROP_FPS), size)
    known, identities = [], []
    while True:
        readable, frame = video.read()
        if not readable:
            break
        boxes = boxes_of_people(frame, empty)
        features = encoder.embed_boxes(frame[..., ::-1], boxes)  # OpenCV reads BGR, the encoder takes RGB
        identities.append(numbers_of(features, known, encoder, threshold))
        for (left, top, right, bottom), number in zip(boxes.tolist(), identities[-1], strict=True):
            cv2.rectangle(frame, (left, top), (right, bottom), (60, 150, 20), 2)
            cv2.putText(frame, str(number + 1), (left, top - 4), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (60, 150, 20), 2)
        writer.write(frame)
    writer.release()
    return identities


if __name__ == "__main__":
    args = arguments()
    identities = track(args.clip, args.written, args.run, args.threshold)
    print(f"{len(set().union(*identities))} identities in {len(identities)} frames; written: {args.written}")
