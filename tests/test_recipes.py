"""The recipes beside the package: short, documented, and made of valid settings."""

from pathlib import Path

import pytest

from ce_align.recipes import load_recipe
from ce_align.runner import STAGES

ROOT = Path(__file__).resolve().parent.parent
RECIPES = sorted(
    path
    for room in ("benchmarks", "analyses", "figures")
    for path in ROOT.glob(f"{room}/*.py")
)


def test_the_recipes_of_the_paper_are_there():
    names = {f"{path.parent.name}/{path.stem}" for path in RECIPES}
    assert names >= {
        *("benchmarks/it_predictivity", "benchmarks/backbones"),
        *("analyses/variability", "analyses/decoding", "analyses/transfer"),
        "analyses/correlation",
    }


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_short_says_what_it_serves_and_can_be_run(path):
    recipe = load_recipe(path)
    assert len(path.read_text().splitlines()) <= 80
    assert recipe.configs
    assert {config.stage for config in recipe.configs} <= STAGES.keys()
    docstring = path.read_text().split('"""')[1].lower()
    assert any(word in docstring for word in ("figure", "table", "matrix", "curves"))


def test_predictivity_is_21_networks_on_four_recordings():
    configs = load_recipe(ROOT / "benchmarks" / "it_predictivity.py").configs
    assert len({config.model for config in configs}) == 21
    assert len({config.recording for config in configs}) == 4
    assert len(configs) == 84
