"""Mistakes in a configuration are told by key, before anything is built."""

from pathlib import Path

import pytest
import yaml

from tf_reid import config
from tf_reid.config import ConfigError
from tf_reid.methods import METHODS

CONFIGS = sorted(Path("configs").glob("*.yaml"))


def loaded(path="configs/simpgan.yaml", *overrides):
    return config.load(str(path), list(overrides), METHODS)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_file_in_configs_is_valid_and_says_how_to_run_it(path):
    loaded(path)
    header = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert f"python -m tf_reid.train --config {path.stem}" in header[0]
    assert any("minute" in line for line in header)


def test_settings_of_a_stage_that_do_not_fit_together_are_told():
    with pytest.raises(
        config.ConfigError, match=r"stages\.finetune: batch_size is 10, but images_per_view=2 needs a mult"
    ):
        loaded("configs/view_adaptation.yaml", "stages.finetune.batch_size=10", "stages.finetune.images_per_view=2")


def test_the_resolved_configuration_reads_back_to_the_same_values(tmp_path):
    first = loaded("configs/simpgan.yaml", "run.seed=7")
    (tmp_path / "config.yaml").write_text(config.dump(first))
    assert loaded(tmp_path / "config.yaml") == first


def test_labels_of_a_folder_may_be_text_numbers_or_none(tmp_path):
    spec = "{name: folder, csv: labels.csv, camera: 1, distractor: none, junk: null}"
    first = loaded("configs/identity.yaml", f"data.source={spec}")
    assert first.data.source == {"name": "folder", "csv": "labels.csv", "camera": 1, "distractor": "none", "junk": None}
    (tmp_path / "config.yaml").write_text(config.dump(first))
    assert loaded(tmp_path / "config.yaml") == first


def test_overrides_reach_every_section():
    changed = loaded("configs/simpgan.yaml", "method.cycle_weight=3", "stages.translation.steps=5", "strategy=one")
    assert changed.method["cycle_weight"] == 3
    assert changed.stages["translation"].steps == 5
    assert changed.run.strategy == "one"


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("method.cycle_wieght=3", "unknown key method.cycle_wieght; did you mean cycle_weight?"),
        ("run.sede=3", "unknown key run.sede; did you mean seed?"),
        (
            "stages.translatoin.steps=3",
            "there is no stage 'translatoin' (did you mean translation?); the stages are: ",
        ),
        ("method.name=simpgn", "method.name is 'simpgn' (did you mean simpgan?); it must be one of"),
        ("data.image_size=[128]", "data.image_size is [128], but should be [HEIGHT, WIDTH]."),
        ("method.weights=none.h5", "simpgan.yaml: method.weights is 'none.h5', but there is no file or folder"),
        ("method.cycle_weight=high", "method.cycle_weight is 'high', but should be a valid number"),
        ("stages.translation.optimizers.discriminators.learning_rate=2e-4", "write 2.0e-4, not 2e-4"),
        ("method.generator=unet", "method.generator is 'unet', but should be 'tanh', 'residual' or 'colour'"),
        ("data.image_size=[64]", "data.image_size"),
        ("stages.translation.batch_size=3", "stages.translation.batch_size is 3"),
        ("method.classifier=/no/such/run", "there is no file or folder '/no/such/run'"),
        (
            "method.name=cyclegan",
            "method.name is 'cyclegan' (did you mean cogan?); it must be one of: identity, ",
        ),
        ("stages.translation.optimizers={}", "must name its players, which are: generators, discriminators"),
        ("data.validation=1.0", "data.validation is 1.0, but must be a fraction below 1, or a whole number of identi"),
        ("data.validation=-1", "data.validation is -1, but must be a fraction"),
        ("data.target=null", "data.target is missing; stage translation needs a second data set"),
        ("wrong", "--set takes key=value"),
        ("steps=3", "write the key with its section"),
        ("stages.translation.optimizers.generators.learning_rate=.inf", "learning_rate is inf, but should be a finite"),
        ("method.cycle_weight=.nan", "method.cycle_weight is nan, but should be a finite"),
        ("stages.translation.steps=" + "9" * 30, "but should be less than or equal to 2147483647"),
        ("run.seed=" + "9" * 5000, "--set run.seed: '999"),
        ("run.seed=2001-99-99", "--set run.seed: '2001-99-99' is not readable as YAML"),
        ("run.seed=" + "[" * 1200, "is not readable as YAML"),
        ("run={seed: 1, seed: 2}", "is not readable as YAML"),
        ("run.seed=&a [*a]", "run.seed is [[[[...]]]], but should be a valid integer"),
    ],
)
def test_a_mistake_is_one_sentence_with_its_key(override, sentence):
    with pytest.raises(ConfigError) as error:
        loaded("configs/simpgan.yaml", override)
    assert sentence in str(error.value) and len(str(error.value)) < 500


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("run: {seed: 1}\nrun: {seed: 2}", "the key 'run' is there twice"),
        ("run:\n\tseed: 1", "cannot start any token"),
        ("run: {seed: 2001-99-99}", "month must be in 1..12"),
        ("{a: " * 3000, "its brackets are nested too deeply"),
        ("? [a]\n: 2", "found unhashable key"),
        ("# é".encode("latin-1"), "codec can't decode byte 0xe9"),
        ("run: {}".encode("utf-16"), "invalid start byte"),
    ],
)
def test_a_file_that_is_no_sound_yaml_is_one_sentence(content, sentence, tmp_path):
    content = content if isinstance(content, bytes) else content.encode()
    (tmp_path / "c.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=r"c\.yaml is not readable as YAML: ") as error:
        loaded(tmp_path / "c.yaml")
    assert sentence in str(error.value)


def test_aliases_that_unfold_without_end_are_not_unfolded(tmp_path):
    """Eight lists, each nine times the one before: 9^8 entries where somebody writes them all."""
    lists = "".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9) if n else 'x'}]\n" for n in range(9))
    values = yaml.safe_load(Path("configs/simpgan.yaml").read_text()) | {"run": {"seed": "ALIAS"}}
    (tmp_path / "c.yaml").write_text(lists + yaml.safe_dump(values).replace("ALIAS", "*l8"))
    with pytest.raises(ConfigError, match=r"run\.seed is ") as error:
        loaded(tmp_path / "c.yaml")
    assert len(str(error.value)) < 10_000


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path):
    (tmp_path / "c.yaml").write_text("\ufeff" + Path("configs/simpgan.yaml").read_text(), encoding="utf-8")
    assert loaded(tmp_path / "c.yaml") == loaded("configs/simpgan.yaml")


