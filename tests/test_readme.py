"""What the README shows is true: its commands and its Python run, its tree is the tree, its picture is there."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def shortened(text: str) -> str:
    """Ten minutes become six steps, fine-tuning a few, and no pass is timed: all that is changed of what is shown."""
    text = text.replace("inspect photos", "inspect photos --timing false")
    text = text.replace("--minutes 10", "--steps 6").replace("minutes=10", "steps=6")
    text = text.replace("--labels folders", "--labels folders --seeds 2 --epochs 1 --least 3")
    return text.replace('labels="folders")', 'labels="folders", seeds=2, epochs=1, least=3)')


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder: two sub-folders of JPEG files."""
    import cv2

    folder = tmp_path_factory.mktemp("user")
    rng = np.random.default_rng(0)
    for label, colour in (("day", 190), ("night", 60)):
        (folder / "photos" / label).mkdir(parents=True)
        for number in range(40):
            picture = rng.normal(colour, 30, (48, 64, 3)).clip(0, 255).astype(np.uint8)
            cv2.imwrite(str(folder / "photos" / label / f"{number}.jpg"), cv2.GaussianBlur(picture, (0, 0), 3))
    return folder


def test_the_commands_run(photos: Path) -> None:
    program = Path(sys.executable).with_name("selftaught")
    for line in shortened(blocks("bash")[0]).splitlines():
        words = shlex.split(line, comments=True)
        done = subprocess.run([program, *words[1:]], cwd=photos, capture_output=True, text=True, timeout=280)
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    assert (photos / "runs/photos/report.html").stat().st_size > 10_000
    assert (photos / "embeddings.parquet").exists()


def test_the_python_runs(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the commands, so that ``pretrain`` finds its own finished run again."""
    monkeypatch.chdir(photos)
    scope: dict = {}
    exec(compile(shortened(blocks("python")[0]), "README.md", "exec"), scope)
    assert scope["features"].shape[0] == 80 and scope["features"].dtype == np.float32


def test_the_tree_is_the_tree() -> None:
    (tree,) = re.findall(r"```\n(src/selftaught/.*?)```", README, flags=re.DOTALL)
    shown = {line.split()[0].rstrip("/") for line in tree.splitlines()}
    package = ROOT / "src" / "selftaught"
    there = {path.name for path in package.iterdir() if path.name not in ("__pycache__", "__main__.py", "py.typed")}
    there |= {"src/selftaught"} | {
        name for name in ("benchmarks", "docs", "tests", "examples") if any((ROOT / name).glob("*"))
    }
    assert shown == there


def test_links_and_pictures_exist() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_snippets_parse() -> None:
    for block in blocks("python"):
        ast.parse(block)
