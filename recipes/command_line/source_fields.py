"""Fields of argument dataclasses, read from their source files by `ast`: nothing heavy is imported.

A class is found by following the import statements from module to module, those under `TYPE_CHECKING` included, as the
packages of TRL and transformers load their names on first use. Base classes and mixins are followed in the same way.
"""

import ast
import builtins
import functools
import inspect
import math
import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

NAMESPACE = "tokenshift"
LIGHT = {"math": math, "pathlib": {"Path": Path}, "typing": {}}
"""Modules whose names an expression may use as they are."""


class UnreadableSource(LookupError):
    """A source file, or a name in it, was not found."""


@dataclass(frozen=True)
class SourceField:
    """One field of a dataclass.

    Attributes:
        name: The field's name.
        kind: `int`, `float`, `bool`, `str`, or None where the source does not say it simply.
        is_list: Whether it takes several values.
        optional: Whether None is one of its values.
        choices: The values of a `Literal`; empty for other types.
        default: The default value; `UNKNOWN` where there is none, or the source cannot be evaluated.
        help: The metadata's help text.
        aliases: Further option strings.
        owner: Dotted name of the class that declares it.
    """

    name: str
    kind: type | None
    is_list: bool
    optional: bool
    choices: tuple[Any, ...]
    default: Any
    help: str
    aliases: tuple[str, ...]
    owner: str


class _Unknown:
    def __repr__(self) -> str:
        return "..."


UNKNOWN = _Unknown()


def class_fields(dotted: str) -> dict[str, SourceField]:
    """Fields of a dataclass and of its bases, by name, in the order in which `dataclasses.fields` has them.

    Args:
        dotted: Dotted name of the class, as it may be imported.

    Raises:
        UnreadableSource: If a source is not there, or a base class is not found.
    """
    module, _, name = dotted.rpartition(".")
    return _fields(*_definition(module, name))


def class_lineage(dotted: str) -> list[str]:
    """Dotted names of a class and of its bases, the class first."""
    module, _, name = dotted.rpartition(".")
    definition, home = _definition(module, name)
    lineage = [f"{home}.{definition.name}"]
    for base in _bases(definition):
        lineage += class_lineage(f"{home}.{base}")
    return list(dict.fromkeys(lineage))


def class_heading(dotted: str) -> str:
    """First line of a class's docstring, without markup; empty where it goes straight to the parameters."""
    module, _, name = dotted.rpartition(".")
    definition, _ = _definition(module, name)
    first = (ast.get_docstring(definition) or "").split("\n\n")[0]
    return "" if first.startswith("Parameters:") else plain_text(first)


def plain_text(text: str) -> str:
    """A text in one line, without the marks of code and links."""
    words = re.sub(r"\[`~[\w.]*?(\w+)`\]", r"\1", " ".join(text.split()))
    return words.replace("[`", "").replace("`]", "").replace("`", "")


def module_docstring(file: Path) -> str:
    """The docstring of a source file."""
    return ast.get_docstring(_parsed(file)) or ""


def constant(module: str, name: str) -> Any:
    """The value of a module's constant; `UNKNOWN` where the source cannot be evaluated.

    Raises:
        UnreadableSource: If a source is not there, or the name is not found.
    """
    return _constant(module, name)


def registered_names(package: str, kind: str) -> list[str]:
    """Names under which the modules of a package register entries of one kind.

    They are those of `@register_KIND(...)` on a function, of `register_KIND(...)(function)`, and of `Kind("name")`
    or `Kind(name="name")`, an entry that is made directly.

    Args:
        package: Dotted name of the package.
        kind: The kind, as in the name of its decorator.

    Raises:
        UnreadableSource: If the sources are not there, or a name cannot be evaluated.
    """
    names = []
    for file in sorted(_file(package).parent.glob("*.py")):
        module = package if file.name == "__init__.py" else f"{package}.{file.stem}"
        names += _registered_in(_parsed(file), module, kind)
    if not names or any(not isinstance(name, str) for name in names):
        raise UnreadableSource(f"The names that {package} registers cannot be read.")
    return list(dict.fromkeys(names))


