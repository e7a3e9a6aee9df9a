"""Who the pedestrians are and what they wear: drawn from (seed, population, person) and nothing else."""

import functools
import zlib
from dataclasses import dataclass, replace

import numpy as np

Color = tuple[float, float, float]
LUMA = (0.299, 0.587, 0.114)  # the parts of red, green and blue in brightness

# Near-infrared reflectance of undyed cloth, which depends on the fibre. A dye darkens it by its own darkness, whatever
# its hue, and by four fifths at most: black cotton is still brighter at night than white leather.
REFLECTANCE = {"cotton": 0.72, "denim": 0.50, "wool": 0.34, "leather": 0.18, "synthetic": 0.92}
DARKENED_IN_INFRARED = 0.8

# (colour, weight as upper garment, weight as lower garment): people wear mostly dark and muted cloth.
_COLORS = (
    ((0.07, 0.07, 0.08), 5, 6),  # black
    ((0.25, 0.25, 0.27), 3, 3),  # charcoal
    ((0.50, 0.50, 0.51), 3, 2),  # grey
    ((0.88, 0.87, 0.85), 4, 1),  # white
    ((0.12, 0.15, 0.30), 3, 4),  # navy
    ((0.22, 0.33, 0.52), 2, 5),  # denim blue
    ((0.45, 0.62, 0.82), 2, 1),  # sky
    ((0.16, 0.28, 0.72), 2, 0.3),  # royal blue
    ((0.72, 0.12, 0.14), 2, 0.4),  # red
    ((0.42, 0.10, 0.16), 1.5, 0.5),  # burgundy
    ((0.14, 0.42, 0.24), 1.5, 0.4),  # green
    ((0.38, 0.38, 0.22), 1.5, 2),  # olive
    ((0.70, 0.60, 0.44), 1.5, 3),  # khaki
    ((0.38, 0.25, 0.16), 1.5, 1.5),  # brown
    ((0.88, 0.72, 0.16), 1, 0.2),  # yellow
    ((0.86, 0.44, 0.12), 1, 0.2),  # orange
    ((0.82, 0.48, 0.58), 1, 0.4),  # pink
    ((0.42, 0.22, 0.52), 1, 0.3),  # purple
    ((0.12, 0.50, 0.52), 1, 0.3),  # teal
)
_SKINS = ((0.92, 0.74, 0.62), (0.86, 0.66, 0.52), (0.74, 0.53, 0.39), (0.56, 0.38, 0.27), (0.36, 0.24, 0.17))
_HAIRS = ((0.08, 0.07, 0.07), (0.20, 0.13, 0.09), (0.38, 0.25, 0.14), (0.72, 0.56, 0.32), (0.55, 0.54, 0.53))

UPPER_KINDS = ("t-shirt", "shirt", "jacket", "coat", "hoodie", "dress")
LOWER_KINDS = ("trousers", "jeans", "shorts", "skirt")
HAIR_STYLES = ("bald", "short", "bob", "long", "ponytail", "bun", "afro")
BAGS = ("none", "backpack", "shoulder bag", "handbag")
# Patterns that show both colours about equally: between two of them a colour histogram sees no difference.
TWO_TONE = ("bands", "pinstripes", "checks", "dots", "yoke", "halves", "sleeves", "chest band")
PATTERNS = ("plain", *TWO_TONE, "print", "back print")


@dataclass(frozen=True)
class Garment:
    """One piece of clothing. Colours are RGB in 0..1, `period` is the pattern's in metres.

    `length` is the share of the arm that a sleeve covers, or of the leg that trousers or a skirt cover.
    """

    kind: str
    color: Color
    accent: Color
    pattern: str
    period: float
    material: str
    length: float

    def dyes(self, modality: str) -> tuple[np.ndarray, np.ndarray]:
        """Base and accent colour, float32 [3] each, seen in that modality ("rgb" or "infrared")."""
        if modality == "rgb":
            return np.float32(self.color), np.float32(self.accent)
        return self._at_night(self.color), self._at_night(self.accent)

    def _at_night(self, dye: Color) -> np.ndarray:
        darkness = 1 - np.dot(dye, LUMA)
        return np.full(3, REFLECTANCE[self.material] * (1 - DARKENED_IN_INFRARED * darkness), np.float32)


