"""The command line: made from the signatures, quick to answer, one sentence and the right exit code."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

from selftaught import cli

COMMANDS = ("demo", "pretrain", "diagnose", "evaluate", "embed", "outliers", "energy", "generate", "report", "methods")


def answer(capsys, *words: str) -> tuple[int, str, str]:
    """(exit code, standard output, standard error) of one command line, in this process."""
    code = cli.main(words)
    streams = capsys.readouterr()
    return code, streams.out, streams.err


def test_overview_names_every_command(capsys):
    code, out, _ = answer(capsys, "--help")
    assert code == 0
    for name in (*COMMANDS, "modalities", "encoders"):
        assert f"\n  {name} " in out


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_every_command(capsys, name):
    code, out, _ = answer(capsys, name, "--help")
    assert code == 0 and f"usage: selftaught {name}" in out


def test_help_states_ranges_and_defaults(capsys):
    _, out, _ = answer(capsys, "pretrain", "--help")
    text = " ".join(out.split())
    assert "samples per optimiser step, over all devices (in [1, inf), default auto)" in text
    assert "--views.flip" in text


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["pretrian"], "selftaught has no command 'pretrian'. Did you mean 'pretrain'?"),
        (["pretrain", "x", "--out", "y", "--metod", "simclr"], "no flag --metod. Did you mean --method?"),
        (["pretrain", "x", "--out", "y", "--temperature", "1"], "Did you mean --method.temperature?"),
        (["pretrain", "x", "--out", "y", "--method.temprature", "1"], "Did you mean 'temperature'?"),
        (["pretrain", "x", "--out", "y", "--method", "simclrr"], "Did you mean 'simclr'?"),
        (["pretrain", "x", "--out", "y", "--encoder", "resnet81"], "Got 'resnet81' instead. Did you mean"),
        (["pretrain", "x", "--out", "y", "--modality", "imgae"], "Did you mean 'image'?"),
        (["pretrain", "x", "--out", "y", "--views.flop", "0"], "Did you mean 'flip'?"),
        (["pretrain", "x", "--out", "y", "--method.temperature"], "The flag --method.temperature needs a value."),
        (["pretrain", "x", "--out", "y", "--batch-size", "many"], "an int in [1, inf) or None. Got 'many' instead."),
        (["pretrain", "x", "--out", "y", "--epochs", "1", "--steps", "2"], "Only one of"),
        (["pretrain", "x"], "required: --out"),
        (["pretrain", "x", "y", "--out", "z"], "Unrecognized arguments: y"),
        (["evaluate", "nowhere", "x", "--labels", "folders"], "must be the folder of a run. Got 'nowhere' instead."),
        (["methods", "simclrr"], "Did you mean 'simclr'?"),
    ],
)
def test_wrong_requests(capsys, monkeypatch, tmp_path, words, sentence):
    monkeypatch.chdir(tmp_path)
    code, out, err = answer(capsys, *words)
    assert (code, out) == (2, "")
    assert sentence in err and "Traceback" not in err
    assert not list(tmp_path.iterdir())


def test_dotted_flags_reach_the_group():
    words = [
        "--method.temperature",
        "0.2",
        "--preview",
        "data",
        "--out",
        "r",
        "--views.flip=false",
        "--encoder",
        "small",
    ]
    given, as_json = cli.parse("pretrain", [*words, "--batch_size", "64"])
    assert not as_json and given == {
        "data": "data", "out": "r", "encoder": "small", "preview": "true", "batch_size": "64",
        "method": {"temperature": "0.2"}, "views": {"flip": "false"},
    }  # fmt: skip


def test_json_is_the_only_output(capsys):
    code, out, _ = answer(capsys, "methods", "--json")
    assert code == 0 and "simclr" in json.loads(out)
    code, out, _ = answer(capsys, "methods", "simclr", "--json")
    assert code == 0 and json.loads(out)["temperature"]["must be"].startswith("a float in (0, inf")


def test_json_and_quiet_go_together(capsys, monkeypatch):
    monkeypatch.setattr(cli, "_function", lambda name: lambda **given: {"quiet": given["quiet"]})
    for words in (["--json", "--quiet"], ["--json", "--quiet", "false"], ["--json"]):
        code, out, _ = answer(capsys, "evaluate", "run", "data", "--labels", "folders", *words)
        assert code == 0 and json.loads(out) == {"quiet": True}


def test_from_is_a_flag_although_python_keeps_the_word():
    given, _ = cli.parse("pretrain", ["data", "--out", "r", "--from", "before", "--layer-decay", "0.5"])
    assert given == {"data": "data", "out": "r", "from_": "before", "layer_decay": "0.5"}
    given, _ = cli.parse("pretrain", ["data", "--out", "r", "--from=before"])
    assert given is not None and given["from_"] == "before"


def test_unexpected_failures_are_one_sentence_unless_debug(capsys, monkeypatch):
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(cli, "_function", lambda name: broken)
    code, _, err = answer(capsys, "methods")
    assert code == 1 and "ZeroDivisionError: a bug" in err and "--debug" in err and "Traceback" not in err
    code, _, err = answer(capsys, "methods", "--debug")
    assert code == 1 and "Traceback" in err


def test_interruption_is_130(capsys, monkeypatch):
    def interrupted(**_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_function", lambda name: interrupted)
    code, _, err = answer(capsys, "methods")
    assert code == 130 and err.strip() == "Interrupted."


def timed(*words: str, best_of: int = 3) -> tuple[float, subprocess.CompletedProcess[str]]:
    """The quickest of a few starts: the machine may be busy, the imports are what is measured."""
    seconds = []
    for _ in range(best_of):
        start = time.perf_counter()
        done = subprocess.run([sys.executable, "-m", "selftaught", *words], capture_output=True, text=True)
        seconds.append(time.perf_counter() - start)
    return min(seconds), done


def test_help_answers_within_half_a_second():
    seconds, done = timed("--help")
    assert done.returncode == 0 and "pretrain" in done.stdout
    assert seconds < 0.5


@pytest.mark.parametrize("words", [("--method.temperature", "0"), ("--encoder", "resnet81"), ("--lrr", "1")])
def test_wrong_requests_are_answered_within_a_second_and_a_half(tmp_path, words):
    seconds, done = timed("pretrain", str(tmp_path), "--out", str(tmp_path / "run"), *words)
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1
    assert seconds < 1.5
    assert not (tmp_path / "run").exists()
