"""Functions by name: a registry for each kind of function that a user may add, and the importer of dotted paths.

A registry maps a name to an entry. A dotted path (`my_weights.saturated`) works wherever a name does: the module is
imported from the current folder or from what is installed. The module imports nothing but the standard library, and
every room of the project may import it.
"""

import difflib
import importlib
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

Entry = TypeVar("Entry")


class UserFunctionError(ValueError):
    """A user's function raised, or gave something else than it should, while a run was under way."""


RAISED_BY_USERS = (Exception, SystemExit)
"""Exceptions that are caught around a user's function: its `sys.exit()` would otherwise end a run as if it had
succeeded. KeyboardInterrupt (Ctrl-C) is not among them: it stops a run, whoever raises it."""


def close_match(name: str, known: Iterable[str]) -> str:
    """Return `"; did you mean NAME?"` for the nearest known name, or an empty string."""
    nearest = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {nearest[0]}?" if nearest else ""


def import_dotted(path: str, setting: str) -> Any:
    """The object that a dotted path leads to; modules of the current folder are found too, and found first.

    Args:
        path: `module.attribute` or `package.module.attribute`.
        setting: the setting whose value it is, for the message.

    Raises:
        ValueError: if the module cannot be imported or has no such attribute, in one line.
    """
    module_name, _, attribute = path.rpartition(".")
    if not module_name or not all(part.isidentifier() for part in path.split(".")):
        raise ValueError(f"{setting}={path!r} is not a dotted path such as my_module.my_function.")
    folder = os.getcwd()
    top = module_name.partition(".")[0]
    in_folder = os.path.isfile(os.path.join(folder, f"{top}.py")) or os.path.isdir(os.path.join(folder, top))
    loaded = getattr(sys.modules.get(top), "__file__", None)
    if in_folder and loaded is not None and not loaded.startswith(folder + os.sep):
        raise ValueError(
            f"{setting}={path!r}: the name {top} is taken by the module {loaded}; give your file another name."
        )
    importlib.invalidate_caches()  # the file may be younger than the process
    if in_folder:
        sys.path.insert(0, folder)  # before what is installed, as for a script of the user's
    try:
        module = importlib.import_module(module_name)
    except RAISED_BY_USERS as error:  # whatever the user's module raises
        frames = [
            frame
            for frame in traceback.extract_tb(error.__traceback__)
            if frame.filename.startswith(folder + os.sep) and frame.filename != __file__
        ]
        where = f" ({os.path.relpath(frames[-1].filename)}, line {frames[-1].lineno})" if frames else ""
        reason = " ".join(str(error).split())
        raise ValueError(f"{setting}={path!r} cannot be imported: {type(error).__name__}: {reason}{where}.") from error
    finally:
        if in_folder:
            sys.path.remove(folder)
            if folder not in sys.path:
                sys.path.append(folder)  # for what the module imports later; it must not hide what is installed
    if not hasattr(module, attribute):
        public = [name for name in vars(module) if not name.startswith("_")]
        raise ValueError(
            f"{setting}={path!r}: the module {module_name} ({getattr(module, '__file__', None)}) has no {attribute}"
            f"{close_match(attribute, public) or '.'}"
        )
    return getattr(module, attribute)


class Registry(Generic[Entry]):
    """Entries by name, and by the dotted path of the function that they were made from.

    Args:
        setting: the setting that names an entry, for messages.
        kind: what an entry is, in a word or two, for messages.
        from_function: makes an entry of an undecorated function that a dotted path leads to, where that is possible;
            None if the function has to be decorated.
    """

    def __init__(
        self, setting: str, kind: str, from_function: Callable[[str, Callable[..., Any]], Entry] | None = None
    ) -> None:
        self.setting, self.kind = setting, kind
        self._from_function = from_function
        self._entries: dict[str, Entry] = {}
        self._functions: dict[str, Callable[..., Any]] = {}

    def add(self, name: str, function: Callable[..., Any], entry: Entry) -> None:
        """Register an entry.

        Raises:
            ValueError: if the name is taken by another function. The same function may be registered again, as happens
                when its module is imported twice.
        """
        taken = self._functions.get(name)
        if taken is not None and _identity(taken) != _identity(function):
            raise ValueError(
                f"The {self.kind} {name!r} is registered already, by {taken.__module__}.{taken.__qualname__}; choose "
                "another name."
            )
        self._entries[name], self._functions[name] = entry, function

    def get(self, name: str) -> Entry:
        """The entry of a name or of a dotted path.

        Raises:
            ValueError: for a name that is not known (the nearest one is shown), or a dotted path that leads nowhere or
                to something else.
        """
        if not isinstance(name, str):
            raise ValueError(
                f"{self.setting}={name!r} is a {type(name).__name__}; it must be the name of a {self.kind}."
            )
        if name in self._entries:
            return self._entries[name]
        if "." not in name:
            known = ", ".join(self._entries)
            raise ValueError(
                f"{self.setting}={name!r} is no {self.kind}{close_match(name, self._entries) or '.'} "
                f"Known are {known}, or give the dotted path of a function of yours."
            )
        function = import_dotted(name, self.setting)
        if not callable(function):
            raise ValueError(f"{self.setting}={name!r} is a {type(function).__name__}, not a function.")
        for known_name, registered in self._functions.items():
            if registered is function:
                return self._entries[known_name]
        if self._from_function is None:
            raise ValueError(
                f"{self.setting}={name!r} is a function that is not registered; decorate it by "
                f"@register_{self.kind.replace(' ', '_')}."
            )
        return self._from_function(name, function)  # not kept: the module may be loaded anew

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)


def _identity(function: Callable[..., Any]) -> tuple[str, str, int]:
    """The place where a function is defined, which is the same when its module is imported again."""
    line = getattr(getattr(function, "__code__", None), "co_firstlineno", 0)
    return function.__module__, function.__qualname__, line
