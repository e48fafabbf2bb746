"""A package's public names, each imported when it is first used (PEP 562).

A package lists its public names once, as imports under `if TYPE_CHECKING:`, which type checkers and editors read too:

    from typing import TYPE_CHECKING

    from tokenshift.analysis.lazy_face import lazy_face

    if TYPE_CHECKING:
        from tokenshift.analysis.divergence.from_logits import js_divergence as js_divergence
    else:
        __getattr__, __dir__, __all__ = lazy_face(__name__)

The module imports nothing but the standard library, and every room of the project may import it.
"""

import ast
import importlib
import importlib.util
import sys
from collections.abc import Callable
from typing import Any


def lazy_face(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """`__getattr__`, `__dir__` and `__all__` of a package, from the imports under its `if TYPE_CHECKING:`.

    Args:
        package: the package's `__name__`.

    Raises:
        ImportError: if the source of the package is not there, as in an installation of byte code alone.
    """
    module = sys.modules[package]
    origins = _origins(package, module)

    def get(name: str) -> Any:
        if name in origins:
            value = getattr(importlib.import_module(origins[name]), name)
            setattr(module, name, value)  # the next use does not come here
            return value
        if importlib.util.find_spec(f"{package}.{name}") is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}", name=name, obj=module)
        return importlib.import_module(f"{package}.{name}")  # `tokenshift.analysis.divergence` without an import of it

    def names() -> list[str]:
        return sorted({*vars(module), *origins})

    return get, names, sorted(origins)


def _origins(package: str, module: Any) -> dict[str, str]:
    """The module that each public name comes from."""
    source = module.__spec__.loader.get_source(package)
    if source is None:
        raise ImportError(f"The source of {package} is not there; install tokenshift with its .py files.")
    imports = [
        node
        for block in ast.parse(source).body
        if isinstance(block, ast.If) and isinstance(block.test, ast.Name) and block.test.id == "TYPE_CHECKING"
        for node in block.body
        if isinstance(node, ast.ImportFrom)
    ]
    return {alias.name: str(node.module) for node in imports for alias in node.names}