def test_a_configuration_is_found_by_its_name_from_everywhere(tmp_path, monkeypatch):
    expected = loaded("configs/simpgan.yaml")
    monkeypatch.chdir(tmp_path)
    assert loaded("simpgan") == expected
    assert config.find("simpgan") == config.SHIPPED / "simpgan.yaml"
    assert config.shipped_names() == sorted(path.stem for path in CONFIGS)


def test_a_file_of_that_name_is_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "simpgan").mkdir()  # a folder is no configuration
    assert config.find("simpgan") == config.SHIPPED / "simpgan.yaml"
    (tmp_path / "simpgan.yaml").write_text("data: {}")
    assert config.find("simpgan.yaml") == Path("simpgan.yaml")
    assert config.find("simpgan") == config.SHIPPED / "simpgan.yaml"


@pytest.mark.parametrize("name", ["simpgna", "SimPGAN", "configs/simpgan.yaml", "../configs/simpgan"])
def test_an_unknown_configuration_comes_with_the_known_ones(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="There is no configuration file") as error:
        loaded(name)
    assert f"{name!r} (did you mean simpgan?). These come" in str(error.value)
    assert all(known.stem in str(error.value) for known in CONFIGS)


def test_a_file_that_is_missing_or_no_yaml_is_named(tmp_path):
    with pytest.raises(ConfigError, match="There is no configuration file"):
        loaded(tmp_path / "none.yaml")
    (tmp_path / "broken.yaml").write_text("data: [")
    with pytest.raises(ConfigError, match=r"broken\.yaml is not readable as YAML"):
        loaded(tmp_path / "broken.yaml")


def test_one_override_is_a_list_of_one():
    with pytest.raises(ConfigError, match=r"Overrides are a list of texts, such as \['run\.seed=1'\]; got one text"):
        config.load("simpgan", "run.seed=1", METHODS)


def test_stages_are_those_of_the_method(tmp_path):
    values = yaml.safe_load(Path("configs/simpgan.yaml").read_text())
    values["stages"]["warmup"] = values["stages"].pop("classifier")
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(ConfigError, match="there is no stage 'warmup'; the stages are: classifier, translation"):
        loaded(tmp_path / "c.yaml")
    values["stages"].pop("warmup")
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(ConfigError, match="the stages of simpgan are: classifier, translation; got translation"):
        loaded(tmp_path / "c.yaml")


def test_the_schema_of_a_method_is_its_constructor():
    def method(image_size, *, weight: float, name_of_it: str = "x"):
        pass

    schema = config.schema_of(method)
    assert schema(weight=1.0).model_dump() == {"weight": 1.0, "name_of_it": "x"}
    assert set(schema.model_fields) == {"weight", "name_of_it"}
