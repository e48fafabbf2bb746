"""Files, folders, data and functions that a command line names and that are not there, or are not what they should be.

They are looked at before torch and TRL are imported, by the standard library alone. Whatever is not plainly wrong
passes: the same mistakes, and those that need a library or a model to be seen, are named after the imports.
"""

import ast
from collections.abc import Mapping
from glob import glob
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tokenshift.analysis.registry import close_match
from tokenshift.analysis.storage.user_paths import user_path
from tokenshift.recipes.command_line.source_fields import SourceField
from tokenshift.recipes.inputs.data_files import READERS, check_data_file
from tokenshift.recipes.inputs.model_names import local_folder

MODELS = ("model_name_or_path", "base_model", "rl_model", "sft_models", "checkpoints", "model", "against")
"""Arguments that name models."""

FUNCTIONS = ("reward_funcs", "reward_func", "answer_extractor", "advantage_weighting", "divergence", "criteria")
"""Arguments that take dotted paths of functions."""

DECORATED = {"advantage_weighting": "weighting", "divergence": "divergence"}
"""Those of them that take registered functions alone -> the kind, as in the name of the decorator."""

SPLITS = ("dataset_train_split", "dataset_split")
"""Arguments that name the split that is read."""

NO_COLUMN = ("none", "null", "")
"""Values of a column's name that stand for no column."""

FILE_SPLITS = ("train", *NO_COLUMN)
"""The only split of a data file, and values that stand for no split."""

OUTPUTS_OF = {"shift": "rl_model", "robustness": "rl_model", "cross": "rl_model", "evolution": "checkpoints"}
"""Commands whose default model is what a training leaves -> the argument that names it."""


def check_paths(command: str, given: Mapping[str, Any], fields: Mapping[str, SourceField]) -> None:
    """Raise for the first path that is plainly wrong.

    Args:
        command: the command.
        given: the given values by argument.
        fields: the command's fields.

    Raises:
        ValueError: if there is one.
    """
    values = {name: _listed(value) for name, value in given.items() if value is not None}
    default = OUTPUTS_OF.get(command)
    if default is not None and default not in values and default in fields:
        values[default] = _listed(fields[default].default)
    for name in FUNCTIONS:
        for value in values.get(name, ()):
            _check_function(name, value)
    _check_output(values)
    for name in MODELS:
        for value in values.get(name, ()):
            _check_model(command, name, value)
    _check_data(values, given, fields)
    if command == "shift":
        for value in values.get("trajectories", ()):
            if value not in ("rl", "base", "both") and not user_path(value, "trajectories").is_file():
                raise ValueError(f"trajectories={value!r} is no file; give rl, base, both or a file's path.")
        for value in values.get("control", ()):
            if not user_path(value, "control").is_dir():
                raise ValueError(f"control={value!r} is no folder of an analysis; name one that has a table.")


def _listed(value: Any) -> list[str]:
    """The values of an argument as texts; those of other kinds are left out."""
    return [item for item in (value if isinstance(value, list) else [value]) if isinstance(item, str)]


def _check_output(values: Mapping[str, list[str]]) -> None:
    for value in values.get("output_dir", ()):
        path = user_path(value, "output_dir")
        for folder in (path, *path.parents):
            if folder.is_file():
                what = "is a file" if folder == path else f"lies below {str(folder)!r}, which is a file"
                raise ValueError(f"output_dir={value!r} {what}; choose another --output_dir.")
            if folder.exists():
                break


def _check_model(command: str, setting: str, name: str) -> None:
    if command == "shift" and setting == "rl_model" and not user_path(name, setting).exists():
        recipe, equals, model = name.partition("=")
        if equals and recipe.replace("-", "_").isidentifier():
            name = model
    if setting == "checkpoints" and any(sign in name for sign in "*?["):
        if not any(Path(path).is_dir() for path in glob(str(user_path(name, setting)))):
            raise ValueError(f"checkpoints={name!r} finds no folder.")
        return
    bare, _, revision = name.partition("@")
    local_folder(name if not revision or user_path(name, setting).exists() else bare, setting)


