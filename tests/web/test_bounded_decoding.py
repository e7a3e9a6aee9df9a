"""Images that could be slow are given up at the deadline, and keep no good image waiting."""

import io
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from PIL import Image

from tf_reid.web.bounded_decoding import Busy, Decoder

ROOT = Path(__file__).parent.parent.parent
WORK = """
import os, time
def work(content, most_pixels):
    if content == b"crash":
        os.abort()
    if content == b"bad":
        raise ValueError("is bad")
    if content == b"other":
        print("what a library prints is no answer")
        return b"new"
    time.sleep(float(content))
    return content
"""


def jpeg(size, **options):
    file = io.BytesIO()
    Image.effect_noise(size, 50).save(file, "JPEG", **options)
    return file.getvalue()


def with_scans(image, more):
    """A progressive JPEG whose last scan is there so many more times."""
    start = image.rindex(b"\xff\xda")
    return image[:-2] + more * image[start:-2] + image[-2:]


@pytest.fixture
def slow(tmp_path, monkeypatch):
    """A decoder whose work is to sleep."""
    (tmp_path / "slow_work.py").write_text(WORK)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    decoder = Decoder(seconds=1.0, processes=1, waiting=1, work="slow_work:work")
    yield decoder
    decoder.close()


def test_work_that_takes_too_long_is_given_up_and_the_next_is_done(slow):
    assert slow.abandonable(b"0") == b"0" and slow.abandonable(b"other") == b"new"
    with pytest.raises(ValueError, match="is bad"):
        slow.abandonable(b"bad")
    with pytest.raises(ValueError, match="cannot be decoded"):
        slow.abandonable(b"crash")
    start = time.monotonic()
    with pytest.raises(ValueError, match=r"takes more than 1 seconds to decode"):
        slow.abandonable(b"60")
    assert time.monotonic() - start < 5
    assert slow.abandonable(b"0.1") == b"0.1"


def test_more_than_may_wait_are_refused_at_once(slow):
    slow.abandonable(b"0")
    threads = [threading.Thread(target=lambda: slow.abandonable(b"0.4")) for _ in range(2)]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    start = time.monotonic()
    with pytest.raises(Busy, match="send this one again later"):
        slow.abandonable(b"0")
    assert time.monotonic() - start < 0.35
    for thread in threads:
        thread.join()
    assert slow.abandonable(b"0") == b"0"


def test_what_is_slow_and_what_is_not():
    decoder = Decoder()
    crop, photograph = jpeg((128, 256)), jpeg((2000, 1500), progressive=True)
    assert not decoder.is_slow(crop) and not decoder.is_slow(photograph) and not decoder.is_slow(b"no image")
    assert decoder.is_slow(with_scans(photograph, 20))
    assert decoder.plain(crop) is crop
    assert decoder._free.queue == [None, None]  # no process was needed


def test_a_process_outlives_a_killed_server_by_no_more_than_the_deadline(tmp_path, monkeypatch):
    (tmp_path / "slow_work.py").write_text(WORK)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT)]))
    code = """
from tf_reid.web.bounded_decoding import Decoder
decoder = Decoder(seconds=0.5, processes=1, work="slow_work:work")
decoder.abandonable(b"0")
print(decoder._free.queue[0].pid, flush=True)
decoder.abandonable(b"60")
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as server:
        child = int(server.stdout.readline())
        server.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 5
    while is_alive(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_alive(child)


def is_alive(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
