"""YAML and `key=value` overrides -> validated values. Importing this module does not load TensorFlow.

A run is described by one file with the sections `data`, `method`, `stages`, `run` and `evaluate`. The `method` section
has no schema of its own: the keyword-only arguments of the method's constructor are the schema.
"""

import difflib
import inspect
import os
import re
import reprlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pydantic
import yaml

from tf_reid.settings import (
    Augment,
    Config,
    Data,
    EarlyStop,
    Evaluate,
    Optimizer,
    RatePlateau,
    Run,
    Section,
    StageSettings,
)
from tfds_builders import did_you_mean


class ConfigError(ValueError):
    """A setting is wrong; the message names its key and what to do."""


_PACKAGE = Path(__file__).parent
# In an installed package the configurations lie within it, in a source tree beside it.
SHIPPED = _PACKAGE / "configs" if (_PACKAGE / "configs").is_dir() else _PACKAGE.parent / "configs"
LONGEST = 200  # characters of a value that a message quotes
RENAMED = {("data", "validation_identities"): "validation"}  # a setting of older runs -> what it is called now
SectionT = TypeVar("SectionT", bound=Section)


def load(path: str | Path, overrides: Sequence[str], methods: Mapping[str, Any]) -> Config:
    """Read a configuration, apply `key=value` overrides (dotted keys, YAML values), validate everything.

    Args:
        path: a YAML file, or the name of a configuration that comes with tf_reid, such as "simpgan".
        overrides: such as `["stages.translation.steps=100", "method.cycle_weight=0.0"]`. `source=…` alone is accepted
            where only one section has such a key.
        methods: name -> class; the class has `STAGES` and a constructor whose keyword-only arguments are the schema.

    Raises:
        ConfigError: unreadable file, unknown key, wrong type, missing file; one sentence a mistake.
    """
    path = str(path)
    if isinstance(overrides, str):
        raise ConfigError(f"Overrides are a list of texts, such as [{overrides!r}]; got one text.")
    values = read(path)
    for override in overrides:
        _override(values, override)
    name = values.get("method", {}).get("name") if isinstance(values.get("method"), dict) else None
    if not isinstance(name, str) or name not in methods:
        hint = did_you_mean(str(name), methods)
        raise ConfigError(f"{path}: method.name is {_short(name)}{hint}; it must be one of: {', '.join(methods)}.")
    _check_names_of_stages(values.get("stages"), methods[name].STAGES, path)
    config = _validated(Config, values, path)
    arguments = {key: value for key, value in config.method.items() if key != "name"}
    resolved = _validated(schema_of(methods[name]), arguments, path, prefix="method")
    config.method = {"name": name, **resolved.model_dump()}
    _check_stages(config, methods[name].STAGES, path)
    return config


def find(path: str | Path) -> Path:
    """The file of a configuration.

    Args:
        path: a YAML file, or the name of a configuration that comes with tf_reid, such as "simpgan".

    Raises:
        ConfigError: there is no such file and no such name.
    """
    file, name = Path(path), str(path)
    if file.is_file():
        return file
    if (shipped := SHIPPED / f"{name}.yaml").is_file() and name == shipped.stem:
        return shipped
    names = shipped_names()
    hint = did_you_mean(file.stem.lower(), names)
    raise ConfigError(
        f"There is no configuration file {name!r}{hint}. These come with tf_reid, by name: {', '.join(names)}."
    )


def is_run(folder: str | Path) -> bool:
    """Whether the folder is a run's; an exported model's folder, which may hold a config.yaml too, is none."""
    is_model = os.path.exists(os.path.join(folder, "saved_model.pb"))
    return os.path.exists(os.path.join(folder, "config.yaml")) and not is_model


def shipped_names() -> list[str]:
    """The names of the configurations that come with tf_reid, such as "simpgan"."""
    return sorted(file.stem for file in SHIPPED.glob("*.yaml"))


def schema_of(constructor: Callable[..., Any]) -> type[Section]:
    """The keyword-only arguments of a constructor as a strict schema."""
    fields: dict[str, Any] = {}
    for parameter in inspect.signature(constructor).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY:
            default = ... if parameter.default is parameter.empty else parameter.default
            fields[parameter.name] = (parameter.annotation, default)
    return pydantic.create_model(constructor.__name__, __base__=Section, **fields)


def dump(config: Config) -> str:
    """The resolved configuration as YAML text; `load` reads it back to the same values."""
    return yaml.safe_dump(config.model_dump(), sort_keys=False, default_flow_style=None, width=110)


def read(path: str) -> dict[str, Any]:
    """The values of a configuration as they are written, not validated.

    Raises:
        ConfigError: there is no such file, it is no YAML, or it holds no sections.
    """
    try:
        values = _yaml(find(path).read_text(encoding="utf-8"))
    except ValueError as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{path} is not readable as YAML: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold the sections {', '.join(Config.model_fields)}.")
    for (section, old), new in RENAMED.items():
        of_section = values.get(section)
        if isinstance(of_section, dict) and old in of_section and new not in of_section:
            of_section[new] = of_section.pop(old)
    return values


