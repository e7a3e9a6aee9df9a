"""The round parts that a dressed person in a walking pose is made of."""

from dataclasses import dataclass

import numpy as np

from tfds_builders.synthetic_pedestrians.cloth import Inks, weave
from tfds_builders.synthetic_pedestrians.drawing import Part
from tfds_builders.synthetic_pedestrians.people import Appearance

_BULKY = ("jacket", "coat", "hoodie")


@dataclass(frozen=True)
class Pose:
    yaw: float  # 0 faces the camera, pi shows the back
    phase: float  # of the step, in radians
    stride: float  # the thigh's swing, in radians; near 0 stands
    elbow: float  # bend of the arms in radians
    spread: float  # how far the arms stand off the body, in radians
    raised: int  # which arm is bent up, as if holding a phone: -1, 1 or 0 for none

    def swing(self, side: int) -> float:
        """-1..1: how far the leg of that side (1 left, -1 right) is ahead."""
        return float(np.sin(self.phase + (0 if side > 0 else np.pi)))


def body_parts(who: Appearance, pose: Pose, modality: str) -> tuple[list[Part], np.ndarray]:
    """One person's parts, feet on the ground at the origin, and the palette they use (float32 [inks, 3])."""
    body = _Body(who, pose, Inks(modality))
    return body.legs() + body.torso() + body.arms() + body.head() + body.bag(), body.inks.palette()