def registered_signatures(package: str, kind: str) -> dict[str, inspect.Signature]:
    """Signatures of the functions that the modules of a package decorate by `@register_KIND(...)`, by name.

    Args:
        package: Dotted name of the package.
        kind: The kind, as in the name of its decorator.

    Raises:
        UnreadableSource: If the sources are not there.
    """
    signatures: dict[str, inspect.Signature] = {}
    for file in sorted(_file(package).parent.glob("*.py")):
        for node in (node for node in ast.walk(_parsed(file)) if isinstance(node, ast.FunctionDef)):
            for decorator in node.decorator_list:
                if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == f"register_{kind}":
                    given = decorator.args[0] if decorator.args else None
                    name = str(given.value) if isinstance(given, ast.Constant) else node.name
                    signatures[name] = _signature(node.args)
    return signatures


def _signature(arguments: ast.arguments) -> inspect.Signature:
    """The signature of positional arguments without defaults, and of keyword-only ones."""
    kinds = inspect.Parameter
    positional = [kinds(given.arg, kinds.POSITIONAL_OR_KEYWORD) for given in arguments.args]
    options = [
        kinds(given.arg, kinds.KEYWORD_ONLY, default=kinds.empty if default is None else ...)
        for given, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    ]
    return inspect.Signature([*positional, *options])


def _registered_in(tree: ast.Module, module: str, kind: str) -> list[Any]:
    functions = {
        id(decorator): node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        for decorator in node.decorator_list
    }
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    for call in calls:
        if isinstance(call.func, ast.Call) and len(call.args) == 1:
            functions[id(call.func)] = ast.unparse(call.args[0])
    names: list[Any] = []
    for call in calls:
        given = call.args[0] if call.args else None
        if ast.unparse(call.func) == f"register_{kind}" and id(call) in functions:
            names.append(functions[id(call)] if given is None else _evaluated(given, module))
        elif ast.unparse(call.func) == kind.capitalize():
            given = given or next((keyword.value for keyword in call.keywords if keyword.arg == "name"), None)
            names += [given.value] if isinstance(given, ast.Constant) else []
    return names


def _fields(definition: Any, module: str) -> dict[str, SourceField]:
    if not isinstance(definition, ast.ClassDef):
        raise UnreadableSource(f"{module} has no such class.")
    fields: dict[str, SourceField] = {}
    for base in reversed(_bases(definition)):
        fields |= _fields(*_definition(module, base))
    if any("dataclass" in ast.unparse(decorator) for decorator in definition.decorator_list):
        for statement in definition.body:
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                field = _field(statement, f"{module}.{definition.name}", module)
                if field is not None:
                    fields[field.name] = field
    return fields


def _bases(definition: ast.ClassDef) -> list[str]:
    """Names of the base classes that may have fields.

    Raises:
        UnreadableSource: If a base is written otherwise than by a name: fields would be missing.
    """
    names = []
    for base in definition.bases:
        if isinstance(base, ast.Name):
            names += [] if hasattr(builtins, base.id) else [base.id]
        elif not (isinstance(base, ast.Subscript) and ast.unparse(base.value) in ("Generic", "Protocol")):
            raise UnreadableSource(f"{definition.name} has the base {ast.unparse(base)}.")
    return names


