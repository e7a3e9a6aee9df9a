"""The pages of docs/methods and docs/configuration.md name every setting, with its default, and no other."""

import inspect
import re
from pathlib import Path

import pytest
import yaml

from tf_reid import settings
from tf_reid.methods import METHODS

DOCS = Path(__file__).parent.parent / "docs"
PAGES = sorted(page.stem for page in (DOCS / "methods").glob("*.md") if page.stem != "index")
SECTIONS = {
    "data": settings.Data,
    "data.augment": settings.Augment,
    "stages.STAGE": settings.StageSettings,
    "stages.STAGE.early_stop": settings.EarlyStop,
    "stages.STAGE.plateau": settings.RatePlateau,
    "stages.STAGE.optimizers.PLAYER": settings.Optimizer,
    "run": settings.Run,
    "evaluate": settings.Evaluate,
}


def table_under(page: Path, heading: str) -> list[list[str]]:
    """The cells of the first table's rows under a second-level heading, without its head."""
    parts = page.read_text().split(f"\n## {heading}\n")
    assert len(parts) == 2, f"{page.name} needs one section '## {heading}'"
    section = re.split(r"\n## ", parts[1])[0]
    rows = re.search(r"(?:^\|.*\n)+", section, re.MULTILINE).group().splitlines()
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[2:]]


def code(cell: str) -> list[str]:
    """Everything between backticks."""
    return re.findall(r"`([^`]+)`", cell)


def named_values(page: Path, heading: str) -> dict:
    """Setting -> its default, read as YAML, of a table of settings; "required" where there is none."""
    rows = table_under(page, heading)
    names = [code(cells[0])[0] for cells in rows]
    assert len(names) == len(set(names)), f"{page.name}: a setting has two rows"
    assert all(len(cells[2]) > 3 for cells in rows), f"{page.name}: a setting has no meaning"
    return {
        name: yaml.safe_load(code(cells[1])[0]) if code(cells[1]) else cells[1]
        for name, cells in zip(names, rows, strict=True)
    }


@pytest.mark.parametrize("name", PAGES)
def test_a_methods_page_lists_its_settings_with_their_defaults(name):
    parameters = inspect.signature(METHODS[name]).parameters.values()
    expected = {one.name: one.default for one in parameters if one.kind is one.KEYWORD_ONLY}
    assert named_values(DOCS / "methods" / f"{name}.md", "Settings") == expected


@pytest.mark.parametrize("name", PAGES)
def test_a_methods_page_lists_its_stages_with_their_samplers_and_players(name):
    found = {}
    for stage, sampler, players, *_ in table_under(DOCS / "methods" / f"{name}.md", "Stages and players"):
        found[code(stage)[0]] = (code(sampler)[0], tuple(code(players)))
    expected = {name: (stage.sampler, stage.players) for name, stage in METHODS[name].STAGES.items()}
    assert found == expected
    assert list(found) == list(expected)


@pytest.mark.parametrize("name", PAGES)
def test_a_methods_page_names_losses_that_its_code_logs(name):
    """A loss that was renamed or dropped must not live on in the page."""
    rows = table_under(DOCS / "methods" / f"{name}.md", "Losses in the log")
    logged = [loss for cells in rows for loss in code(cells[0])]
    assert logged
    stages = METHODS[name].STAGES.values()
    players = {player for stage in stages for player in stage.players}
    package = DOCS.parent / "tf_reid"
    files = [*(package / "methods").glob(f"{name}*.py"), *(package / "networks").glob("*.py")]
    source = "".join(path.read_text() for path in files)
    for loss in logged:
        player, _, term = loss.partition("/")
        assert player in players, loss
        assert f'"{term}"' in source, loss


def test_the_table_of_methods_has_every_page_once():
    assert set(PAGES) <= METHODS.keys() and len(PAGES) >= 6
    rows = table_under(DOCS / "methods" / "index.md", "Which method for what")
    assert sorted(code(cells[0])[0] for cells in rows) == PAGES
    for cells in rows:
        assert f"({code(cells[0])[0]}.md)" in cells[0]


@pytest.mark.parametrize("section", SECTIONS)
def test_the_page_of_configuration_lists_every_setting_with_its_default(section):
    expected = {}
    for name, field in SECTIONS[section].model_fields.items():
        default = field.default
        if field.is_required():
            default = "required"
        elif isinstance(default, settings.Section):
            default = "see below"
        expected[name] = default
    assert named_values(DOCS / "configuration.md", f"`{section}`") == expected
