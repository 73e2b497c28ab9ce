"""The public names are pinned: adding or removing one is a decision, not an accident."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import selftaught as st
from selftaught import catalog

NAMES = [
    "Model", "Run", "SelftaughtError", "demo", "diagnose", "embed", "encoders", "energy", "evaluate", "generate",
    "inspect", "load", "methods", "modalities", "outliers", "pretrain", "report",
]  # fmt: skip


def test_all_is_pinned():
    assert st.__all__ == NAMES == sorted(NAMES)
    assert set(NAMES) <= set(dir(st))


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_there_and_described(name):
    found = getattr(st, name)
    assert callable(found)
    assert inspect.getdoc(found) or name in catalog.commands()  # the help of a command is tested in test_cli.py


def test_every_command_is_a_function_of_the_package():
    assert set(catalog.commands()) <= set(NAMES)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'pretrian'"):
        st.pretrian  # noqa: B018


def test_parts_and_commands_share_their_names_whoever_comes_first():
    code = (
        "import selftaught.report.page, selftaught as st; "
        "assert st.report.page.write_report; "  # the part
        "from selftaught.errors import RunError\n"
        "try: st.report('nowhere')\n"
        "except RunError as error: print(error)"
    )
    said = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert said.strip() == "The 'run' parameter of selftaught must be the folder of a run. Got 'nowhere' instead."


def test_methods_and_modalities_can_be_asked_for_in_python():
    assert "simclr" in st.methods(quiet=True)
    assert st.methods("simclr", quiet=True)["temperature"]["default"] > 0
    assert "image" in st.modalities(quiet=True)


def test_columns_never_run_into_each_other(capsys):
    """Names as long as deepcluster_v2 and teacher_temperature, families as long as mutual information."""
    st.methods()
    for line, (name, facts) in zip(
        capsys.readouterr().out.splitlines(), _by_family(st.methods(quiet=True)), strict=True
    ):
        assert line.split(None, 1)[0] == name and f"{facts['family']}  " in line and line.endswith(facts["summary"])
    st.methods("distill")
    said = capsys.readouterr().out
    for name, facts in st.methods("distill", quiet=True).items():
        assert f"  {name}  " in said and f"  {facts['help']} (" in said


def _by_family(listed):
    return sorted(listed.items(), key=lambda pair: (pair[1]["family"], pair[0]))
