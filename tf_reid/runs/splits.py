"""Source and target: which records a run trains on, which are held out, and in which trials it may be scored."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

import tfds_builders
from tf_reid.config import ConfigError
from tf_reid.data.joined_records import joined
from tf_reid.data.records import Records, load_records, stay_in_files
from tf_reid.methods import METHODS
from tf_reid.metrics import protocols
from tf_reid.runs import labelled_identities
from tf_reid.runs.trials import of_one_camera, protocol_of, shown_in, shows, trials_of, without
from tf_reid.settings import Config, DataSet

LEAST_VALIDATED = 2  # identities that a fraction of them holds out at least


def build_data(config: Config) -> None:
    """Build the data sets of `source` and `target` that are not built yet.

    Building draws random numbers. A run calls this before it seeds the random generators, so that its results are the
    same whether its data sets were built already or not.

    Raises:
        ConfigError: a list names a data set twice.
    """
    for domain in domains_of(config):
        specs = config.data.sets_of(domain)
        if twice := [spec for spec in specs if specs.count(spec) > 1]:
            raise ConfigError(f"data.{domain} names {twice[0]} twice, so that its images would count twice.")
        for spec in specs:
            built(spec, config)


def load_data(config: Config) -> dict[str, Records]:
    """The records of `source` and, if there is one, `target`; a data set that is not built yet is built.

    Every record of a data set; of several in a list every record of the first, which may be scored, and what may be
    trained on of the others: by their default protocol's first trial, or `all`.

    Raises:
        ConfigError: one of the others has no training image, or the source has no such camera.
    """
    loaded = {domain: _load(config, domain) for domain in domains_of(config)}
    if config.data.source_cameras is not None:
        _check_cameras(config.data.source_cameras, loaded["source"])
    return loaded


def domains_of(config: Config) -> list[str]:
    """`source` and, if there is one, `target`."""
    return ["source"] if config.data.target is None else ["source", "target"]


def built(spec: DataSet, config: Config) -> Any:
    """The builder of a data set, which is built now if it is not yet."""
    builder = tfds_builders.builder(spec, data_dir=config.data.data_dir)
    return tfds_builders.prepare(builder, config.data.manual_dir)


def _load(config: Config, domain: str) -> Records:
    builders = [built(spec, config) for spec in config.data.sets_of(domain)]
    if len(builders) == 1:
        return load_records(builders[0])
    in_files = stay_in_files(builders)
    first, *others = [load_records(builder, in_files) for builder in builders]
    return joined([first, *(_to_train_on(config, domain, records) for records in others)])


def _to_train_on(config: Config, domain: str, records: Records) -> Records:
    """What a list's later data set adds to a domain: its training images, which are scored in no protocol."""
    chosen = records.take(_allowed(config, domain, records, protocol_of(records, None), 0))
    if not len(chosen):
        raise ConfigError(f"{records.name} has no training image; leave it out of the list data.{domain}.")
    return replace(chosen, split=np.full(len(chosen), "train"))


def _check_cameras(cameras: Sequence[int], records: Records) -> None:
    if unknown := set(cameras) - set(records.camera.tolist()):
        known = ", ".join(map(str, np.unique(records.camera)))
        raise ConfigError(f"data.source_cameras: {records.name} has no camera {min(unknown)}; its cameras are {known}.")


def training_records(config: Config, domains: dict[str, Records]) -> dict[str, Records]:
    """The training images of each domain: those of `train` in the configured trial, or `all`.

    Junk is left out, and the images of validation identities; in the source also distractors, which have no label to
    learn, and identities that are not among `data.labelled_identities`.

    Raises:
        ConfigError: a domain has no training image, or fewer identities than are to be held out.
    """
    chosen = {}
    scored = domains[scored_domain(config)]
    held_out = validation_identities(config, scored)
    for domain, records in domains.items():
        shows_held_out = np.isin(records.numbers_in(scored.population), held_out)  # also a source, of the same people
        mask = _trainable(config, domain, records) & ~shows_held_out
        if domain == "source":
            mask &= np.isin(records.identity, labelled_identities.chosen(config, np.unique(records.identity[mask])))
        chosen[domain] = replace(records.take(mask), held_out={scored.population: held_out.tolist()})
        if not len(chosen[domain]):
            raise ConfigError(_why_no_training_image(config, domain, domains))
    return chosen


def validation_records(config: Config, domains: dict[str, Records]) -> Records:
    """The images of the validation identities, of the scored data set: nothing else keeps them out of the training.

    Raises:
        ConfigError: no identity is held out.
    """
    scored = domains[scored_domain(config)]
    held_out = validation_identities(config, scored)
    if not len(held_out):
        raise ConfigError(
            "No training identity is held out for validation: set data.validation, or evaluate.protocol to one with "
            "validation identities of its own."
        )
    return scored.take(_may_be_held_out(config, scored) & np.isin(scored.identity, held_out))


