"""The walls between rooms: what no module may import, read from the sources.

`WALLS` is the table. A room is named by its folder or file; a rule reads "no module of this room imports from these".
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("analysis", "trainer", "rewards", "recipes")

LEAVES = {"analysis.registry", "analysis.lazy_face"}
"""Modules of the standard library alone that every room may import."""

BOTTOM = {"analysis.divergence", "analysis.statistics", "analysis.storage"}
QUESTIONS = {"analysis.shift", "analysis.cross_sampling", "analysis.evaluation", "analysis.comparison"}
RECIPE_ROOMS = {"recipes.command_line", "recipes.inputs", "recipes.jobs", "recipes.benchmarks", "recipes.pocket"}
JOBS = {
    *("recipes.jobs.training", "recipes.jobs.sft", "recipes.jobs.analysis", "recipes.jobs.comparison"),
    "recipes.jobs.reproduction",
}
ANALYSIS_ROOMS = {
    *BOTTOM,
    *QUESTIONS,
    *("analysis.sampling", "analysis.token_table", "analysis.figures", "analysis.report", "analysis.vllm_engine"),
    "analysis.plan",
}
SCRIPTS = {f"recipes.{path.stem}" for path in (ROOT / "recipes").glob("*.py") if path.stem != "__init__"}

WALLS: dict[str, set[str]] = {
    "rewards": {"analysis", "trainer", "recipes"},
    "analysis": {"trainer", "rewards", "recipes"},
    **{room: ANALYSIS_ROOMS - {room} for room in BOTTOM},
    "analysis.figures": ANALYSIS_ROOMS - {"analysis.figures", *BOTTOM},
    "analysis.report": ANALYSIS_ROOMS - {"analysis.report", "analysis.figures", *BOTTOM},
    **{room: QUESTIONS - {room} for room in QUESTIONS},
    "analysis.sampling": {
        *("analysis.token_table", "analysis.figures", "analysis.report", "analysis.vllm_engine"),
        *QUESTIONS,
    },
    "analysis.plan": ANALYSIS_ROOMS - {"analysis.plan", "analysis.sampling", *BOTTOM},
    "analysis.vllm_engine": {"analysis.token_table", "analysis.figures", "analysis.report", *QUESTIONS},
    "analysis.token_table": {"analysis.figures", "analysis.report", *QUESTIONS},
    "trainer": {"recipes", "rewards"},
    "trainer.weighting": {"trainer.probe", "trainer.dynamic_sampling", "trainer.resume", "trainer.policy"},
    **{
        room: {"trainer.weighting", "trainer.probe", "trainer.dynamic_sampling", "trainer.grpo"}
        for room in (
            *("trainer.policy", "trainer.resume"),
            *("trainer.reference", "trainer.reference_model", "trainer.base_model"),
        )
    },
    "trainer.tracking": {
        *("trainer.probe", "trainer.dynamic_sampling", "trainer.policy", "trainer.resume", "trainer.plan"),
        *("trainer.grpo", "trainer.guard"),
    },
    "trainer.plan": {
        *("trainer.weighting", "trainer.probe", "trainer.dynamic_sampling", "trainer.policy", "trainer.resume"),
        *("trainer.grpo", "trainer.guard"),
    },
    "recipes.inputs": RECIPE_ROOMS - {"recipes.inputs", "recipes.pocket"},
    "recipes.pocket": RECIPE_ROOMS - {"recipes.pocket"},
    **{room: {*JOBS, "recipes.benchmarks"} - {room} for room in JOBS},
    # a comparison launches trainings, evaluations and cross-samplings: it alone reads what they take
    "recipes.jobs.comparison": {"recipes.jobs.sft", "recipes.jobs.reproduction", "recipes.benchmarks"},
    "recipes.benchmarks": {"recipes.jobs"},
    "recipes.command_line": {"recipes.jobs", "recipes.benchmarks"},
}


def module_name(path: Path) -> str:
    """The dotted name of a file below the project's namespace: `analysis.shift.summary`."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of everything that is imported from the project, inside functions too.

    Types that are imported for a type checker alone do not count.
    """
    skipped = {
        id(node)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and ast.unparse(branch.test).endswith("TYPE_CHECKING")
        for node in ast.walk(branch)
    }
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tokenshift"):
            for alias in node.names:
                yield node.lineno, f"{node.module}.{alias.name}".removeprefix("tokenshift.")
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("tokenshift."):
                    yield node.lineno, alias.name.removeprefix("tokenshift.")


def within(name: str, room: str) -> bool:
    return name == room or name.startswith(f"{room}.")


MODULES = {module_name(path): path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}


def breaches(name: str, tree: ast.AST) -> list[str]:
    """Every import of a module that goes through a wall."""
    result = []
    for line, target in imported(tree):
        if any(within(target, leaf) for leaf in LEAVES):
            continue
        for room, forbidden in WALLS.items():
            if within(name, room) and any(within(target, other) for other in forbidden):
                result.append(f"{name}:{line} imports {target}, which {room} must not")
        if any(within(target, script) and name != script for script in SCRIPTS):
            result.append(f"{name}:{line} imports the script {target}")
    return result


def test_no_module_goes_through_a_wall() -> None:
    assert [breach for name, tree in TREES.items() for breach in breaches(name, tree)] == []


def test_every_room_of_the_table_is_there() -> None:
    for room in {*WALLS, *LEAVES, *(other for forbidden in WALLS.values() for other in forbidden)}:
        assert any(within(name, room) for name in MODULES), f"{room} has moved: its wall watches nothing"


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("rewards.accuracy", "from tokenshift.analysis.divergence import js_divergence"),
        ("analysis.shift.summary", "import tokenshift.trainer.config"),
        ("analysis.divergence.top_k", "def f():\n    from tokenshift.analysis.sampling import requests"),
        ("recipes.jobs.sft.preparation", "from tokenshift.recipes.jobs import training"),
        ("recipes.evaluate", "from tokenshift.recipes import analyze_shift"),
    ],
)
def test_a_breach_is_seen(name: str, source: str) -> None:
    assert len(breaches(name, ast.parse(source))) == 1


def test_leaves_import_nothing_of_the_project() -> None:
    assert [(leaf, target) for leaf in LEAVES for _, target in imported(TREES[leaf])] == []


def graph() -> dict[str, set[str]]:
    """Modules that each module imports when it is itself imported: imports inside functions are left out."""
    result: dict[str, set[str]] = {}
    for name, tree in TREES.items():
        inner = {
            id(node)
            for function in ast.walk(tree)
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
            for node in ast.walk(function)
        }
        lines = {node.lineno for node in ast.walk(tree) if hasattr(node, "lineno") and id(node) not in inner}
        targets = (target for line, target in imported(tree) if line in lines)
        parts = ({target, target.rpartition(".")[0]} & MODULES.keys() for target in targets)
        result[name] = {max(part, key=len) for part in parts if part} - {name}
    return result


def test_no_import_circle() -> None:
    """Depth first: a module that is met again while it is still being imported closes a circle."""
    edges = graph()
    done: set[str] = set()
    path: list[str] = []

    def visit(name: str) -> None:
        assert name not in path, f"a circle: {' -> '.join([*path[path.index(name) :], name])}"
        if name in done:
            return
        path.append(name)
        for target in sorted(edges[name]):
            visit(target)
        path.pop()
        done.add(name)

    for name in edges:
        visit(name)
