"""Every shipped recipe says what it is, and trains with the settings that it states."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

import selftaught as st
from selftaught import config

RECIPES = sorted(config.RECIPES.glob("*.yaml"))
LENGTH = {"epochs", "minutes", "steps", "batch_size"}  # a step of a few samples is enough here


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 coloured ones of 64 pixels: what they show does not matter."""
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for number in range(24):
        cv2.imwrite(str(folder / f"{number:02}.png"), rng.integers(0, 256, (64, 64, 3), np.uint8))
    return folder


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_says_what_it_is(recipe: Path) -> None:
    header = [line for line in recipe.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    words = " ".join(header).lower()
    for part in ("paper:", "command:", "hardware:", "time:", "expected:"):
        assert part in words, f"{recipe.name} does not say its {part}"


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_trains(recipe: Path, tmp_path: Path, pictures: Path) -> None:
    settings = config.read_yaml(recipe.stem)
    short = tmp_path / recipe.name
    short.write_text(yaml.safe_dump({name: value for name, value in settings.items() if name not in LENGTH}))
    run = st.pretrain(pictures, out=tmp_path / "run", config=str(short), steps=1, batch_size=16, quiet=True)
    for group in ("method", "encoder", "modality", "views"):
        for key, value in settings.get(group, {}).items():
            assert run.config["request"][group][key] == value, f"{group}.{key}"
    assert run.metrics[-1]["step"] == 1
