"""One description of the arguments serves Python, YAML and flags: types, ranges, precedence, the nearest name."""

from __future__ import annotations

import ast

import pytest

from selftaught import catalog, config
from selftaught.errors import ConfigError

SOURCE = """
def train(
    data: Annotated[Any, "", "what"],
    *,
    temperature: Annotated[float, "in (0, inf)", "softness"] = 0.1,
    share: Annotated[float, "in [0, 1]", "share"] = 0.5,
    steps: Annotated[int | None, "in [1, inf)", "how long"] = None,
    preview: Annotated[bool, "", "only look"] = False,
    resume: Annotated[str, "one of auto, never, must", "go on?"] = "auto",
    scale: Annotated[tuple[float, float], "in (0, 1]", "crop"] = (0.2, 1.0),
    protocols: Annotated[tuple[str, ...], "one of knn, linear", "which"] = ("knn",),
    workers: Annotated[int | str, "", "how many"] = "all",
): ...
"""
NODE = ast.parse(SOURCE).body[0]
assert isinstance(NODE, ast.FunctionDef)
PARAMETERS = catalog.parameters_of(NODE)


def one(**given):
    """The parsed value of the only argument given."""
    (name,) = given
    return config.validate("train", PARAMETERS, {"data": "d", **given})[name]


@pytest.mark.parametrize(
    ("given", "value"),
    [
        ({"temperature": "1e-3"}, 0.001),  # YAML 1.1 reads 1e-3 as a string
        ({"temperature": 2}, 2.0),
        ({"share": 0}, 0.0),
        ({"share": 1}, 1.0),
        ({"steps": "1e3"}, 1000),
        ({"steps": "7"}, 7),
        ({"steps": "auto"}, None),
        ({"steps": None}, None),
        ({"preview": "false"}, False),
        ({"preview": True}, True),
        ({"scale": "0.3,0.9"}, (0.3, 0.9)),
        ({"scale": [0.3, 1]}, (0.3, 1.0)),
        ({"protocols": "knn, linear"}, ("knn", "linear")),
        ({"protocols": ["linear"]}, ("linear",)),
        ({"workers": "3"}, 3),
        ({"workers": "all"}, "all"),
    ],
)
def test_values_are_parsed(given, value):
    parsed = one(**given)
    assert parsed == value and type(parsed) is type(value)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"temperature": 0}, "The 'temperature' parameter of train must be a float in (0, inf). Got 0 instead."),
        ({"temperature": "0"}, "The 'temperature' parameter of train must be a float in (0, inf). Got 0 instead."),
        ({"temperature": float("nan")}, "must be a float in (0, inf). Got nan instead."),
        ({"temperature": float("inf")}, "Got inf instead."),
        ({"temperature": "-inf"}, "Got -inf instead."),
        ({"temperature": True}, "Got True instead."),
        ({"temperature": "warm"}, "Got 'warm' instead."),
        ({"temperature": None}, "Got None instead."),
        ({"temperature": [1.0]}, "Got [1.0] instead."),
        ({"share": 1.5}, "in [0, 1]. Got 1.5 instead."),
        ({"steps": 2.5}, "an int in [1, inf) or None. Got 2.5 instead."),
        ({"steps": 0}, "an int in [1, inf) or None. Got 0 instead."),
        ({"steps": 1e400}, "an int in [1, inf) or None. Got inf instead."),
        ({"preview": 1}, "must be a bool. Got 1 instead."),
        ({"preview": "perhaps"}, "must be a bool. Got 'perhaps' instead."),
        ({"resume": "nevr"}, "must be one of 'auto', 'never', 'must'. Got 'nevr' instead."),
        ({"scale": "0.3"}, "must be 2 floats in (0, 1]. Got 0.3 instead."),
        ({"scale": (0.0, 1.0)}, "must be 2 floats in (0, 1]. Got (0.0, 1.0) instead."),
        ({"protocols": "knn,liner"}, "Got 'knn,liner' instead."),
    ],
)
def test_wrong_values_get_the_one_sentence(given, sentence):
    with pytest.raises(ConfigError) as caught:
        one(**given)
    assert sentence in str(caught.value)