@dataclass(frozen=True)
class Appearance:
    """What every picture of one person shares. Lengths in metres, `girth` scales all widths."""

    height: float
    girth: float
    shoulders: float
    hips: float
    legs: float  # the legs' share of the height
    skin: Color
    hair: Color
    hair_style: str
    beard: bool
    hat: Garment | None
    upper: Garment
    inner: Garment  # what an open jacket or coat shows
    open: float  # half the angle that the open front spans, in radians; 0 is closed
    hem: float  # how far the upper garment hangs below the waist, as a share of the leg
    lower: Garment
    shoes: Garment
    bag: str
    bag_garment: Garment

    def colors(self) -> set[Color]:
        """The colours of skin, hair, clothes, shoes and bag, wherever they are."""
        cloths = (self.upper, self.inner, self.lower, self.shoes, self.bag_garment)
        return {self.skin, self.hair} | {c for g in cloths for c in (g.color, g.accent)}


def numbers(*names: str | int) -> tuple[int, ...]:
    """Names and counts as seed words. crc32, since `hash` of a str differs between processes."""
    return tuple(zlib.crc32(n.encode()) if isinstance(n, str) else int(n) for n in names)


def lookalikes(population: str, person: int, seed: int = 0) -> range:
    """The consecutive persons dressed alike with `person`, itself included; of length 1 for most people."""
    block = person // 9  # one group of 2 to 4 in every nine: a third of the people
    rng = np.random.default_rng(numbers(seed, population, "group", block))
    size = int(rng.integers(2, 5))
    first = block * 9 + int(rng.integers(0, 10 - size))
    group = range(first, first + size)
    return group if person in group else range(person, person + 1)


@functools.lru_cache(maxsize=4096)
def appearance(population: str, person: int, seed: int = 0) -> Appearance:
    """The person's body and clothes. Equal arguments give equal appearances in every process."""
    group = lookalikes(population, person, seed)
    someone = _draw(np.random.default_rng(numbers(seed, population, "person", group[0])))
    if len(group) == 1:
        return someone
    patterned = np.random.default_rng(numbers(seed, population, "flavour", group[0])).random() < 0.6
    return _dressed_alike(someone, group.index(person), patterned, numbers(seed, population, "alike", group[0]))


def _pick(rng, options, weights=None):
    weights = None if weights is None else np.asarray(weights, float) / np.sum(weights)
    return options[int(rng.choice(len(options), p=weights))]


def _tint(rng, color: Color, spread: float = 0.035) -> Color:
    return tuple(float(c) for c in np.clip(np.asarray(color) + rng.normal(0, spread, 3), 0.03, 0.95).round(4))


def _color(rng, column: int) -> Color:
    return _tint(rng, _pick(rng, [c[0] for c in _COLORS], [c[column] for c in _COLORS]))


def _accent(rng, color: Color) -> Color:
    """A second colour far enough from the first for the pattern to show in a small picture."""
    while True:
        accent = _color(rng, 1)
        if np.abs(np.subtract(accent, color)).sum() > 0.6:
            return accent


def _garment(rng, kind, column, patterns, materials, length) -> Garment:
    color = _color(rng, column)
    period = float(rng.uniform(0.09, 0.20))
    return Garment(kind, color, _accent(rng, color), _pick(rng, patterns), period, _pick(rng, materials), length)


