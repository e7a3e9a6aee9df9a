"""The pages of one run: those of its method and those that every run has."""

import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tf_reid.config import ConfigError
from tf_reid.evaluation import extraction, pages, scoring
from tf_reid.evaluation.comparison import Comparison
from tf_reid.pictures import curves
from tf_reid.runs import splits

POINTS = 1000  # of the evaluated images in the map of features, at most


@dataclass(frozen=True)
class Options:
    """What pages show.

    Attributes:
        count: images that a page is made of.
        identities: of the queries; empty: random ones.
        seed: of all random choices.
        plane: "tsne" or "pca", how features become points.
        beside: folders of other runs whose CMC curves stand beside the run's own.
    """

    count: int = 6
    identities: Sequence[int] = ()
    seed: int = 0
    plane: str = "tsne"
    beside: Sequence[Path] = ()


class RunPages:
    """Draws a run's pages.

    Args:
        run: what `scoring.open_trained` returns.
        folder: the run's folder, for the projector's log.
    """

    def __init__(self, run, folder: Path, options: Options):
        self.run, self.folder, self.options = run, folder, options
        self.presentation = run.model.presentation()
        self.records, self.source = run.domains[splits.scored_domain(run.config)], run.seen["source"]
        self.trial = splits.fair_trials(run.config, self.records, run.seen)[0]
        self.size, self.two_domains = run.config.data.image_size, "target" in run.seen
        self.representations = scoring.representations(run.model, run.config, self.records)

    def drawers(self) -> dict[str, Callable[[], dict[str, np.ndarray]]]:
        """WHAT -> a function that draws it: name of the file -> picture uint8 [H, W, 3]."""
        draw: dict[str, Callable[[], dict[str, np.ndarray]]] = {"ranks": self.ranks}
        if self.presentation.maps():
            draw["attention"] = self.attention
        if (self.folder / "metrics.json").exists():
            draw["cmc"] = self.cmc
        of_method = {what: functools.partial(self.of_method, what) for what in self.presentation.pages()}
        return of_method | draw | {"map": self.feature_map, "projector": self.projector}

    def of_method(self, what: str) -> dict[str, np.ndarray]:
        """A page of the method: source beside target, or queries beside gallery images."""
        first, second = self._images(same_identities="probe" in self.run.model.encoders())
        if self.two_domains:
            of_source = pages.random_images(self.source, self.size, self.options.seed, len(first.images))
            first, second = of_source, first
        return {what: pages.draw_page(self.presentation.pages()[what](first, second))}

    def ranks(self) -> dict[str, np.ndarray]:
        """A rank list for each representation."""
        shown = self.size, self.options.seed, self.options.identities, self.options.count
        return {
            f"ranks_{name}": pages.rank_list(self.compared[name], self.records, self.trial, *shown)
            for name in self.representations
        }

    def attention(self) -> dict[str, np.ndarray]:
        """Where the encoders look."""
        return {"attention": pages.attention(self.presentation.maps(), *self._images(same_identities=True))}

    def cmc(self) -> dict[str, np.ndarray]:
        """The CMC curves of the last evaluation, and of other runs' last evaluations."""
        return {"cmc": curves.cmc(cmc_curves([self.folder, *self.options.beside]))}

    def feature_map(self) -> dict[str, np.ndarray]:
        """Pixels and every representation as points of a plane; the target beside the source, if there is one."""
        images, is_query = pages.sample(self.trial, self.options.seed, POINTS)
        panels = {"pixels": pages.pixels_in_rows(self.records.take(images), self.size)}
        for name in self.representations:
            panels[name] = pages.features_of(self.compared[name], images, is_query)
        groups = [f"camera {camera}" for camera in self.records.camera[images]]
        identities = self.records.identity[images]
        if self.two_domains:
            source = self._some_of_source()
            raw = extraction.extract(self.representations["raw"].encoders["image"], source, self.size)
            for name, features in panels.items():
                of_source = pages.pixels_in_rows(source, self.size) if name == "pixels" else raw
                panels[name] = np.concatenate([features, of_source])
            groups += ["source"] * len(source)
            identities = np.pad(identities, (0, len(source)))
        plane, seed = self.options.plane, self.options.seed
        return {"map": pages.feature_map(panels, np.array(groups), identities, plane, seed)}

    def projector(self) -> dict[str, np.ndarray]:
        """TensorBoard's Embedding Projector for each representation; no picture."""
        for name in self.representations:
            of_trial = self.compared[name], self.records, self.trial
            pages.write_projector(self.folder, name, *of_trial, self.size, self.options.seed)
        return {}

    @functools.cached_property
    def compared(self) -> dict[str, Comparison]:
        """Each representation's features, compared as configured."""
        return dict(scoring.comparisons(self.representations, self.records, [self.trial], self.run.config))

    def _images(self, same_identities):
        shown = self.size, self.options.seed, self.options.identities, self.options.count
        return pages.queries_and_gallery_images(self.records, self.trial, *shown, same_identities)

    def _some_of_source(self):
        order = np.random.default_rng(self.options.seed).permutation(len(self.source))
        return self.source.take(order[: POINTS // 2])


def cmc_curves(folders: Sequence[Path]) -> dict[str, Sequence[float]]:
    """Name -> CMC curve, in per cent, of every representation that the runs' last evaluations scored.

    Names begin with the run's where there are several: its folder's name, or the whole path where two are called alike.

    Raises:
        ConfigError: a run was not scored yet.
    """
    by_name = {}
    names = [folder.name for folder in folders]
    for folder in folders:
        path = folder / "metrics.json"
        if not path.exists():
            raise ConfigError(
                f"{folder} holds no metrics.json; score it with python -m tf_reid.evaluate --run {folder}."
            )
        run = folder.name if names.count(folder.name) == 1 else folder
        for representation, metrics in json.loads(path.read_text()).items():
            by_name[f"{run}: {representation}" if len(folders) > 1 else representation] = metrics["cmc"]
    return by_name
