"""Rows of a list's data sets in equal numbers, whatever their sizes."""

import itertools
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from tf_reid.data import samplers
from tf_reid.data.pipeline import Sampler
from tf_reid.data.records import Records


def sampler(balance: str, kind, stage: samplers.BatchSettings, records: Mapping[str, Records]) -> Sampler:
    """The sampler of a method's stage.

    Args:
        balance: "images": one sampler draws from all images of a domain. "equal": each data set of a domain has a
            sampler of its own, and a batch takes rows from them in turn. A row, such as a pair, is of one data set.
            Rows of `views` are then mixed: see `_mixed`.
        kind, stage, records: as `samplers.of_stage` takes them.

    Raises:
        ValueError: as the stage's sampler; with "equal" every data set must suffice for a batch, and no two
            sources show the same people, who would be in two places of a batch.
    """
    read = ["source", "target"][: kind.domains]
    parts = {domain: records[domain].parts for domain in read}
    if balance == "images" or all(len(of_domain) == 1 for of_domain in parts.values()):
        return samplers.of_stage(kind, stage, dict(records))
    _check_that_people_differ(records["source"])
    is_of_views = kind.sampler == "views"
    together = stage.images_per_view if is_of_views else 1  # rows that show one identity
    drawers = []
    for chosen in itertools.product(*parts.values()):
        images, own = {}, {}
        for domain, (name, indices) in zip(read, chosen, strict=True):
            images[domain] = indices
            own[domain] = replace(records[domain].take(indices), name=name)
        drawers.append((images, samplers.of_stage(kind, stage, own)))

    def epoch(rng: np.random.Generator) -> dict[str, np.ndarray]:
        passes = [_as_indices(images, draw(rng)) for images, draw in drawers]
        longest = max(len(one["source"]) for one in passes)
        for one, (images, draw) in zip(passes, drawers, strict=True):
            while len(one["source"]) < longest:
                more = _as_indices(images, draw(rng))
                one |= {domain: np.concatenate([one[domain], more[domain]]) for domain in one}
        drawn = {domain: _in_turn([one[domain][:longest] for one in passes], together) for domain in passes[0]}
        return {domain: _mixed(rng, rows, together) for domain, rows in drawn.items()} if is_of_views else drawn

    return epoch


def _check_that_people_differ(source: Records) -> None:
    populations = [one.population for one in source.origins]
    for one in source.origins:
        if populations.count(one.population) > 1:
            raise ValueError(
                f"data.balance is equal, but {one.name} and another data set of data.source show the same people; name "
                "one of the two, or set data.balance=images."
            )


def _as_indices(images: Mapping[str, np.ndarray], drawn: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What a data set's own sampler drew, as indices into all records of each domain."""
    return {domain: images[domain][rows] for domain, rows in drawn.items()}


def _in_turn(steps_of_each: list[np.ndarray], together: int) -> np.ndarray:
    """int [steps, rows, ...] of each data set -> as many steps for each, whose rows are of the data sets in turn."""
    steps, rows, *row = steps_of_each[0].shape
    groups = [steps_of.reshape(-1, together, *row) for steps_of in steps_of_each]
    return np.stack(groups, axis=1).reshape(steps * len(groups), rows, *row)


def _mixed(rng: np.random.Generator, steps: np.ndarray, together: int) -> np.ndarray:
    """int [steps, rows, 2] -> the same, the identities of each step in a random order.

    View adaptation compares an image with one of the next identity. In turn, that would always be of another data set,
    and to tell data sets apart would be all that there is to learn.
    """
    identities = steps.reshape(len(steps), -1, together, 2)
    order = rng.permuted(np.tile(np.arange(identities.shape[1]), (len(steps), 1)), axis=1)
    return np.take_along_axis(identities, order[:, :, None, None], axis=1).reshape(steps.shape)