def validation_identities(config: Config, records: Records) -> np.ndarray:
    """The identities that are held out of training, ascending, int64 [N]; none by default.

    They are those of the highest numbers, whatever the order of the files. The labels of a target's choose settings and
    train nothing.

    Args:
        records: of the scored domain.

    Raises:
        ConfigError: they are both set and part of the protocol, or there are not so many.
    """
    wanted, protocol = config.data.validation, protocol_of(records, config.evaluate.protocol)
    domain = scored_domain(config)
    if protocol.get("validation_identities") and getattr(config.data, f"{domain}_split") == "train":
        of_trials, trial = protocol["validation_identities"], config.data.trial
        if trial >= len(of_trials):
            raise ConfigError(f"There is no trial {trial}: this protocol has {len(of_trials)}, counted from 0.")
        own = np.unique(of_trials[trial])
        if wanted:
            raise ConfigError(
                f"data.validation is {wanted}, but the protocol holds out {len(own)} identities of its own; set it to "
                "0."
            )
        return own
    if not wanted:
        return np.empty(0, np.int64)
    identities = np.unique(records.identity[_may_be_held_out(config, records)])
    count = int(wanted) if wanted >= 1 else max(LEAST_VALIDATED, round(wanted * len(identities)))
    if count >= len(identities):
        raise ConfigError(
            f"data.validation is {wanted}, but {records.scored_name} has {len(identities)} training identities; hold "
            "out fewer."
        )
    return identities[-count:]


def _may_be_held_out(config: Config, records: Records) -> np.ndarray:
    """Which images of the scored domain are of identities that may be held out for validation, bool [N].

    Of a target these are training identities also where all its images are trained on without labels: labels of test
    identities must not choose settings.
    """
    domain = scored_domain(config)
    mask = records.is_scored & _trainable(config, domain, records) & (records.identity > 0)
    if domain == "target":
        mask &= protocols.train_mask(records.identity, records.split, *_protocol_and_trial(config, domain, records))
    return mask


def _trainable(config: Config, domain: str, records: Records) -> np.ndarray:
    """Which images may be trained on or held out for validation, bool [N]: those of no test identity, and no junk."""
    return _allowed(config, domain, records, *_protocol_and_trial(config, domain, records))


def _allowed(config: Config, domain: str, records: Records, protocol: dict[str, Any], trial: int) -> np.ndarray:
    """Which images the domain's split and cameras and a protocol's trial allow to train on, bool [N]."""
    mask = records.identity >= (1 if domain == "source" else 0)
    if domain == "source" and config.data.source_cameras is not None:
        mask &= np.isin(records.camera, config.data.source_cameras)
    if getattr(config.data, f"{domain}_split") == "train":
        mask &= protocols.train_mask(records.identity, records.split, protocol, trial)
    return mask


def _protocol_and_trial(config: Config, domain: str, records: Records) -> tuple[dict[str, Any], int]:
    """The protocol that divides a domain's identities, as if it held out none for validation, and its trial.

    A source that is the target as well is divided as the target is.
    """
    first, scored = (config.data.sets_of(one)[:1] for one in (domain, scored_domain(config)))
    if first == scored:
        return protocol_of(records, config.evaluate.protocol) | {"validation_identities": None}, config.data.trial
    return protocol_of(records, None), 0


def _why_no_training_image(config: Config, domain: str, domains: dict[str, Records]) -> str:
    """One sentence that sends to nothing that would be refused in turn."""
    records = domains[domain]
    if getattr(config.data, f"{domain}_split") == "all":
        return f"{records.name} has no training image: all its images are distractors or junk."
    if domain == "source" and domains[scored_domain(config)].population == records.population:
        return (
            f"{records.name} has no training image, and a score on identities that are trained on would not be fair: "
            "put other identities in its split train, or score on another data set (data.target)."
        )
    return f"{records.name} has no training image; set data.{domain}_split=all to train on all."


def scored_domain(config: Config) -> str:
    """What a run is scored on: the target where there is one, else the source."""
    return "target" if config.data.target else "source"


