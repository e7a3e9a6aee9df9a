"""The search page: what it answers and refuses, and the page itself in a browser where there is one."""

import shutil
import socket
import subprocess
import sys
import threading
import time

import cv2
import numpy as np
import pytest
import uvicorn
from fastapi.testclient import TestClient

from tf_reid.config import ConfigError
from tf_reid.encoders import image_checks
from tf_reid.gallery import web_page
from tf_reid.gallery.faiss_gallery import FaissGallery
from tf_reid.gallery.records import Record
from tf_reid.gallery.rejection import calibrate
from tf_reid.web.connections import Connection
from tfds_builders.images import MOST_BYTES, check

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
ABOUT = {"digest": "d", "distance": "euclidean", "width": 3, "source": "none"}


class Colours:
    """Embeds an image by its mean colour."""

    query_role = "image"

    def embed(self, images, role, errors):
        assert role == "image"
        try:
            check(images[0])
        except ValueError as error:
            errors(image_checks.ImageError(0, None, str(error)))
            return np.zeros((0, 3), np.float32), np.array([False])
        means = [decoded(image).mean(axis=(0, 1)) for image in images]
        return np.stack(means).astype(np.float32), np.ones(len(images), bool)


def decoded(image):
    return cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR)


def crop(colour):
    return cv2.imencode(".png", np.full((20, 10, 3), colour, np.uint8))[1].tobytes()


def bomb(scans):
    """A progressive JPEG whose last scan is there so many times, which takes its decoder long."""
    image = np.full((1000, 1000), 128, np.uint8)
    content = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    start = content.rindex(b"\xff\xda")
    return content[:-2] + scans * content[start:-2] + content[-2:]


@pytest.fixture
def gallery(tmp_path):
    found = FaissGallery(tmp_path, ABOUT)
    shades = list(range(0, 250, 10))
    records = [Record(f"{s}.png", f"p{s // 20}", f"c{s // 10 % 2}", 1.7e9 + 3600 * s) for s in shades]
    found.add(records, Colours().embed([crop((s, s, s)) for s in shades], "image", None)[0])
    calibrate(found, 0.1)
    return found


def read(path):
    return crop((int(path[:-4]),) * 3) if path != "0.png" else None


@pytest.fixture
def client(gallery):
    return TestClient(web_page.create(gallery, Colours(), read, None))


def test_the_nearest_come_first_with_what_is_known_of_them(client):
    answer = client.post("/api/search?top=3", content=crop((41, 41, 41)))
    assert answer.status_code == 200
    matches = answer.json()["matches"]
    assert [match["path"] for match in matches] == ["40.png", "50.png", "30.png"]
    assert (
        matches[0]["identity"] == "p2" and matches[0]["camera"] == "c0" and matches[0]["when"].startswith("2023-11-16")
    )
    assert matches[0]["thumbnail"].startswith("data:image/jpeg;base64,") and answer.json()["unknown"] is False
    assert client.post("/api/search?top=1", content=crop((0, 0, 0))).json()["matches"][0]["thumbnail"] is None


def test_cameras_and_times_are_kept_to(client):
    matches = client.post("/api/search?top=50&camera=c1", content=crop((41, 41, 41))).json()["matches"]
    assert {match["camera"] for match in matches} == {"c1"} and len(matches) == 12
    since = "2023-11-20T00:00"
    matches = client.post(f"/api/search?top=50&since={since}", content=crop((41, 41, 41))).json()["matches"]
    assert matches and all(match["when"] >= "2023-11-20" for match in matches)
    assert client.get("/api/about").json()["cameras"] == ["c0", "c1"]


@pytest.mark.parametrize(
    ("parameters", "content", "status", "message"),
    [
        ("", b"no image", 415, "is not a JPEG"),
        ("", b"", 415, "The image is empty."),
        ("", bytes(MOST_BYTES + 1), 413, "larger than"),
        ("?top=0", b"", 400, "1 to 50"),
        ("?top=many", b"", 400, "must be a number"),
        ("", bomb(1500), 415, "scans"),
        ("", bomb(20), 415, "The image "),  # few enough to be tried, where it can be given up
        ("?since=soon", b"", 400, "since: 'soon' is not a time from 1973"),
    ],
)
def test_what_is_wrong_gets_a_status_and_a_sentence(client, parameters, content, status, message):
    answer = client.post(f"/api/search{parameters}", content=content)
    assert answer.status_code == status and message in answer.json()["error"]


