"""Imports point down only: the table of the house, proven from the syntax tree (imports inside functions included)."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "selftaught"
EVERYWHERE = {"torch", "numpy", "jaxtyping"}

# part -> (parts it may import, third-party packages beyond torch, numpy and jaxtyping)
LEVEL_0 = {"errors", "types"}
MAY_IMPORT: dict[str, tuple[set[str], set[str]]] = {
    "errors": (set(), set()),
    "types": (set(), set()),
    "catalog": (LEVEL_0, set()),
    "ops": (LEVEL_0, {"cv2", "scipy"}),
    "nn": (LEVEL_0, set()),
    "formats": (LEVEL_0, {"cv2", "simplejpeg", "PIL", "h5py", "zarr", "pydicom", "nibabel"}),
    "encoders": (LEVEL_0 | {"ops", "nn"}, set()),
    "data": (LEVEL_0 | {"formats"}, {"pyarrow", "fsspec", "cv2"}),
    "modalities": (LEVEL_0 | {"ops", "formats"}, {"tokenizers", "cv2"}),
    "methods": (LEVEL_0 | {"ops", "nn"}, set()),
    "train": (LEVEL_0 | {"nn", "data"}, {"lightning_fabric", "safetensors", "rich", "tensorboard"}),
    "diagnostics": (LEVEL_0 | {"ops", "nn"}, set()),
    "downstream": (LEVEL_0 | {"ops", "nn", "data", "train", "diagnostics"}, {"sklearn", "scipy", "pyarrow", "cv2"}),
    "report": ({"errors"}, {"matplotlib", "pyarrow", "yaml"}),
}
LOWER = set(MAY_IMPORT)
MAY_IMPORT |= {
    "config": (LOWER, {"yaml"}),
    "export": (LOWER, {"onnx", "safetensors"}),
}
MAY_IMPORT["commands"] = (LOWER | {"config", "export"}, {"rich", "yaml", "sklearn", "safetensors", "cv2", "pyarrow"})
MAY_IMPORT["cli"] = (set(MAY_IMPORT), {"rich"})
MAY_IMPORT["__init__"] = MAY_IMPORT["__main__"] = (set(MAY_IMPORT) | {"cli"}, set())
MODEL_FILES = {"encoders/hub.py", "encoders/vit.py"}
ONLY_IN = {"timm": MODEL_FILES, "huggingface_hub": MODEL_FILES, "transformers": {"encoders/huggingface.py"}}
SIBLINGS_ALLOWED = {"base"}  # methods never import methods, modalities never modalities, except their base


def part_of(path: Path) -> str:
    relative = path.relative_to(SOURCE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def imported(path: Path) -> Iterator[tuple[str, ...]]:
    """Every module a file imports, dotted path split, wherever the import stands; ``from x import y`` gives x.y too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (tuple(alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the part they reach"
            yield from ((*(node.module or "").split("."), alias.name) for alias in node.names)


def violations(path: Path) -> list[str]:
    part, name = part_of(path), path.relative_to(SOURCE).as_posix()
    parts, packages = MAY_IMPORT[part]
    found = []
    for module in imported(path):
        top = module[0]
        if top == "selftaught":
            target = module[1] if len(module) > 1 else ""
            if target and target != part and target not in parts:
                found.append(f"{name} imports {'.'.join(module)}")
            if part in ("methods", "modalities") and target == part and not SIBLINGS_ALLOWED & set(module[2:3]):
                found.append(f"{name} imports its sibling {'.'.join(module)}")
        elif top in ONLY_IN:
            if name not in ONLY_IN[top]:
                found.append(f"{name} imports {top}")
        elif top not in sys.stdlib_module_names | EVERYWHERE | packages:
            found.append(f"{name} imports {top}")
    return found


FILES = sorted(SOURCE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_imports_point_down(path: Path) -> None:
    assert violations(path) == []


def test_every_part_has_a_row() -> None:
    assert {part_of(path) for path in FILES} <= set(MAY_IMPORT)


def test_an_upward_import_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "SOURCE", tmp_path)
    bad = tmp_path / "ops" / "photo.py"
    bad.parent.mkdir()
    bad.write_text("def f():\n    from selftaught.train import loop\n    import timm\n    import sklearn.svm\n")
    assert violations(bad) == [
        "ops/photo.py imports selftaught.train.loop",
        "ops/photo.py imports timm",
        "ops/photo.py imports sklearn",
    ]


def test_no_drawer_for_everything() -> None:
    assert not [path for path in FILES if path.stem in {"utils", "helpers", "misc", "common"}]


@pytest.mark.parametrize("name", ["catalog", "config", "cli", "errors", "__init__"])
def test_light_files_do_not_import_torch(name: str) -> None:
    """``selftaught --help`` answers in under half a second because nothing on that road imports torch or numpy."""
    tree = ast.parse((SOURCE / f"{name}.py").read_text(encoding="utf-8"))
    top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {alias.name for node in top if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in top if isinstance(node, ast.ImportFrom)}
    heavy = {"torch", "numpy", "selftaught.types", "timm", "lightning_fabric"}
    assert not {name for name in names if name.split(".")[0] in heavy or name in heavy}