def _field(statement: ast.AnnAssign, owner: str, module: str) -> SourceField | None:
    """The field that an annotated name makes; None for a class variable, and for what `__init__` does not take."""
    assert isinstance(statement.target, ast.Name)
    kind, is_list, optional, choices = _type(statement.annotation)
    if "ClassVar" in ast.unparse(statement.annotation):
        return None
    default: ast.expr | None = statement.value
    metadata: dict[Any, Any] = {}
    if isinstance(default, ast.Call) and ast.unparse(default.func) in ("field", "dataclasses.field"):
        given = {keyword.arg: keyword.value for keyword in default.keywords}
        if "init" in given and _evaluated(given["init"], module) is False:
            return None
        if isinstance(given.get("metadata"), ast.Dict):
            metadata = _evaluated(given["metadata"], module)
        factory = given.get("default_factory")
        default = given.get("default", factory.body if isinstance(factory, ast.Lambda) else None)
        if isinstance(factory, ast.Name):
            default = ast.Call(factory, [], [])
    help_text, aliases = metadata.get("help"), metadata.get("aliases", ())
    return SourceField(
        name=statement.target.id,
        kind=kind,
        is_list=is_list,
        optional=optional,
        choices=choices,
        default=UNKNOWN if default is None else _evaluated(default, module),
        help=help_text if isinstance(help_text, str) else "",
        aliases=(aliases,) if isinstance(aliases, str) else tuple(aliases),
        owner=owner,
    )


ARGUMENT_KINDS = {"int": int, "float": float, "bool": bool, "str": str}


def _type(annotation: ast.expr) -> tuple[type | None, bool, bool, tuple[Any, ...]]:
    """Kind, whether it is a list, whether None is allowed, and choices."""
    members = [member for member in _members(annotation) if not _is_none(member)]
    optional = len(members) < len(_members(annotation))
    if len(members) != 1:
        return None, False, optional, ()
    member = members[0]
    if isinstance(member, ast.Name):
        return ARGUMENT_KINDS.get(member.id), False, optional, ()
    if isinstance(member, ast.Subscript):
        outer = ast.unparse(member.value).rpartition(".")[2]
        if outer == "Literal":
            values = member.slice.elts if isinstance(member.slice, ast.Tuple) else [member.slice]
            choices = tuple(value.value for value in values if isinstance(value, ast.Constant))
            return None, False, optional, choices if len(choices) == len(values) else ()
        if outer in ("list", "List"):
            return _type(member.slice)[0], True, optional, ()
    return None, False, optional, ()


def _members(annotation: ast.expr) -> list[ast.expr]:
    """The types of a union."""
    if isinstance(annotation, ast.BinOp) and isinstance(annotation.op, ast.BitOr):
        return _members(annotation.left) + _members(annotation.right)
    if isinstance(annotation, ast.Subscript):
        outer = ast.unparse(annotation.value).rpartition(".")[2]
        if outer == "Optional":
            return [*_members(annotation.slice), ast.Constant(None)]
        if outer == "Union" and isinstance(annotation.slice, ast.Tuple):
            return [member for part in annotation.slice.elts for member in _members(part)]
    return [annotation]


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _evaluated(node: ast.expr, module: str) -> Any:
    """The value of an expression of constants, from its module or followed through imports; UNKNOWN otherwise.

    In an f-string only the parts that cannot be evaluated become `...`.
    """
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.JoinedStr):
        parts = [
            ast.JoinedStr([part]) if isinstance(part, ast.FormattedValue) else part for part in node.values
        ]  # each alone, so that one that is unknown does not hide the others
        return "".join(str(_calculated(part, module)) for part in parts)
    if isinstance(node, ast.Dict) and all(isinstance(key, ast.Constant) for key in node.keys):
        return {
            key.value: _evaluated(value, module)
            for key, value in zip(node.keys, node.values, strict=True)
            if isinstance(key, ast.Constant)
        }
    return _calculated(node, module)


def _calculated(node: ast.expr, module: str) -> Any:
    bound = {part.id for part in ast.walk(node) if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)}
    names = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)} - bound
    try:
        known = {name: _constant(module, name) for name in names if not hasattr(builtins, name)}
        if any(value is UNKNOWN for value in known.values()):
            return UNKNOWN
        expression = ast.fix_missing_locations(ast.Expression(node))
        return eval(compile(expression, module, "eval"), known)
    except Exception:  # the expression is none of constants: help is poorer then, and nothing is refused
        return UNKNOWN