class _Loader(yaml.SafeLoader):
    """YAML's own loader takes the last of two keys of one name without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    problem = f"the key {key.value!r} is there twice"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def _yaml(text: str) -> Any:
    """Read YAML.

    Raises:
        ValueError: it is none, a date or a number in it is none, or it is nested too deeply.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None
    except RecursionError:
        raise ValueError("its brackets are nested too deeply") from None


def _override(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set takes key=value, such as run.seed=1; got {_short(override)}.")
    *path, last = full_key(key).split(".")
    for part in path:
        values = values.setdefault(part, {})
        if not isinstance(values, dict):
            raise ConfigError(f"--set {override}: {part!r} is a value, not a section.")
    try:
        values[last] = _yaml(text)
    except ValueError:
        raise ConfigError(f"--set {key}: {_short(text)} is not readable as YAML.") from None


def full_key(key: str) -> str:
    """A setting's key with its section: "strategy" -> "run.strategy".

    Raises:
        ConfigError: no section has it, or the key has to name its own.
    """
    return key if "." in key or key in Config.model_fields else f"{_section_with(key)}.{key}"


def _section_with(key: str) -> str:
    """`strategy` -> `run`: the one section that has this key."""
    for section, model in (("data", Data), ("run", Run), ("evaluate", Evaluate)):
        if key in model.model_fields:
            return section
    key = key if len(key) <= LONGEST else "KEY"
    raise ConfigError(f"--set {key}: write the key with its section, such as method.{key} or stages.STAGE.{key}.")


def _short(value: Any) -> str:
    """A value as a message quotes it: of a long or nested one, as aliases of YAML can make it, the beginning."""
    short = reprlib.Repr()
    short.maxlevel, short.maxstring, short.maxother, short.maxlong = 3, LONGEST, LONGEST, LONGEST
    return short.repr(value)


def _validated(model: type[SectionT], values: dict[str, Any], path: str, prefix: str = "") -> SectionT:
    try:
        return model.model_validate(values)
    except pydantic.ValidationError as error:
        problems = error.errors()
        # Where a value is read by rules of ours, it is not also said that it is none of some words.
        read = {_key(problem, prefix) for problem in problems if problem["type"] == "value_error"}
        problems = [one for one in problems if one["type"] != "literal_error" or _key(one, prefix) not in read]
        sentences = dict.fromkeys(_sentence(model, problem, prefix) for problem in problems)
        raise ConfigError("\n".join(f"{path}: {sentence}" for sentence in sentences)) from None


def _key(problem: Mapping[str, Any], prefix: str) -> str:
    # Pydantic also names the member of a union that it tried, which is no part of the key.
    of_unions = re.compile(r"[\[\]()]|^(str|int|float|dict|list)$")
    parts = [str(part) for part in problem["loc"] if not of_unions.search(str(part))]
    return ".".join([prefix, *parts] if prefix else parts)


def _sentence(model: type[Section], problem: Mapping[str, Any], prefix: str) -> str:
    key = _key(problem, prefix)
    if problem["type"] == "extra_forbidden":
        close = difflib.get_close_matches(key.split(".")[-1], _known_keys(model), n=1)
        return f"unknown key {key}" + (f"; did you mean {close[0]}?" if close else ".")
    if problem["type"] == "missing":
        return f"{key} is missing."
    value, what = problem["input"], problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if isinstance(value, Mapping):  # what does not fit together within a section
        return f"{key}: {what}."
    hint = " (write 2.0e-4, not 2e-4: YAML reads the latter as text)" if re.match(r"^'?\d+e", _short(value)) else ""
    return f"{key} is {_short(value)}, but {what}{hint}."


def _known_keys(model: type[Section]) -> set[str]:
    keys = set(model.model_fields)
    if model is Config:
        for section in (Data, Augment, StageSettings, EarlyStop, RatePlateau, Optimizer, Run, Evaluate):
            keys |= set(section.model_fields)
    return keys


def _check_names_of_stages(stages: Any, known: Mapping[str, Any], path: str) -> None:
    """Refuse a stage that the method does not have, before its settings are looked at."""
    for name in stages if isinstance(stages, dict) else ():
        if name not in known:
            hint = did_you_mean(str(name), known)
            raise ConfigError(f"{path}: there is no stage {_short(name)}{hint}; the stages are: {', '.join(known)}.")


def _check_stages(config: Config, stages: Mapping[str, Any], path: str) -> None:
    """The configured stages and players are those of the method, in the method's order."""
    if set(config.stages) != set(stages):
        raise ConfigError(
            f"{path}: the stages of {config.method['name']} are: {', '.join(stages)}; got {', '.join(config.stages)}."
        )
    config.stages = {name: config.stages[name] for name in stages}
    for name, stage in config.stages.items():
        if set(stage.optimizers) != set(stages[name].players):
            players = ", ".join(stages[name].players)
            raise ConfigError(f"{path}: stages.{name}.optimizers must name its players, which are: {players}.")
        if stages[name].domains == 2 and config.data.target is None:
            raise ConfigError(f"{path}: data.target is missing; stage {name} needs a second data set.")
