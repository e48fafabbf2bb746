"""Fields that are read from sources are those that the imported classes have."""

import dataclasses
import importlib
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest

from tokenshift.recipes.command_line.commands import COMMANDS
from tokenshift.recipes.command_line.early_check import EarlyParser, command_fields
from tokenshift.recipes.command_line.parser import OneLineParser
from tokenshift.recipes.command_line.source_fields import (
    ARGUMENT_KINDS,
    UNKNOWN,
    UnreadableSource,
    class_fields,
    class_heading,
    class_lineage,
)

WITH_ARGUMENTS = [name for name, command in COMMANDS.items() if command.arguments]


def imported(dotted: str) -> Any:
    module, _, name = dotted.rpartition(".")
    return getattr(importlib.import_module(module), name)


@pytest.mark.parametrize("name", WITH_ARGUMENTS)
def test_sources_say_what_the_classes_say(name: str) -> None:
    fields = command_fields(COMMANDS[name])
    real = {
        field.name: (field, get_type_hints(argument_class)[field.name])
        for argument_class in map(imported, COMMANDS[name].arguments)
        for field in dataclasses.fields(argument_class)
        if field.init
    }
    assert list(fields) == list(real)
    for name, (field, hint) in real.items():
        read = fields[name]
        factory = field.default_factory
        default = field.default if factory is dataclasses.MISSING else factory()
        if read.default is not UNKNOWN:
            assert read.default == default, name
        if read.owner.startswith("tokenshift."):
            assert read.default is not UNKNOWN, name
            assert read.help == field.metadata["help"], name
        members = [member for member in get_args(hint) if member is not type(None)] or [hint]
        if len(members) == 1 and type(None) in get_args(hint):
            (hint,) = members
            assert read.optional, name
        if get_origin(hint) is Literal:
            assert read.choices == get_args(hint), name
        elif hint in ARGUMENT_KINDS.values():
            assert (read.kind, read.is_list) == (hint, False), name
        elif get_origin(hint) is list:
            assert read.is_list, name


@pytest.mark.parametrize("name", [name for name in WITH_ARGUMENTS if COMMANDS[name].config_holds_arguments])
def test_options_are_those_of_the_parser(name: str) -> None:
    real = OneLineParser(tuple(map(imported, COMMANDS[name].arguments)), allow_abbrev=False)
    options = {option.lstrip("-") for action in real._actions for option in action.option_strings}
    assert EarlyParser(command_fields(COMMANDS[name]).values()).options() == options - {"h", "help"}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package whose import fails, with a mixin, a chain of imports, and names that cannot be evaluated."""
    folder = tmp_path / "made_package"
    folder.mkdir()
    (folder / "__init__.py").write_text(
        "raise RuntimeError('imported')\nif TYPE_CHECKING:\n    from .inner import Renamed as Shown\n"
    )
    (folder / "names.py").write_text(
        "KNOWN = ('a', 'b')\nMADE = make()\nHALF = 1 / 2\n"
        "ENTRIES: Registry[int] = Registry('entry')\n@register_entry(low=0)\ndef one(): ...\ndef none(): ...\n"
        "@register_entry('two')\ndef other(): ...\n"
    )
    (folder / "inner.py").write_text(
        "from dataclasses import dataclass, field\nfrom typing import ClassVar, Literal, Optional\n"
        "from .names import ENTRIES, HALF, KNOWN, MADE as OTHER\n"
        "@dataclass\nclass Mixin:\n    shared: Optional[float] = HALF\n    over: int = 1\n"
        "@dataclass\nclass Base:\n    '''Arguments of [`~made.Thing`], in `code`.\n\n    More.\n    '''\n"
        "    first: str\n    kind: ClassVar[int] = 3\n    made: int = field(init=False, default=0)\n"
        "@dataclass\nclass Renamed(Mixin, Base):\n    over: int = field(default=2, metadata={'help': "
        "f'One of {\", \".join(KNOWN)}, {\", \".join(ENTRIES)}, not {OTHER}.', 'aliases': ['--o']})\n"
        "    many: list[int] = field(default_factory=lambda: [len(name) for name in KNOWN])\n"
        "    strange: dict | str | None = None\n    one: Literal['x', 'y'] = 'x'\n"
        "class Plain(Renamed):\n    hidden: int = 0\n"
        "class Lost(Elsewhere):\n    pass\nclass Far(elsewhere.Base):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return "made_package"


def test_names_are_followed_without_importing(package: str) -> None:
    fields = class_fields(f"{package}.Shown")
    assert list(fields) == ["first", "shared", "over", "many", "strange", "one"]
    assert fields["shared"].default == 0.5
    assert (fields["shared"].kind, fields["shared"].optional) == (float, True)
    assert (fields["over"].default, fields["over"].aliases) == (2, ("--o",))
    assert fields["over"].help == "One of a, b, one, two, not ...."
    assert (fields["many"].kind, fields["many"].is_list) == (int, True)
    assert fields["strange"].kind is None
    assert fields["one"].choices == ("x", "y")
    assert fields["first"].default is UNKNOWN
    assert class_lineage(f"{package}.Shown") == [f"{package}.inner.{name}" for name in ("Renamed", "Mixin", "Base")]
    assert list(class_fields(f"{package}.inner.Plain")) == list(fields)
    assert class_heading(f"{package}.inner.Base") == "Arguments of Thing, in code."


@pytest.mark.parametrize(
    "dotted",
    ["no_such_package.A", "made_package.Missing", "made_package.inner.Lost", "made_package.inner.Far", "math.A"],
)
def test_what_is_not_found_is_said(dotted: str, package: str) -> None:
    with pytest.raises(UnreadableSource):
        class_fields(dotted)