@functools.cache
def _constant(module: str, name: str) -> Any:
    """The value of a module's name."""
    if name == "__file__":
        return str(_file(module))
    for statement in ast.walk(_parsed(_file(module))):
        if isinstance(statement, ast.Import):
            for alias in statement.names:
                if alias.name == (alias.asname or name) == name and name in LIGHT:
                    return LIGHT[name]
        if isinstance(statement, ast.ImportFrom) and statement.module in LIGHT:
            for alias in statement.names:
                source = LIGHT[statement.module]
                if (alias.asname or alias.name) == name and isinstance(source, dict):
                    return source[alias.name]
    definition, home = _definition(module, name)
    if isinstance(definition, ast.Call) and ast.unparse(definition.func) == "Registry":
        return [name for source in dict.fromkeys((home, module)) for name in _registered_names(source)]
    return UNKNOWN if isinstance(definition, ast.ClassDef) else _evaluated(definition, home)


def _registered_names(module: str) -> list[str]:
    """Names that a module's functions are registered by: the decorator's first argument, or the function's name."""
    names = []
    functions = [statement for statement in _parsed(_file(module)).body if isinstance(statement, ast.FunctionDef)]
    for function in functions:
        for decorator in function.decorator_list:
            if isinstance(decorator, ast.Call) and ast.unparse(decorator.func).startswith("register_"):
                given = decorator.args[0] if decorator.args else None
                names.append(str(given.value) if isinstance(given, ast.Constant) else function.name)
    return names


@functools.cache
def _definition(module: str, name: str) -> tuple[Any, str]:
    """The class, or the expression of the constant, that a module's name stands for; and the module that defines it.

    Raises:
        UnreadableSource: If the name is not found.
    """
    file = _file(module)
    tree = _parsed(file)
    for statement in tree.body:
        if isinstance(statement, ast.ClassDef) and statement.name == name:
            return statement, module
        if isinstance(statement, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id == name for target in statement.targets
        ):
            return statement.value, module
        if (
            isinstance(statement, ast.AnnAssign)
            and statement.value is not None
            and isinstance(statement.target, ast.Name)
            and statement.target.id == name
        ):
            return statement.value, module
    for imported in ast.walk(tree):
        if isinstance(imported, ast.ImportFrom):
            for alias in imported.names:
                if (alias.asname or alias.name) == name:
                    return _definition(_imported_module(imported, module, file), alias.name)
    raise UnreadableSource(f"{module} has no {name}.")


def _imported_module(statement: ast.ImportFrom, module: str, file: Path) -> str:
    if not statement.level:
        return statement.module or ""
    parents = statement.level - (file.name == "__init__.py")
    package = module.split(".")
    return ".".join([*package[: len(package) - parents], *([statement.module] if statement.module else [])])


@functools.cache
def _file(module: str) -> Path:
    """The source file of a module; no package above it is imported.

    Raises:
        UnreadableSource: If there is none.
    """
    parts = module.split(".")
    depth = 2 if parts[0] == NAMESPACE else 1
    top, rest = ".".join(parts[:depth]), parts[depth:]
    try:
        spec = find_spec(top)
    except (ImportError, ValueError) as error:
        raise UnreadableSource(f"{top} is not installed.") from error
    if spec is None or (rest and not spec.submodule_search_locations):
        raise UnreadableSource(f"{top} is not installed.")
    if not rest:
        file = Path(spec.origin or "")
    else:
        path = Path(next(iter(spec.submodule_search_locations or ()))).joinpath(*rest)
        file = path / "__init__.py" if path.is_dir() else path.with_name(f"{path.name}.py")
    if not file.is_file():
        raise UnreadableSource(f"{module} has no source file.")
    return file


@functools.cache
def _parsed(file: Path) -> ast.Module:
    try:
        return ast.parse(file.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, UnicodeDecodeError) as error:
        raise UnreadableSource(f"{file} cannot be read.") from error
