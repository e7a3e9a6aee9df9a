"""benchmarks.abuse: what it sends is what it says, its verdicts can fail, and the surfaces that need no server pass."""

import collections
import io
import os
import time

import numpy as np
import pytest
from PIL import Image, ImageOps

from benchmarks import abuse
from benchmarks.attack import (
    frames,
    images,
    in_process,
    material,
    page_requests,
    rest_requests,
    runner,
    servers,
    tables,
)
from benchmarks.attack.cases import ANSWER, EITHER, REFUSE, Case, generator
from benchmarks.attack.http_requests import HttpRequest
from benchmarks.attack.verdicts import Refused, Report, ServerFault, WrongAnswer, table, verdict

MAKERS = {
    "image": images.case,
    "table": lambda rng: tables.case(rng, material.FILES),
    "rest": rest_requests.case,
    "page": page_requests.case,
    "frame": frames.case,
}


def read_by_pillow(content):
    """The first frame, upright, on white: uint8 [H, W, 3]."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if "A" in image.mode or "transparency" in image.info:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return np.asarray(image.convert("RGB"))


def test_a_sound_image_shows_its_picture():
    assert len(images.catalogue()) > 60
    for case in images.catalogue():
        difference = abs(read_by_pillow(case.content).astype(int) - images.pictures()[case.picture])
        assert difference.max() <= (0 if case.is_exact else 12), case.kind


@pytest.mark.parametrize("name", MAKERS)
def test_an_input_is_made_again_by_its_seed_and_index(name):
    made = [MAKERS[name](generator(0, name, index)) for index in range(60)]
    for index, case in enumerate(made):
        again = MAKERS[name](generator(0, name, index))
        assert (again.kind, again.demand) == (case.kind, case.demand)
        assert repr(again.content) == repr(case.content)
    assert len({case.kind for case in made}) > 10
    assert {case.demand for case in made} >= {ANSWER, REFUSE}


@pytest.mark.parametrize(
    ("demand", "error", "seconds", "expected"),
    [
        (ANSWER, None, 0.1, "right"),
        (EITHER, None, 0.1, "read"),
        (REFUSE, None, 0.1, "wrong"),
        (REFUSE, Refused("It is damaged."), 0.1, "refused"),
        (EITHER, Refused("It is damaged."), 0.1, "refused"),
        (ANSWER, Refused("It is damaged."), 0.1, "wrong"),
        (REFUSE, Refused(" "), 0.1, "wrong"),
        (REFUSE, Refused("n" * 5000), 0.1, "wrong"),
        (REFUSE, Refused("Traceback (most recent call last)"), 0.1, "wrong"),
        (ANSWER, WrongAnswer("another picture"), 0.1, "wrong"),
        (EITHER, ValueError("no sentence of ours"), 0.1, "crash"),
        (EITHER, ServerFault("500"), 0.1, "5xx"),
        (REFUSE, Refused("It is damaged."), 2.5, "hang"),
        (ANSWER, None, 2.5, "hang"),
    ],
)
def test_a_verdict(demand, error, seconds, expected):
    assert verdict(Case("kind", b"", demand), error, seconds)[0] == expected
    assert verdict(Case("kind", b"", demand, seconds=3.0), error, seconds)[0] != "hang"


def test_what_a_server_replies():
    request = HttpRequest()
    assert servers.checked(servers.Reply(200, b"{}"), request).status == 200
    for reply, error in (
        (servers.Reply(400, b'{"error": "No."}'), Refused),
        (servers.Reply(500, b""), ServerFault),
        (servers.Reply(503, b"busy"), ServerFault),
        (None, WrongAnswer),
    ):
        with pytest.raises(error):
            servers.checked(reply, request)
    with pytest.raises(Refused):
        servers.checked(None, HttpRequest(may_be_dropped=True))
    with pytest.raises(Refused):
        servers.checked(servers.Reply(503, b'{"error": "Later."}'), HttpRequest(may_be_put_off=True))


def test_a_surface_fails_by_each_of_its_faults():
    def report(**changes):
        sound = {"beside": [0.1], "alone": [0.1], "memory": [100 << 20] * 3}
        return Report("api", counts=collections.Counter(right=5), **{**sound, **changes})

    assert report().failures() == []
    (failure,) = report(failed=["TimeoutError"]).failures()
    assert "1 good requests failed" in failure
    assert "2 tracebacks" in report(tracebacks=2).failures()[0]
    assert "no good request" in report(beside=[]).failures()[0]
    assert "900 MiB stayed" in report(memory=[100 << 20, 1000 << 20, 1000 << 20]).failures()[0]
    assert "grew by 3000 MiB" in report(memory=[100 << 20, 3100 << 20, 100 << 20]).failures()[0]
    faulty = report()
    for index, what in enumerate(("wrong", "crash", "hang", "5xx")):
        faulty.add(index, f"kind {index}", what, f"said {index}")
    faulty.add(9, "kind 9", "crash", "said 9")
    assert len(faulty.failures()) == 4
    assert "api: 2 x crash: said 1 (the first is input 1; kind 1; kind 9)" in faulty.failures()
    header, row, _, total = (line.split() for line in table([faulty, report()]).splitlines())
    assert header[:3] == ["surface", "sent", "right"]
    assert row[:9] == ["api", "10", "5", "0", "0", "1", "2", "1", "1"] and total[:3] == ["all", "15", "10"]


class Faulty:
    """A surface that does with each input what its number says."""

    senders, stall = 1, 1.0
    acts = ("right", "refused", "dies", "right", "raises", "hangs", "wrong", "right")

    def case(self, rng):
        first_draws = [generator(0, "faulty", index).integers(2**60) for index in range(len(self.acts))]
        return Case("kind", self.acts[first_draws.index(rng.integers(2**60))], EITHER)

    def send(self, case):
        if case.content == "dies":
            os._exit(7)
        if case.content == "hangs":
            time.sleep(60)
        if case.content != "right":
            raise {"refused": Refused, "raises": KeyError, "wrong": WrongAnswer}[case.content]("It is so.")

    def good(self):
        time.sleep(0.01)


def test_an_attack_goes_on_after_a_process_dies_or_hangs(tmp_path):
    report = runner.attack(Faulty, "faulty", 0, len(Faulty.acts), tmp_path / "log", alone=0.1)
    assert report.counts == {"read": 3, "refused": 1, "crash": 2, "hang": 1, "wrong": 1}
    reasons = {(inputs[0][0], inputs[0][2]) for inputs in report.examples.values()}
    assert (2, "the process ended with exit code 7") in reasons
    assert {index for index, _ in reasons} == {2, 4, 5, 6}
    assert report.alone and report.beside and not report.failed
    assert min(report.memory) > 1 << 20


class DoesNotStart:
    def __init__(self):
        raise KeyError("no such model")


def test_an_attack_that_does_not_begin_says_why(tmp_path):
    with pytest.raises(RuntimeError, match="no such model"):
        runner.attack(DoesNotStart, "none", 0, 5, tmp_path / "log")


def test_all_inputs_are_given_to_the_surfaces():
    assert sum(abuse.parts(abuse.ALL, 10_000).values()) == 10_000
    assert abuse.parts(["data", "api", "slow-rest"], 1000) == {"api": 616, "data": 284, "slow-rest": 100}
    assert abuse.parts(["grpc"], 7) == {"grpc": 7}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("abuse")
    material.make(folder)
    return folder


@pytest.mark.parametrize(("kind", "count"), [("Api", 50), ("Data", 30), ("Search", 30)])
def test_a_surface_that_needs_no_server_passes(place, kind, count, monkeypatch):
    from tf_reid.encoders import loading

    monkeypatch.setattr(loading, "load", loading.load)  # the surface changes it; it is restored
    surface, report = getattr(in_process, kind)(place), Report(kind, beside=[0.1])
    for index in range(count):
        case = surface.case(generator(1, kind, index))
        error, began = None, time.perf_counter()
        try:
            surface.send(case)
        except Exception as raised:
            error = raised
        report.add(index, case.kind, *verdict(case, error, time.perf_counter() - began))
    surface.good()
    assert report.failures() == []
    assert report.counts["right"] and report.counts["refused"]
