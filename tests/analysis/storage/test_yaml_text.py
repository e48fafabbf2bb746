"""YAML is read within bounds: what a text stands for, and not its length, decides."""

import time
from pathlib import Path

import pytest
from faults.made_inputs import BOMB, CONFIGS, MERGE_BOMB

from tokenshift.analysis.storage.yaml_text import UnreadableYamlError, parse_yaml, read_yaml
from tokenshift.recipes.jobs.comparison.lined_yaml import LinedYaml

CHAIN = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 150))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BOMB, r"has more than 5,000 values, .* \(line 4\)"),
        (MERGE_BOMB, r"has more than 5,000 values, .* \(line 5\)"),
        (f"[{'1,' * 5000}]", r"has more than 5,000 values"),
        (CHAIN, r"has more than 5,000 values"),
        ("[" * 50_000, r"is nested too deeply"),
        ("- " * 3000, r"is nested too deeply"),
        ("? " * 3000, r"is nested too deeply"),
        ("&a {b: *a}", r"contains itself"),
        ("x" * 300_000, r"has more than 262,144 characters"),
        ("a: 2020-13-01", r"is not YAML: month"),
        ("a: " + "9" * 5000, r"is not YAML: .*4300 digits"),
        ("a: !!bool perhaps", r"is not YAML"),
        ("a: !!python/object/apply:os.system [x]", r"is not YAML"),
        ("a: \0", r"is not YAML"),
        ("? [a]\n: 1", r"is not YAML"),
        ("[1, 2", r"is not YAML"),
    ],
)
def test_what_is_refused(text: str, said: str, tmp_path: Path) -> None:
    started = time.process_time()
    with pytest.raises(UnreadableYamlError, match=said) as raised:
        parse_yaml(text)
    assert len(str(raised.value).splitlines()) == 1
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(UnreadableYamlError, match=said):
        read_yaml(tmp_path / "a.yaml")
    with pytest.raises(ValueError, match=r"a\.yaml:\d+: "):
        LinedYaml(tmp_path / "a.yaml")
    assert time.process_time() - started < 5


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("a: &a [1, 2]\nb: *a\n", {"a": [1, 2], "b": [1, 2]}),
        ("a: &a {b: 1}\nc: {<<: *a, d: 2}\n", {"a": {"b": 1}, "c": {"b": 1, "d": 2}}),
        ("[" * 99 + "]" * 99, None),
        (f"[{'1,' * 4990}]", [1] * 4990),
        ('{"a": 1.5}', {"a": 1.5}),
    ],
)
def test_what_is_read(text: str, value: object) -> None:
    read = parse_yaml(text)
    assert read == value or value is None


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UnreadableYamlError, match="cannot be read: No such file"):
        read_yaml(tmp_path / "none.yaml")
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(UnreadableYamlError, match="is no text in UTF-8"):
        read_yaml(tmp_path / "a.yaml")


def test_the_made_configs_are_small() -> None:
    assert max(len(CONFIGS[name]) for name in ("bomb", "merge_bomb")) < 4000