class _Body:
    def __init__(self, who: Appearance, pose: Pose, inks: Inks):
        self.who, self.pose, self.inks = who, pose, inks
        infrared = inks.modality == "infrared"
        self.skin_color = np.float32([0.58] * 3) if infrared else np.float32(who.skin)
        self.skin = inks.add(self.skin_color)
        self.hair = inks.add([0.22 + 0.35 * max(who.hair)] * 3 if infrared else who.hair)
        self.upper, self.lower = inks.of(who.upper), inks.of(who.lower)
        self.dress = who.upper.kind == "dress"

        self.leg_length = who.legs * who.height
        self.bone = (self.leg_length - 0.06) / 2
        self.thighs = {side: pose.stride * pose.swing(side) for side in (1, -1)}
        lifting = {side: np.cos(pose.phase + (0 if side > 0 else np.pi)) for side in (1, -1)}
        self.shins = {side: self.thighs[side] - 0.08 - 1.3 * pose.stride * max(0.0, lifting[side]) for side in (1, -1)}
        # The hips ride at the height that puts the lower foot on the ground.
        self.hip = 0.06 + max(self.bone * (np.cos(self.thighs[s]) + np.cos(self.shins[s])) for s in (1, -1))
        self.shoulder = self.hip + (0.825 - who.legs) * who.height
        self.crotch = self.hip - 0.03
        self.wide, self.deep = who.shoulders * (0.55 + 0.45 * who.girth), 0.115 * who.girth
        self.hips = who.hips * who.girth
        self.bulk = 1.1 if who.upper.kind in _BULKY else 1.0

    def at(self, side: float, up: float, ahead: float) -> np.ndarray:
        """From the body's axes (its left, up, its front) to metres right, up, towards the camera."""
        c, s = np.cos(self.pose.yaw), np.sin(self.pose.yaw)
        return np.array([c * side + s * ahead, up, -s * side + c * ahead])

    def seen(self, width: float, depth: float) -> float:
        """Half-width of an elliptic section from the camera's side."""
        return float(np.hypot(width * np.cos(self.pose.yaw), depth * np.sin(self.pose.yaw)))

    def plain(self, start, end, widths, caps, ink, bias=0.0) -> Part:
        return Part(start, end, widths, caps, lambda theta, t: np.full(t.shape, ink, np.uint8), bias)

    def legs(self) -> list[Part]:
        who = self.who
        trousers = who.lower.kind in ("trousers", "jeans", "shorts") and not self.dress
        worn = self.inks.add(who.lower.dyes(self.inks.modality)[0] + np.float32(0.09))
        shoe = self.inks.of(who.shoes)[0]

        def paint_from(first):  # the leg's share where this bone starts
            def paint(theta, t):
                if not trousers:
                    return np.full(t.shape, self.skin, np.uint8)
                share = first + 0.5 * t
                cloth = weave(who.lower, self.lower, theta, share * 2 * self.bone, 0.09, share)
                if who.lower.kind == "jeans" and self.inks.modality == "rgb":
                    cloth[np.abs(theta) < 0.55] = worn
                cloth[share > who.lower.length] = self.skin
                return cloth

            return paint

        parts = []
        wide = 0.083 * who.girth * (1.12 if trousers and who.lower.length > 0.6 else 0.95)
        for side in (1, -1):
            x, thigh, shin = side * self.hips * 0.52, self.thighs[side], self.shins[side]
            top = self.at(x, self.hip, 0)
            knee_up, knee_ahead = self.hip - self.bone * np.cos(thigh), self.bone * np.sin(thigh)
            up, ahead = knee_up - self.bone * np.cos(shin), knee_ahead + self.bone * np.sin(shin)
            knee, ankle = self.at(x, knee_up, knee_ahead), self.at(x, up, ahead)
            parts.append(Part(top, knee, (wide, wide * 0.74), (0.08, 0.06), paint_from(0.0), -0.12))
            calf = (wide * 0.74, wide * 0.76, wide * 0.56)
            parts.append(Part(knee, ankle, calf, (0.06, 0.03), paint_from(0.5), -0.12))
            tilt = 0.05 * max(0.0, thigh - shin - 0.3)
            heel, toe = (
                self.at(x, up - 0.02, ahead - 0.04),
                self.at(x + side * 0.03, up - 0.035 + tilt, ahead + 0.13),
            )
            parts.append(self.plain(heel, toe, (0.05, 0.045), (0.045, 0.045), shoe, -0.11))
            if who.shoes.kind == "boots":
                shaft = ankle + 0.55 * (knee - ankle)
                parts.append(self.plain(shaft, ankle, (wide * 0.78, wide * 0.65), (0.0, 0.03), shoe, -0.10))
        return parts

    def torso(self) -> list[Part]:
        """From the shoulders to the crotch, and the skirt of a dress, a coat or a skirt below it."""
        who, wide, deep, hips = self.who, self.wide, self.deep, self.hips
        length = self.shoulder - self.crotch
        waist = 0.72
        hem = waist + 0.11 + who.hem * self.leg_length / length
        inner, seam = self.inks.of(who.inner), self.inks.of(who.upper, 0.72)[0]
        strap = self.inks.of(who.bag_garment)[0]

        def paint(theta, t):
            front = np.abs(theta)
            if who.upper.pattern == "sleeves":
                ink = np.full(t.shape, self.upper[0], np.uint8)
            else:
                ink = weave(who.upper, self.upper, theta, t * length, wide * 0.8, t)
            if who.upper.kind == "shirt":  # the row of buttons
                ink[front < 0.07] = seam
            if who.upper.kind == "hoodie":  # the pocket's edge
                ink[(front < 0.75) & (np.abs(t - 0.64) < 0.02)] = seam
            bottom = hem
            if who.open:
                edge = who.open * (0.55 + 0.6 * t)
                ink[front < edge + 0.1] = seam
                ink = np.where(front < edge, weave(who.inner, inner, theta, t * length, wide * 0.8, t), ink)
                bottom = np.where(front < who.open, waist, hem)
            ink[(front < 0.7) & (t < 0.10 * np.cos(np.minimum(front * 2, 1.5)))] = self.skin  # the neckline
            if not self.dress:
                below = weave(who.lower, self.lower, theta, t * length, wide * 0.8, 0 * t)
                ink = np.where(t > bottom, below, ink)
            if who.bag == "backpack":
                ink[(np.abs(front - 0.62) < 0.14) & (t < 0.55)] = strap
            if who.bag == "shoulder bag":  # worn across: from the right shoulder down to the left hip
                ink[np.abs(np.sin(theta) * 0.5 + 0.42 - t) < 0.06] = strap
            return ink

        widths = (wide * 0.80, wide, wide * 0.92, wide * 0.86, hips * 0.90, hips * 1.02, hips * 0.98)
        depths = (deep * 0.75, deep * 0.95, deep, deep * 0.95, deep * 0.95, deep * 1.08, deep)
        outline = tuple(self.seen(w, d) * self.bulk for w, d in zip(widths, depths, strict=True))
        top, end = self.at(0, self.shoulder, 0), self.at(0, self.crotch, 0)
        return [Part(top, end, outline, (0.06, 0.05), paint, 0.03), *self.skirt()]

    def skirt(self) -> list[Part]:
        who = self.who
        if self.dress:
            garment, inks, fall, flare = (
                who.upper,
                self.upper,
                float(np.clip(who.lower.length, 0.4, 0.6)),
                1.3,
            )
        elif who.upper.kind == "coat":
            garment, inks, fall, flare = who.upper, self.upper, who.hem, 1.12
        elif who.lower.kind == "skirt":
            garment, inks, fall, flare = who.lower, self.lower, who.lower.length, 1.2
        else:
            return []
        fall *= self.leg_length
        behind = self.inks.of(who.lower, 0.85)[0]  # what shows in an open coat

        def paint(theta, t):
            first = 0.75 if garment is who.upper else 0.0
            ink = weave(garment, inks, theta, t * fall, self.hips, first + (1 - first) * t)
            if garment is who.upper and who.open:
                ink[np.abs(theta) < who.open] = behind
            return ink

        deep = self.deep * self.bulk
        outline = (self.seen(self.hips * 0.95, deep), self.seen(self.hips * flare, deep * flare * 1.15))
        top, end = self.at(0, self.hip + 0.04, 0), self.at(0, self.hip - fall, 0)
        return [Part(top, end, outline, (0.04, 0.015), paint, 0.035)]

    def arms(self) -> list[Part]:
        who, pose = self.who, self.pose
        upper_length, fore_length = 0.172 * who.height, 0.150 * who.height

        def paint_from(first):
            def paint(theta, t):
                share = first + 0.5 * t
                if who.upper.pattern == "sleeves":
                    ink = np.full(t.shape, self.upper[1], np.uint8)
                elif who.upper.pattern in ("bands", "pinstripes", "checks", "dots"):
                    ink = weave(who.upper, self.upper, theta, share * 0.55, 0.06, share)
                else:
                    ink = np.full(t.shape, self.upper[0], np.uint8)
                ink[share > who.upper.length] = self.skin
                return ink

            return paint

        parts = []
        w = 0.052 * (1.25 if who.upper.kind in _BULKY else 1.0) * (0.6 + 0.4 * who.girth)
        for side in (1, -1):
            lifted = pose.raised == side
            forward = 0.35 if lifted else -0.75 * pose.stride * pose.swing(side)
            angle = forward + (1.9 if lifted else pose.elbow)
            out = pose.spread
            top = np.array([side * (self.wide * self.bulk - 0.035), self.shoulder - 0.035, 0])
            elbow = top + upper_length * np.array([side * np.sin(out), -np.cos(forward) * np.cos(out), np.sin(forward)])
            fore = np.array([side * np.sin(out) * 0.3 * np.cos(angle), -np.cos(angle), np.sin(angle)])
            wrist = elbow + fore_length * fore
            hand = wrist + 0.28 * fore_length * fore
            top, elbow, wrist, hand = (self.at(*joint) for joint in (top, elbow, wrist, hand))
            parts.append(Part(top, elbow, (w, w * 0.85), (0.05, 0.04), paint_from(0.0), 0.04))
            parts.append(Part(elbow, wrist, (w * 0.85, w * 0.68), (0.04, 0.03), paint_from(0.5), 0.045))
            parts.append(self.plain(wrist, hand, (0.036, 0.03), (0.02, 0.03), self.skin, 0.043))
        return parts

    def head(self) -> list[Part]:
        """Neck, head with face and hair, and what hangs or sits beside the head."""
        who, at, seen = self.who, self.at, self.seen
        size = 0.067 * who.height
        wide, deep, half = size * 0.79, size * 0.93, size * 1.2
        middle = self.shoulder + 0.035 + size * 1.4
        dark = self.inks.add(self.skin_color * 0.5)
        hat, brim = (self.inks.of(who.hat)[0], self.inks.of(who.hat, 0.7)[0]) if who.hat else (0, 0)

        def paint(theta, t):  # t runs from about -1 at the crown to 2 at the chin, as the ends are round
            front = np.abs(theta)
            ink = np.full(t.shape, self.skin, np.uint8)
            if who.beard:
                ink[(front < 1.3) & (t > 1.05)] = self.hair
            ink[(np.abs(front - 0.42) < 0.17) & (np.abs(t - 0.55) < 0.2)] = dark  # eyes
            ink[(front < 0.28) & (np.abs(t - 1.42) < 0.13)] = dark  # mouth
            if who.hair_style != "bald":
                ink[t < np.where(front < 1.0, -0.05, np.where(front < 1.5, 0.9, 1.7))] = self.hair
            if who.hat is not None:
                ink[t < 0.1] = hat
                if who.hat.kind == "cap":
                    ink[(front < 1.2) & (np.abs(t - 0.1) < 0.2)] = brim
            return ink

        width = seen(wide, deep)
        crown, chin = at(0, middle + half * 0.33, 0.02), at(0, middle - half * 0.33, 0.02)
        shaded = self.inks.add(self.skin_color * 0.85)
        parts = [
            self.plain(
                at(0, self.shoulder, 0),
                at(0, middle - half * 0.6, 0.01),
                (0.06, 0.052),
                (0.02, 0.02),
                shaded,
                -0.02,
            ),
            Part(crown, chin, (width, width * 0.9), (half * 0.67, half * 0.67), paint, 0.06),
        ]
        style = who.hair_style
        if style in ("bob", "long"):
            fall, behind = half * (0.9 if style == "bob" else 2.3), -size * 0.45
            outline = (seen(wide * 1.12, deep * 0.75), seen(wide * 1.2, deep * 0.7), seen(wide, deep * 0.55))
            top, tip = at(0, middle + half * 0.35, behind), at(0, middle - fall, behind - 0.03)
            parts.append(self.plain(top, tip, outline, (half * 0.5, 0.03), self.hair, 0.03))
        if style == "ponytail":
            top, tip = at(0, middle + half * 0.2, -deep * 1.1), at(0, middle - half * 1.3, -deep * 1.4)
            parts.append(self.plain(top, tip, (0.035, 0.045, 0.02), (0.02, 0.02), self.hair, 0.04))
        if style == "bun":
            knot = at(0, middle + half * 0.5, -deep * 0.95)
            parts.append(self.plain(knot, knot - [0, 0.02, 0], (0.055, 0.055), (0.05, 0.05), self.hair, 0.03))
        if style == "afro" and who.hat is None:
            cloud, outline = at(0, middle + half * 0.35, -size * 0.35), (size * 1.35, size * 1.3)
            parts.append(self.plain(cloud, cloud - [0, 0.06, 0], outline, (size * 1.2, size), self.hair, 0.02))
        if who.upper.kind == "hoodie":
            hood, cloth = at(0, self.shoulder + 0.05, -0.09), self.inks.of(who.upper, 0.85)[0]
            outline = (seen(0.13, 0.06), seen(0.11, 0.05))
            parts.append(self.plain(hood, hood - [0, 0.07, 0], outline, (0.04, 0.06), cloth, 0.035))
        return parts

    def bag(self) -> list[Part]:
        garment, wide = self.who.bag_garment, self.wide
        inks, zipper = self.inks.of(garment), self.inks.of(garment, 0.7)[0]

        def paint(theta, t):
            ink = weave(garment, inks, theta, t * 0.4, 0.15, t)
            ink[np.abs(t - 0.3) < 0.05] = zipper
            return ink

        if self.who.bag == "backpack":
            width, back = self.seen(0.155, 0.10), -self.deep - 0.09
            top, end = self.at(0, self.shoulder - 0.06, back), self.at(0, self.shoulder - 0.44, back)
            return [Part(top, end, (width * 0.9, width, width), (0.05, 0.04), paint, 0.05)]
        if self.who.bag == "shoulder bag":
            width = self.seen(0.07, 0.17)
            top, end = self.at(wide + 0.07, self.hip + 0.08, 0.0), self.at(wide + 0.07, self.hip - 0.16, 0.0)
            return [Part(top, end, (width, width), (0.03, 0.03), paint, 0.08)]
        if self.who.bag == "handbag":
            width = self.seen(0.06, 0.15)
            top, end = (
                self.at(-wide - 0.09, self.hip - 0.10, 0.02),
                self.at(-wide - 0.09, self.hip - 0.36, 0.02),
            )
            return [Part(top, end, (width * 0.75, width, width), (0.03, 0.03), paint, 0.09)]
        return []