def _draw(rng) -> Appearance:
    feminine = rng.random() < 0.5
    kind = _pick(rng, UPPER_KINDS, (5, 3, 4, 2, 2, 2 if feminine else 0))
    sleeve = {"t-shirt": rng.choice([0.0, 0.22, 0.3, 0.4]), "shirt": rng.choice([0.3, 0.55, 1.0])}.get(kind, 1.0)
    if kind == "dress":
        sleeve = rng.choice([0.0, 0.25, 1.0])
    light, heavy = ("cotton", "cotton", "synthetic"), ("wool", "leather", "synthetic", "denim", "cotton")
    plain_or_any = ("plain",) * len(PATTERNS) + PATTERNS
    upper = _garment(
        rng, kind, 1, plain_or_any, heavy if kind in ("jacket", "coat") else (*light, "wool"), float(sleeve)
    )
    lower_kind = _pick(rng, LOWER_KINDS, (4, 4, 1.5, 3) if feminine else (4, 4, 2, 0))
    lengths = {
        "trousers": (0.97, 0.97, 0.8),
        "jeans": (0.97,),
        "shorts": (0.4, 0.5),
        "skirt": (0.35, 0.5, 0.7),
    }
    cloth = ("denim",) if lower_kind == "jeans" else ("cotton", "wool", "synthetic", "leather")
    lower_patterns = ("plain",) * 8 + (("bands", "checks", "dots") if lower_kind == "skirt" else ("side stripe",))
    lower = _garment(rng, lower_kind, 2, lower_patterns, cloth, _pick(rng, lengths[lower_kind]))
    hair_weights = (0, 1, 3, 5, 3, 2, 0.7) if feminine else (1.2, 8, 0.7, 0.5, 0.3, 0.1, 0.7)
    hat_kind = _pick(rng, ("none", "cap", "beanie"), (7, 1, 1))
    hat = _garment(rng, hat_kind, 1, ("plain",), ("cotton", "wool"), 1.0)
    hem = {"coat": rng.uniform(0.3, 0.55), "dress": 0.0, "jacket": 0.08, "hoodie": 0.1}.get(
        kind, _pick(rng, (-0.04, 0.05, 0.12))
    )
    return Appearance(
        height=float(rng.normal(1.65 if feminine else 1.77, 0.06)),
        girth=float(np.clip(rng.normal(1.0, 0.14), 0.78, 1.4)),
        shoulders=float(rng.normal(0.185 if feminine else 0.22, 0.008)),
        hips=float(rng.normal(0.180 if feminine else 0.168, 0.008)),
        legs=float(rng.normal(0.475, 0.012)),
        skin=_tint(rng, _pick(rng, _SKINS), 0.02),
        hair=_tint(rng, _pick(rng, _HAIRS, (4, 4, 3, 1.5, 1)), 0.02),
        hair_style=_pick(rng, HAIR_STYLES, hair_weights),
        beard=bool(not feminine and rng.random() < 0.25),
        hat=None if hat_kind == "none" else hat,
        upper=upper,
        inner=_garment(rng, "shirt", 1, ("plain", "plain", "bands", "print"), light, 1.0),
        open=float(rng.uniform(0.3, 0.75)) if kind in ("jacket", "coat") and rng.random() < 0.65 else 0.0,
        hem=float(hem),
        lower=lower,
        shoes=_garment(rng, _pick(rng, ("shoes",) * 4 + ("boots",)), 2, ("plain",), ("leather", "synthetic"), 1.0),
        bag=_pick(rng, BAGS, (4, 3, 2, 2)),
        bag_garment=_garment(rng, "bag", 1, ("plain", "plain", "yoke"), ("leather", "synthetic", "cotton"), 1.0),
    )


def _dressed_alike(first: Appearance, member: int, patterned: bool, group_seed: tuple[int, ...]) -> Appearance:
    """The group's `member`: the first one's colours, arranged and cut in another way."""
    shared = np.random.default_rng(group_seed)  # the same draws for all members, so that no two get the same one
    patterns = shared.permutation(TWO_TONE)
    cuts = shared.permutation(["t-shirt", "shirt", "hoodie", "jacket"])
    bags, styles = shared.permutation(BAGS), shared.permutation(HAIR_STYLES[1:])
    own = np.random.default_rng((*group_seed, member))
    upper, lower = first.upper, first.lower
    # Every other member may swap the colours of upper and lower, if the pattern still shows.
    contrast = np.abs(np.subtract(lower.color, upper.accent)).sum()
    if member % 2 and contrast > 0.5 and own.random() < 0.7:
        upper, lower = replace(upper, color=lower.color), replace(lower, color=upper.color)
    kind = upper.kind if patterned else str(cuts[member])
    pattern = str(patterns[member]) if patterned else "plain"
    sleeve = {"t-shirt": 0.3, "shirt": 0.55}.get(kind, 1.0) if kind != upper.kind else upper.length
    return replace(
        first,
        height=float(np.clip(first.height + own.normal(0, 0.06), 1.5, 1.95)),
        girth=float(np.clip(first.girth + own.normal(0, 0.12), 0.78, 1.4)),
        upper=replace(upper, kind=kind, pattern=pattern, length=sleeve, period=float(own.uniform(0.09, 0.2))),
        hem=first.hem if kind == first.upper.kind else float(own.choice([-0.04, 0.06, 0.13])),
        open=first.open if patterned else (0.5 if kind == "jacket" else 0.0),
        lower=replace(lower, length=float(np.clip(lower.length + own.choice([-0.12, 0, 0]), 0.3, 0.97))),
        bag=str(bags[member]),
        hair_style=str(styles[member]),
        hat=None,
    )
