"""YAML files: the lines of settings, and files that cannot be read."""

from pathlib import Path

import pytest
import yaml

from tokenshift.recipes.jobs.comparison.lined_yaml import LinedYaml, Position, short_repr


def document(folder: Path, text: str | bytes) -> LinedYaml:
    path = folder / "mine.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return LinedYaml(path)


@pytest.mark.parametrize(
    ("position", "line"),
    [
        ((), 1),
        (("seeds",), 2),
        (("seeds", 1), 4),
        (("seeds", 7), 2),
        (("variants", "two", "beta"), 8),
        (("variants", "two", "loss_type"), 7),  # from the merged mapping, whose line it has
        (("variants", "three", "beta"), 9),
        (("nowhere", "at", "all"), 1),
    ],
)
def test_lines_of_settings(position: Position, line: int, tmp_path: Path) -> None:
    text = (
        "# mine\nseeds:\n- 0\n- 1\nparallel: 2\nvariants:\n  one: &one {beta: 0.1, loss_type: grpo}\n"
        "  two: {<<: *one, beta: 0.2}\n  three: null\n"
    )
    read = document(tmp_path, text)
    assert read.line(position) == line
    assert str(read.wrong(position, "it is\n wrong")) == f"{read.path}:{line}: it is wrong"


def test_names_are_kept_as_they_are_written(tmp_path: Path) -> None:
    read = document(tmp_path, "50: 50\nyes: yes\n0x10: 0x10\n2024-01-01: ~\n")
    assert read.data == {"50": 50, "yes": True, "0x10": 16, "2024-01-01": None}
    assert read.line(("0x10",)) == 3
    assert document(tmp_path, "# nothing\n").data is None


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        (b"a: \xff", 1, "this is not YAML: 'utf-8' codec can't decode byte 0xff"),
        ("a: \x01", 1, "this is not YAML: unacceptable character"),
        ("a: 1\nb: [1\n", 3, "this is not YAML: "),
        ("a: 1\n---\nb: 2\n", 2, "this is not YAML: but found another document"),
        ("a: 1\nb: *x\n", 2, "this is not YAML: found undefined alias 'x'"),
        ("a: 1\nb: {c: 1,\n  c: 2}", 3, "'c' is there twice, first on line 2; rename or drop one."),
        ("a: 1\n1: 2\n'1': 3\n", 3, "'1' is there twice, first on line 2"),
        ("a: 1\nb: &b [*b]\n", 2, "the file has a value that contains itself"),
        ("a: 1\n? [1]\n: 2\n", 2, "found unhashable key"),
        ("a: 1\nb: {<<: 3}\n", 2, "expected a mapping or list of mappings for merging"),
        ("a: 1\nb: !mine 3\n", 2, "could not determine a constructor for the tag '!mine'"),
        ("a: 1\nb: !!python/object/apply:os.system [ls]\n", 2, "could not determine a constructor for the tag"),
        ("a: 1\nb: 2020-13-45\n", 2, "month must be in 1..12"),
        ("a: 1\nb: !!bool perhaps\n", 2, "'perhaps' is no bool."),
        ("a: 1\nb: !!int ''\n", 2, "'' is no int."),
        ("a: 1\nb: !!timestamp soon\n", 2, "'soon' is no timestamp."),
        (f"a: {'9' * 5000}\n", 1, "Exceeds the limit"),
        (f"a: {'[' * 5000}", 1, "the file is nested too deeply"),
        (f"a: {'{b: ' * 3000}", 1, "the file is nested too deeply"),
    ],
)
def test_what_cannot_be_read(text: str | bytes, line: int, said: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"mine.yaml:\d+: ") as error:
        document(tmp_path, text)
    assert str(error.value).startswith(f"{tmp_path / 'mine.yaml'}:{line}: {said}")
    assert "\n" not in str(error.value)


def test_a_value_of_a_billion_parts_is_shown_in_a_line(tmp_path: Path) -> None:
    levels = [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]" for level in range(1, 9)]
    text = "\n".join(["a0: &a0 [x, x, x]", *levels])
    with pytest.raises(ValueError, match=r"mine\.yaml:5: the file has more than 5,000 values"):
        document(tmp_path, text)
    read = document(tmp_path, "\n".join(text.splitlines()[:4]))
    assert read.line(("a3", 3)) == 3  # where a2 stands
    assert len(short_repr(yaml.safe_load(text)["a8"])) < 400
    assert short_repr([0, "x", 2.5]) == "[0, 'x', 2.5]"