def test_hints():
    with pytest.raises(ConfigError) as caught:
        one(resume="nevr")
    assert caught.value.hint == "Did you mean 'never'?"
    with pytest.raises(ConfigError, match="train has no parameter 'temprature'") as caught:
        one(temprature=1)
    assert caught.value.hint == "Did you mean 'temperature'?"
    with pytest.raises(ConfigError, match="The 'data' parameter of train must be given"):
        config.validate("train", PARAMETERS, {})


def test_defaults_fill_up_and_given_values_win_over_the_file(tmp_path):
    method = 'method: Annotated[Group, "method", "m"] = "auto"'
    text = f"def go(*, config: Any = None, lr: float = 0.1, seed: int = 0, {method}): ..."
    node = ast.parse(text).body[0]
    assert isinstance(node, ast.FunctionDef)
    parameters = catalog.parameters_of(node)
    path = tmp_path / "go.yaml"
    path.write_text("lr: 1e-3\nseed: 5\nmethod: {name: simclr, temperature: 0.2}\n")
    both = config.resolve("go", parameters, {"config": str(path), "seed": 7, "method": {"temperature": "0.4"}})
    assert (both["lr"], both["seed"]) == (0.001, 7)
    assert both["method"] == {"name": "simclr", "temperature": 0.4}
    assert config.resolve("go", parameters, {})["method"] == {"name": "auto"}
    path.write_text("sed: 5\n")
    with pytest.raises(ConfigError) as caught:
        config.resolve("go", parameters, {"config": str(path)})
    assert caught.value.hint == "Did you mean 'seed'?"


def test_another_name_drops_the_options_of_the_first():
    assert config.merge({"name": "simclr", "temperature": 0.2}, "vicreg") == {"name": "vicreg"}
    assert config.merge({"name": "simclr", "temperature": 0.2}, {"temperature": 0.3})["temperature"] == 0.3
    assert config.merge({"name": "simclr", "a": 1}, {"name": "simclr", "b": 2}) == {"name": "simclr", "a": 1, "b": 2}


def test_options_of_a_group_are_checked_against_the_parts_own_signature():
    with pytest.raises(ConfigError) as caught:
        config.check_group("method", {"name": "simclr", "temperature": 0}, {})
    assert str(caught.value) == "The 'temperature' parameter of SimCLR must be a float in (0, inf). Got 0 instead."
    with pytest.raises(ConfigError) as caught:
        config.check_group("method", {"temprature": 0.1}, {})  # auto: checked against what auto can come to mean
    assert caught.value.hint == "Did you mean 'temperature'?"
    with pytest.raises(ConfigError, match="views has no parameter 'flop'") as caught:
        config.check_group("views", {"flop": 1}, {})
    assert caught.value.hint == "Did you mean 'flip'?"
    assert config.check_group("views", {"scale": "0.4,1"}, {}) == {"scale": (0.4, 1.0)}


@pytest.mark.parametrize("text", ["a: [1\n", "- 1\n- 2\n", "just words\n", "\x00"])
def test_a_file_that_is_no_configuration(tmp_path, text):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError):
        config.read_yaml(path)


def test_an_unknown_recipe_offers_the_nearest():
    with pytest.raises(ConfigError, match="a YAML file or a recipe") as caught:
        config.read_yaml("digit")
    assert caught.value.hint == "Did you mean 'digits'?"


def test_differences_are_named_by_dotted_key():
    old = {"lr": 0.1, "method": {"name": "simclr", "temperature": 0.1}, "scale": (0.2, 1.0)}
    new = {"lr": 0.1, "method": {"name": "simclr", "temperature": 0.2}, "scale": [0.2, 1.0], "seed": 1}
    assert config.differences(old, new) == [("method.temperature", 0.1, 0.2), ("seed", None, 1)]


def test_what_is_saved_is_read_back(tmp_path):
    values = {"schema": 1, "request": {"lr": 1e-5, "scale": (0.2, 1.0), "data": tmp_path, "none": None, "text": "1e-3"}}
    config.save_yaml(tmp_path / "run.yaml", values)
    back = config.read_yaml(tmp_path / "run.yaml")
    assert not config.differences(values, back)
    assert [path.name for path in tmp_path.iterdir()] == ["run.yaml"]