def fair_trials(
    config: Config,
    records: Records,
    seen: dict[str, Records],
    adapted: bool | None = None,
    protocol: dict[str, Any] | None = None,
) -> list[protocols.Trial]:
    """The trials in which a run may be scored: those without images and identities that it was trained on.

    Identities count where they had labels: those of the source, if it shows the same people as the scored data set. A
    target of which `all` images were seen, without their labels, is scored in every trial. Identities that the run's
    initial weights were trained on count as well. So do validation identities, which may be those of the test in
    another trial: this run, or one whose networks it takes, may have been chosen by them.

    Args:
        records: of the scored domain.
        seen: domain -> the training records, by the settings that the run was trained with.
        adapted: whether what is scored was fitted to the target's images; by default, whether the run's training was.
        protocol: by default, the one that is configured, of test or validation identities.

    Raises:
        ConfigError: there is no such trial.
    """
    of_validation = protocol is not None or config.evaluate.identities == "validation"
    if protocol is None and of_validation:
        trials = validation_trials(config, records)
    else:
        trials = trials_of(records, protocol or protocol_of(records, config.evaluate.protocol))
    source = seen["source"]
    trained_on = shown_in(records, source)
    labelled = bool(trained_on.any())
    if adapted is None:
        adapted = _trains_on_target(config)
    if adapted and scored_domain(config) == "target" and config.data.target_split == "train":
        trained_on |= np.isin(records.file, seen["target"].file)

    fair = without(trained_on, trials)
    if not fair:
        raise ConfigError(_why_none_is_fair(config, records, source, labelled))
    fair = without(shows(records, source.known_before), fair)
    if not fair:
        raise ConfigError(
            f"Every trial of {records.scored_name} in which this run could be scored holds identities that its initial "
            "weights were trained on, as their card says; start from other weights, or score on other identities."
        )
    if not of_validation:
        fair = without(shows(records, source.held_out) | shows(records, source.chosen_before), fair)
    if not fair:
        raise ConfigError(
            f"Every trial of {records.scored_name} in which this run could be scored holds validation identities, by "
            "which it, or a run whose networks it takes, may have been chosen; keep evaluate.protocol as it was in "
            "training, or train with data.validation=0."
        )
    return fair


def _why_none_is_fair(config: Config, records: Records, source: Records, labelled: bool) -> str:
    key, what = ("source_split", "identities") if labelled else ("target_split", "images")
    of_others = ""
    if labelled and source.name != records.name:
        of_others = f", or score on other identities than those of {source.name}"
    return (
        f"Every trial of {records.scored_name} holds {what} that are trained on; set data.{key}=train and keep "
        f"evaluate.protocol as it was in training{of_others}."
    )


def fair_trials_elsewhere(
    config: Config, records: Records, seen: dict[str, Records], protocol: dict[str, Any]
) -> list[protocols.Trial]:
    """The trials of any data set in which a run may be scored: those without identities that it was trained on.

    The target's identities count as well, though they had no labels, and so do validation identities.

    Args:
        config: the run's. seen: domain -> the training records.

    Raises:
        ConfigError: there is no such trial.
    """
    source = seen["source"]
    known = shown_in(records, source)
    for identities in (source.known_before, source.chosen_before, source.held_out):
        known |= shows(records, identities)
    if _trains_on_target(config):
        known |= shown_in(records, seen["target"])
    fair = without(known, trials_of(records, protocol))
    if not fair:
        raise ConfigError(
            f"Every trial of {records.name} shows identities that the run was trained on or may have been chosen by, "
            "so no score would be fair; leave this data set out."
        )
    return fair


def validation_trials(config: Config, records: Records) -> list[protocols.Trial]:
    """The trials of the identities that are held out of training, see `protocols.of_validation`.

    Raises:
        ConfigError: no identity is held out.
    """
    held_out = validation_records(config, {scored_domain(config): records})
    of_test = protocol_of(records, config.evaluate.protocol)
    # An identity's other images are no part of the validation, nor are those of a list's later data sets.
    identity = np.where(_may_be_held_out(config, records), records.identity, -1)
    if of_test.get("same_camera"):
        trials = [of_one_camera(records, np.where(np.isin(identity, held_out.identity), identity, -1))]
    else:
        protocol = protocols.of_validation(of_test, np.unique(held_out.identity), np.unique(held_out.camera))
        trials = protocols.trials(identity, records.camera, records.split, protocol)
    return [
        replace(trial, name=trial.name.replace("trial 0", "validation"), number=config.data.trial) for trial in trials
    ]


def transductive(config: Config) -> bool:
    """Whether a stage learns from all images of the target, those that are scored among them."""
    return scored_domain(config) == "target" and config.data.target_split == "all" and _trains_on_target(config)


def _trains_on_target(config: Config) -> bool:
    kinds = METHODS[config.method["name"]].STAGES
    return any(kinds[name].domains == 2 and stage.steps for name, stage in config.stages.items())
