"""Functions by name: what is refused, and what is found."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tokenshift.analysis.registry import Registry, close_match, import_dotted


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder; modules that a test imports from it are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def first(x: int) -> int:
    return x


def second(x: int) -> int:
    return x + 1


def test_a_name_is_one_function() -> None:
    registry: Registry[str] = Registry("weighting", "weighting")
    registry.add("a", first, "entry")
    registry.add("a", first, "the module imported again")
    assert registry.get("a") == "the module imported again"
    with pytest.raises(ValueError, match=r"The weighting 'a' is registered already, by .*first; choose another name"):
        registry.add("a", second, "other")


def test_two_functions_of_one_name_in_one_file(folder: Path) -> None:
    (folder / "twice_defined.py").write_text("def a(x):\n    return 1\nkept = a\ndef a(x):\n    return 2\n")
    registry: Registry[str] = Registry("weighting", "weighting")
    registry.add("a", import_dotted("twice_defined.kept", "weighting"), "entry")
    with pytest.raises(ValueError, match="registered already"):
        registry.add("a", import_dotted("twice_defined.a", "weighting"), "other")


@pytest.mark.parametrize(
    ("source", "path", "words"),
    [
        ("", "mine.weights", "has no weights"),
        ("wights = 1", "mine.weights", "did you mean wights?"),
        ("1 / 0", "mine.weights", r"ZeroDivisionError: division by zero \(mine.py, line 1\)"),
        ("def weights(:", "mine.weights", "SyntaxError"),
        ("raise SystemExit('bye')", "mine.weights", "SystemExit: bye"),
        ("", "nowhere.weights", "No module named 'nowhere'"),
        ("", "mine", "is not a dotted path"),
        ("", "mine..weights", "is not a dotted path"),
        ("", "torch.weights", "has no weights"),
    ],
)
def test_a_dotted_path_that_leads_nowhere(folder: Path, source: str, path: str, words: str) -> None:
    (folder / "mine.py").write_text(source)
    with pytest.raises(ValueError, match=words) as caught:
        import_dotted(path, "advantage_weighting")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"advantage_weighting={path!r}")


def test_a_module_of_the_current_folder_comes_first_and_hides_nothing(folder: Path) -> None:
    (folder / "statistics_of_mine.py").write_text("import fractions\nvalue = 7\n")
    (folder / "fractions.py").write_text("hidden = True\n")  # the standard library's is loaded already
    assert import_dotted("statistics_of_mine.value", "x") == 7
    assert sys.path[0] != str(folder)
    with pytest.raises(ValueError, match="the name fractions is taken by the module"):
        import_dotted("fractions.hidden", "x")


def test_unknown_names() -> None:
    registry: Registry[str] = Registry("criteria", "criterion")
    registry.add("entropy", first, "entry")
    with pytest.raises(
        ValueError, match=r"criteria='entrpy' is no criterion; did you mean entropy\? Known are entropy"
    ):
        registry.get("entrpy")
    with pytest.raises(ValueError, match="is a function that is not registered; decorate it by @register_criterion"):
        registry.get("os.path.join")
    assert close_match("zzz", ["abc"]) == ""
