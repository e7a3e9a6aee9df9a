"""Makes the pictures of README.md and of these pages, from finished runs of two configurations:

python docs/make_pictures.py --simpgan runs/simpgan --dgnet runs/dgnet

They show rendered pedestrians only. The search page is photographed in headless Chromium (--chromium).
"""

import argparse
import contextlib
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np

WIDTH = 900  # pixels of a picture, at most
QUALITY = 80  # of WebP
# Whom the pages show, identities of the test half of the data sets, and the seed that draws the other images.
TRANSLATED = (0, "161", "160", "214")
SWAPPED = (2, "227", "191", "231")
RANKED = (0, "170", "219", "213")
FRAMES = 40, 94  # of the tracked clip
SEARCHED = 213  # whose crop is dropped on the search page


def arguments(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Make the pictures of the README and of the docs.")
    parser.add_argument("--simpgan", required=True, help="a finished run of configs/simpgan.yaml")
    parser.add_argument("--dgnet", required=True, help="a finished run of configs/dgnet.yaml")
    parser.add_argument("--to", type=Path, default=Path(__file__).with_name("pictures"), help="where they are written")
    parser.add_argument(
        "--chromium",
        default=shutil.which("chromium"),
        help="the browser (default: chromium of the PATH, or playwright's own)",
    )
    return parser.parse_args(argv)


def main(argv=None) -> None:
    args = arguments(argv)
    args.to.mkdir(exist_ok=True)
    keep(args.to / "translation.webp", page(args.simpgan, "translation", "translation", *TRANSLATED))
    keep(args.to / "swaps.webp", page(args.dgnet, "swaps", "swaps", *SWAPPED))
    keep(args.to / "ranks.webp", page(args.dgnet, "ranks", "ranks_raw", *RANKED))
    keep(args.to / "tracker.webp", tracked(args.dgnet))
    keep(args.to / "search_page.webp", search_page(args.dgnet, args.chromium))


def keep(path: Path, picture: np.ndarray) -> None:
    """Write a picture (BGR) as WebP, made smaller where it is wider than `WIDTH`."""
    if picture.shape[1] > WIDTH:
        height = round(picture.shape[0] * WIDTH / picture.shape[1])
        picture = cv2.resize(picture, (WIDTH, height), interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(path), picture, [cv2.IMWRITE_WEBP_QUALITY, QUALITY])
    print(f"{path}: {picture.shape[1]}x{picture.shape[0]}, {path.stat().st_size / 1000:.0f} kB")


def page(run: str, what: str, name: str, seed: int, *identities: str) -> np.ndarray:
    """A page that `tf_reid.visualize` writes."""
    command = [sys.executable, "-m", "tf_reid.visualize", "--run", run, what, "--count", str(len(identities))]
    subprocess.run([*command, "--seed", str(seed), "--identities", *identities], check=True)
    return cv2.imread(str(Path(run) / "pages" / f"{name}.png"))


def tracked(run: str) -> np.ndarray:
    """Frames of the clip that docs/examples/tracker.py wrote: before and after a person left the picture."""
    examples = Path(__file__).with_name("examples")
    with tempfile.TemporaryDirectory() as folder:
        clip, written = f"{folder}/clip.avi", f"{folder}/tracked.avi"
        subprocess.run([sys.executable, examples / "clip.py", clip], check=True)
        subprocess.run([sys.executable, examples / "tracker.py", "--run", run, clip, written], check=True)
        video = cv2.VideoCapture(written)
        frames = [video.read()[1] for _ in range(int(video.get(cv2.CAP_PROP_FRAME_COUNT)))]
    return np.vstack([frames[number] for number in FRAMES])


def search_page(run: str, chromium: str) -> np.ndarray:
    """The search page of a gallery of the run's own images, after a crop was dropped on it."""
    from playwright.sync_api import sync_playwright

    from tfds_builders.synthetic_pedestrians.rendering import render

    with tempfile.TemporaryDirectory() as folder:
        crop, screenshot = Path(folder) / "crop.png", Path(folder) / "page.png"
        cv2.imwrite(str(crop), render("street", SEARCHED, camera=2, shot=0)[..., ::-1])
        gallery = ["--index", f"{folder}/gallery"]
        search = [sys.executable, "-m", "tf_reid.search"]
        subprocess.run([*search, "build", *gallery, "--run", run, "run:gallery"], check=True)
        with served([*search, "serve", *gallery]) as address, sync_playwright() as playwright:
            flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
            browser = playwright.chromium.launch(executable_path=chromium, args=flags)
            opened = browser.new_page(viewport={"width": WIDTH, "height": 400})
            opened.goto(address)
            opened.set_input_files("input[type=file]", str(crop))
            opened.wait_for_selector("figure img")
            opened.screenshot(path=str(screenshot), full_page=True)
            browser.close()
        return cv2.imread(str(screenshot))


@contextlib.contextmanager
def served(command: list[str]):
    """Run a command that serves a page on a free port until the block ends; gives the page's address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([*command, "--port", str(port)], stdout=subprocess.PIPE, text=True)
    try:
        while "Ctrl-C stops" not in (line := process.stdout.readline()):
            if not line:
                raise RuntimeError("The search page did not start.")
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    main()