def test_a_token_is_required_where_one_was_set(gallery):
    client = TestClient(web_page.create(gallery, Colours(), read, "secret"))
    for header in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": ""}):
        assert client.get("/api/about", headers=header).status_code == 401
        assert client.post("/api/search", content=crop((1, 1, 1)), headers=header).status_code == 401
    assert client.get("/api/about", headers={"Authorization": "Bearer secret"}).status_code == 200
    assert client.get("/").status_code == 200  # the page alone shows no image


def test_the_page_runs_no_script_but_its_own(client):
    pages = [client.get("/") for _ in range(2)]
    policy = pages[0].headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    assert pages[0].text != pages[1].text  # a nonce is used once


def test_others_are_let_in_with_a_token_only(gallery, monkeypatch):
    with pytest.raises(ConfigError, match=r"--host 0\.0\.0\.0 lets others reach the gallery: give a --token"):
        web_page.run(gallery, Colours(), read, "0.0.0.0", 1, None)
    started = []
    monkeypatch.setattr(uvicorn, "run", lambda app, **settings: started.append((app, settings)))
    web_page.run(gallery, Colours(), read, "0.0.0.0", 1, "secret")
    web_page.run(gallery, Colours(), read, "127.0.0.1", 1, None)
    assert [settings["host"] for _, settings in started] == ["0.0.0.0", "127.0.0.1"]
    assert all(settings["http"] is Connection for _, settings in started)  # which no client keeps for itself
    foreign = TestClient(started[1][0], base_url="http://evil.example")
    assert foreign.get("/api/about").status_code == 400
    local = TestClient(started[1][0], base_url="http://127.0.0.1")
    assert local.get("/api/about").status_code == 200
    assert local.get("/api/about", headers={"Origin": "http://evil.example"}).status_code == 403
    web_page.run(gallery, Colours(), read, "127.0.0.1", 1, None, ["evil.example"])
    assert TestClient(started[2][0], base_url="http://evil.example").get("/api/about").status_code == 200


IN_A_BROWSER = """
import sys
from playwright.sync_api import sync_playwright
with sync_playwright() as playwright:
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    browser = playwright.chromium.launch(executable_path=sys.argv[1], args=flags)
    page, wrong = browser.new_page(), []
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(sys.argv[2])
    page.wait_for_selector("#cameras input")
    page.set_input_files("#file", sys.argv[3])
    page.wait_for_selector("#matches figure")
    assert page.locator("#matches figure").count() == 12, page.inner_text("#matches")
    assert page.locator("#matches figure").first.get_attribute("title") == "40.png"
    assert page.locator("#matches figure.accepted").count() >= 1
    page.uncheck('#cameras input[value="c0"]')
    page.click("button")
    page.wait_for_selector('#matches figure[title="50.png"]:first-child')
    assert "camera c0" not in page.inner_text("#matches")
    page.set_input_files("#file", sys.argv[4])
    page.wait_for_selector("#status.error")
    assert "is not a JPEG" in page.inner_text("#status")
    assert [text for text in wrong if "415" not in text] == [], wrong
    browser.close()
"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_a_dropped_image_finds_its_identity_in_a_browser(gallery, tmp_path):
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    app = web_page.create(gallery, Colours(), read, None)
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    (tmp_path / "crop.png").write_bytes(crop((41, 41, 41)))
    (tmp_path / "text.png").write_text("no image")
    files = [str(tmp_path / name) for name in ("crop.png", "text.png")]
    line = [sys.executable, "-c", IN_A_BROWSER, CHROMIUM, f"http://127.0.0.1:{port}/", *files]
    try:
        done = subprocess.run(line, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
    finally:
        server.should_exit = True
        thread.join()