def _check_data(values: Mapping[str, list[str]], given: Mapping[str, Any], fields: Mapping[str, SourceField]) -> None:
    """Look at the data's files; columns where one file is named, since several may have columns of their own."""
    rewards = values.get("reward_funcs") or values.get("reward_func") or ["accuracy_reward"]
    compared = bool({"accuracy_reward", "signed_accuracy_reward"} & set(rewards))
    held_out = None
    if "eval_size" in fields and values.get("dataset_test_split", ["test"]) == ["test"]:
        size = given.get("eval_size", fields["eval_size"].default)
        held_out = size if type(size) is int else None
    for setting in ("dataset_name", "datasets"):
        names = values.get(setting, [])
        for name in names:
            for split in (values.get(option) for option in SPLITS if option in fields):
                if len(names) == 1 and split and Path(name).suffix in READERS and split[0].lower() not in FILE_SPLITS:
                    raise ValueError(f"{setting}={name!r} has no split {split[0]!r}; it has 'train'.")
            columns: dict[str, str | None] = {}
            if len(names) == 1:
                for column, usual in (("prompt_column", "prompt"), ("solution_column", "solution")):
                    if len(values.get(column, ())) > 1:  # more than there are sets, which is told later
                        continue
                    (value,) = values.get(column, [usual])[:1] or [usual]
                    columns[column] = None if value.lower() in NO_COLUMN else value
                if "completion_column" in values:
                    columns["completion_column"] = values["completion_column"][0]
            check_data_file(setting, name, columns, compared=compared, held_out=held_out)


def _check_function(setting: str, value: str) -> None:
    """Look at the module of a dotted path: whether it is there, is Python, and has the name.

    Raises:
        ValueError: if not.
    """
    path = value.partition("(")[0]
    module, _, attribute = path.rpartition(".")
    if not module or not all(part.isidentifier() for part in path.split(".")):
        return
    file = Path(*module.split(".")).with_suffix(".py")
    if not file.is_file():
        top = module.partition(".")[0]
        if not Path(top).is_dir() and not Path(f"{top}.py").is_file() and _is_missing(top):
            raise ValueError(
                f"{setting}={path!r} cannot be imported: ModuleNotFoundError: No module named {top!r}; start where "
                "its file is, or install it."
            )
        return
    try:
        tree = ast.parse(file.read_bytes(), filename=str(file))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:  # the last two for code without end
        where = f" ({file}, line {error.lineno})" if isinstance(error, SyntaxError) else ""
        reason = error.msg if isinstance(error, SyntaxError) else error
        raise ValueError(f"{setting}={path!r} cannot be imported: {type(error).__name__}: {reason}{where}.") from error
    for node in tree.body:
        imported = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            imported = [node.module]
        for top in (name.partition(".")[0] for name in imported):
            if not Path(top).is_dir() and not Path(f"{top}.py").is_file() and _is_missing(top):
                raise ValueError(
                    f"{setting}={path!r} cannot be imported: ModuleNotFoundError: No module named {top!r} ({file}, "
                    f"line {node.lineno})."
                )
    _check_definition(setting, path, attribute, tree)
    names = _names(tree)
    if names is not None and attribute not in names:
        public = [name for name in names if not name.startswith("_")]
        hint = close_match(attribute, public) or "."
        raise ValueError(f"{setting}={path!r}: the module {module} ({file}) has no {attribute}{hint}")


def _check_definition(setting: str, path: str, attribute: str, tree: ast.Module) -> None:
    """Look at the only definition of a name at a module's top level: a function, and decorated where it has to be.

    Raises:
        ValueError: if it is plainly something else.
    """
    made = [
        node
        for node in tree.body
        if (isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == attribute)
        or (isinstance(node, ast.Assign) and any(ast.unparse(target) == attribute for target in node.targets))
    ]
    used = sum(isinstance(node, ast.Name) and node.id == attribute for node in ast.walk(tree))
    if len(made) != 1:
        return
    (node,) = made
    if isinstance(node, ast.Assign) and used == 1:
        try:
            kind = type(ast.literal_eval(node.value)).__name__
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            return
        raise ValueError(f"{setting}={path!r} is a {kind}, not a function.")
    if isinstance(node, ast.FunctionDef) and setting in DECORATED and not node.decorator_list and not used:
        raise ValueError(
            f"{setting}={path!r} is a function that is not registered; decorate it by @register_{DECORATED[setting]}."
        )


def _is_missing(module: str) -> bool:
    try:
        return find_spec(module) is None
    except (ImportError, ValueError):
        return False


def _names(tree: ast.Module) -> set[str] | None:
    """Names that a module has at its top level; None where it may have others."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names):
            return None
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
    written = {"setattr", "globals", "exec", "vars", "__getattr__"}
    if names & written or any(isinstance(node, ast.Name) and node.id in written for node in ast.walk(tree)):
        return None
    return names
