import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from tfds_builders.synthetic_pedestrians import rendering
from tfds_builders.synthetic_pedestrians.people import REFLECTANCE, appearance, lookalikes
from tfds_builders.synthetic_pedestrians.rendering import DOMAINS, render

ANYWHERE = [(name, camera) for name, domain in DOMAINS.items() for camera in domain.cameras]


def test_domains():
    assert {name: (d.modality, d.cameras) for name, d in DOMAINS.items()} == {
        "street": ("rgb", (1, 2, 3, 4)),
        "station": ("rgb", (1, 2, 3, 4)),
        "night": ("infrared", (5, 6)),
    }
    assert all(name == domain.name for name, domain in DOMAINS.items())


@pytest.mark.parametrize(("domain", "camera"), ANYWHERE)
def test_picture_of_every_camera(domain, camera):
    picture = render(domain, 3, camera, 1)
    assert picture.shape == (128, 64, 3) and picture.dtype == np.uint8
    assert picture.std() > 5
    equal_channels = (picture[..., 0] == picture[..., 1]).all() and (picture[..., 1] == picture[..., 2]).all()
    assert equal_channels == (DOMAINS[domain].modality == "infrared")


def test_many_shots_draw():  # every kind of garment, bag, hair, occlusion and bounding box comes up
    for person in range(60):
        for domain, camera in ANYWHERE[person % 2 :: 2]:
            assert render(domain, person, camera, shot=person).any()


def test_same_arguments_same_picture():
    first = render("street", 7, 2, 4, seed=5)
    np.random.default_rng(0).random()
    render("night", 1, 5, 0)  # what is drawn in between does not matter
    rendering.appearance.cache_clear()
    np.testing.assert_array_equal(first, render("street", 7, 2, 4, seed=5))


def test_same_picture_in_another_process():
    program = (
        "from tfds_builders.synthetic_pedestrians.rendering import render; import sys;"
        "sys.stdout.buffer.write(render('station', 11, 3, 2).tobytes())"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert run.stdout == render("station", 11, 3, 2).tobytes()


@pytest.mark.parametrize("change", [{"seed": 1}, {"person": 4}, {"camera": 2}, {"shot": 1}, {"domain": "station"}])
def test_each_argument_changes_the_picture(change):
    arguments = {"domain": "street", "person": 3, "camera": 1, "shot": 0, "seed": 0}
    assert (render(**arguments) != render(**(arguments | change))).mean() > 0.2


def test_street_and_night_show_the_same_people_and_station_others():
    assert DOMAINS["street"].population == DOMAINS["night"].population != DOMAINS["station"].population
    for person in range(20):
        city, rail = (appearance(DOMAINS[name].population, person) for name in ("street", "station"))
        assert city != rail
        assert city != appearance(DOMAINS["street"].population, person, seed=1)


def test_a_third_of_the_people_have_lookalikes():
    groups = [lookalikes("city", person) for person in range(900)]
    assert all(person in group for person, group in enumerate(groups))
    assert all(groups[other] == group for group in groups for other in group)
    assert {len(group) for group in groups} == {1, 2, 3, 4}
    assert 0.25 < np.mean([len(group) > 1 for group in groups]) < 0.42


def test_lookalikes_share_colors_and_differ_otherwise():
    firsts = [group[0] for group in (lookalikes("rail", p) for p in range(300)) if len(group) > 1]
    assert firsts
    swapped = 0
    for first in set(firsts):
        people = [appearance("rail", person) for person in lookalikes("rail", first)]
        assert all(person.colors() == people[0].colors() for person in people)
        layouts = {(p.upper.kind, p.upper.pattern, p.hair_style, p.bag) for p in people}
        assert len(layouts) == len(people)
        swapped += any(p.upper.color != people[0].upper.color for p in people)
    assert swapped


def test_people_who_are_not_lookalikes_differ_in_color():
    alone = [p for p in range(60) if len(lookalikes("city", p)) == 1]
    assert len({frozenset(appearance("city", p).colors()) for p in alone}) == len(alone)


def _dress(monkeypatch, **upper):
    """Lets person 0 of the city wear this."""
    someone = appearance("city", 0)
    plain = {
        "kind": "t-shirt",
        "pattern": "plain",
        "length": 1.0,
        "color": (0.1, 0.1, 0.1),
        "material": "cotton",
    }
    someone = dataclasses.replace(
        someone, upper=dataclasses.replace(someone.upper, **(plain | upper)), open=0.0, bag="none", hem=0.0
    )
    monkeypatch.setattr(rendering, "appearance", lambda population, person, seed: someone)


def _garment(**worn):
    return dataclasses.replace(appearance("city", 0).upper, **worn)


def _chest(domain, camera, shots=6):
    return np.mean([render(domain, 0, camera, shot)[38:55, 27:37] for shot in range(shots)])


def test_infrared_brightness_is_the_material_darkened_by_the_dye_and_not_its_hue(monkeypatch):
    brightness = {}
    for material in REFLECTANCE:
        for color in ((0.1, 0.1, 0.1), (0.9, 0.9, 0.9)):
            _dress(monkeypatch, material=material, color=color)
            brightness[material, color[0]] = _chest("night", 5)
        assert brightness[material, 0.9] > brightness[material, 0.1] + 4
    by_reflectance = [brightness[material, 0.1] for material in sorted(REFLECTANCE, key=REFLECTANCE.get)]
    assert all(np.diff(by_reflectance) > 4), by_reflectance
    assert brightness["cotton", 0.1] > brightness["leather", 0.9]

    red, blue = (0.5 / 0.299, 0.0, 0.0), (0.0, 0.0, 0.5 / 0.114)  # of one brightness
    night_red, night_blue = (_garment(color=color).dyes("infrared")[0] for color in (red, blue))
    np.testing.assert_allclose(night_red, night_blue, rtol=1e-6)


def test_visible_brightness_is_the_color_not_the_material(monkeypatch):
    _dress(monkeypatch, material="leather", color=(0.1, 0.1, 0.1))
    dark = _chest("street", 1)
    _dress(monkeypatch, material="synthetic", color=(0.1, 0.1, 0.1))
    assert _chest("street", 1) == dark
    _dress(monkeypatch, color=(0.9, 0.9, 0.9))
    assert _chest("street", 1) > dark + 50


def test_a_pattern_shows_more_faintly_in_infrared():
    garment = _garment(color=(0.0, 0.0, 0.0), accent=(1.0, 1.0, 1.0), material="cotton")
    visible, infrared = (np.ptp(np.stack(garment.dyes(modality)), axis=0).max() for modality in ("rgb", "infrared"))
    assert visible == 1
    np.testing.assert_allclose(infrared, 0.576, rtol=1e-6)  # four fifths of cotton's 0.72


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("moon", 0, 1, 0), "unknown domain 'moon'; choose one of street, station, night"),
        (("night", 0, 1, 0), r"domain 'night' has no camera 1; choose one of \(5, 6\)"),
        (("street", -1, 1, 0), "person, shot and seed must be >= 0"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        render(*arguments)
