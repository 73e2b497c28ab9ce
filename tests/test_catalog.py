"""Names and signatures are read without importing what they describe."""

from __future__ import annotations

import ast
import subprocess
import sys
import textwrap

import pytest

from selftaught import catalog
from selftaught.errors import MethodError

FILE = textwrap.dedent('''
    """A method of my own."""
    from typing import Annotated, Literal
    import surely_not_installed


    class Mine:
        family = "own"
        rate: float = 0.5

        def __init__(
            self,
            *,
            temperature: Annotated[float, "in (0, inf)", "softness"] = 0.1,
            layers: Annotated[int | None, "in [1, 9]", "how many"] = None,
            head: Annotated[Literal["linear", "mlp"], "", "which head"] = "mlp",
            norm: Annotated[str, "one of batch, layer", "which norm"] = "batch",
            scale: Annotated[tuple[float, float], "in (0, 1]", "crop"] = (0.2, 1.0),
            plain: bool = False,
        ): ...
''')


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "own_method.py"
    path.write_text(FILE)
    return f"{path}:Mine"


def test_signature_is_read_without_importing(mine):
    read = {one.name: one for one in catalog.signature("method", mine)}
    assert list(read) == ["temperature", "layers", "head", "norm", "scale", "plain"]
    assert read["temperature"].wanted() == "a float in (0, inf)"
    assert (read["temperature"].default, read["temperature"].help) == (0.1, "softness")
    assert read["layers"].wanted() == "an int in [1, 9] or None"
    assert read["head"].choices == ("linear", "mlp")
    assert read["norm"].choices == ("batch", "layer")
    assert read["scale"].wanted() == "2 floats in (0, 1]"
    assert read["scale"].default == (0.2, 1.0)
    assert (read["plain"].kind, read["plain"].default) == ("bool", False)


def test_constants_and_summaries_are_read_without_importing(mine):
    assert catalog.constant("method", mine, "family") == "own"
    assert catalog.constant("method", mine, "rate") == 0.5
    assert catalog.constant("method", mine, "absent", "nothing") == "nothing"
    assert catalog.summary("method", mine) == "A method of my own."
    assert catalog.title("method", mine) == "Mine"


def test_positional_and_required():
    node = ast.parse("def f(a, b=2, *, c, d: str = 'x', **more): ...").body[0]
    assert isinstance(node, ast.FunctionDef)
    read = {one.name: one for one in catalog.parameters_of(node)}
    assert [read[name].positional for name in "abcd"] == [True, True, False, False]
    assert [read[name].default for name in "abcd"] == [catalog.REQUIRED, 2, catalog.REQUIRED, "x"]


def test_unknown_names_offer_the_nearest():
    with pytest.raises(MethodError, match="'simclrr'") as caught:
        catalog.signature("method", "simclrr")
    assert caught.value.hint == "Did you mean 'simclr'?"
    with pytest.raises(MethodError, match="a file that exists"):
        catalog.load("method", "nowhere.py:Mine")


def test_every_method_and_modality_has_a_class_and_a_first_line():
    for kind in ("method", "modality"):
        for name in catalog.names(kind):
            assert catalog.title(kind, name).lower() == name.replace("_", "")
            assert catalog.summary(kind, name)


def test_every_hyper_parameter_has_a_help_and_a_default_in_range():
    from selftaught.config import validate

    for kind in ("method", "modality"):
        for name in catalog.names(kind):
            parameters = catalog.signature(kind, name)
            assert all(one.help for one in parameters), f"{kind} {name}"
            defaults = {one.name: one.default for one in parameters if one.default is not catalog.REQUIRED}
            validate(name, parameters, defaults)  # as if given: types and ranges are checked


def test_loading_the_users_own_file(tmp_path):
    path = tmp_path / "own_loadable.py"
    path.write_text("class Thing:\n    family = 'own'\n")
    loaded = catalog.load("method", f"{path}:Thing")
    assert loaded.__name__ == "Thing"
    assert catalog.load("method", f"{path}:Thing") is loaded


def test_timm_names_are_found_without_timm():
    code = "import sys; from selftaught import catalog; print(len(catalog.timm_names()), 'timm' in sys.modules)"
    count, imported = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    assert int(count) > 1000 and imported == "False"
    assert {"resnet18", "vit_small_patch16_224"} <= set(catalog.timm_names())


def test_nothing_heavy_is_imported():
    code = (
        "import sys, selftaught, selftaught.cli, selftaught.config; from selftaught import catalog; "
        "[catalog.signature(k, n) for k in ('method', 'modality') for n in catalog.names(k)]; "
        "print(sorted({'torch', 'numpy', 'pyarrow', 'timm', 'sklearn', 'cv2'} & set(sys.modules)))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
