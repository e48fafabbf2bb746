"""Packages import their public names on first use: all names are there, and importing a package costs little."""

import importlib
import pkgutil
import subprocess
import sys

import pytest

FACES = (
    "tokenshift.analysis",
    "tokenshift.analysis.divergence",
    "tokenshift.trainer",
    "tokenshift.rewards",
    "tokenshift.recipes.inputs",
)
HEAVY = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "matplotlib", "wandb", "pyarrow", "pandas")


def imported(statement: str) -> set[str]:
    """Which heavy libraries a fresh interpreter has imported after a statement."""
    code = f"{statement}\nimport sys\nprint(*(name for name in {HEAVY!r} if name in sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    return set(run.stdout.split())


@pytest.mark.parametrize("package", FACES)
def test_a_package_alone_imports_nothing_heavy(package: str) -> None:
    assert imported(f"import {package}") == set()


@pytest.mark.parametrize(
    "statement",
    [
        "from tokenshift.analysis.divergence import js_divergence",
        "from tokenshift.analysis import js_divergence",
        "from tokenshift.analysis import token_statistics, LMHead, gathered_head",
    ],
)
def test_divergences_need_torch_alone(statement: str) -> None:
    assert imported(statement) == {"torch"}


def test_a_verifier_needs_no_model_library() -> None:
    assert imported("from tokenshift.rewards import accuracy_reward, format_reward").isdisjoint(
        {"torch", "transformers", "trl", "peft", "accelerate", "wandb"}
    )


@pytest.mark.parametrize("package", FACES)
def test_every_name_is_there(package: str) -> None:
    module = importlib.import_module(package)
    assert module.__all__ == sorted(set(module.__all__))
    for name in module.__all__:
        value = getattr(module, name)
        assert vars(module)[name] is value  # looked up once
    assert set(module.__all__) <= set(dir(module))


@pytest.mark.parametrize("package", FACES)
def test_no_name_is_also_a_module_of_the_package(package: str) -> None:
    """The import of a module would put it in the place of the function of the same name."""
    module = importlib.import_module(package)
    assert not set(module.__all__) & {submodule.name for submodule in pkgutil.iter_modules(module.__path__)}


def test_public_names_stay() -> None:
    names = {
        "tokenshift.analysis": "STATISTICS LMHead Trajectory cross_sample entropy gathered_head js_divergence "
        "kl_divergence score_trajectories summarise token_statistics pass_at_k majority_at_k paired_comparison holm "
        "evaluate_model Request Sampling Intervention analyze evaluate",
        "tokenshift.trainer": "DivergenceGRPOConfig DivergenceGRPOTrainer ShiftProbeCallback DistributionReference",
        "tokenshift.rewards": "accuracy_reward configure_verification format_reward load_reward",
        "tokenshift.recipes.inputs": "find_model load_problems load_problem_set encoded_prompts grader_of judge_of "
        "generator_maker",
    }
    for package, public in names.items():
        assert set(public.split()) <= set(importlib.import_module(package).__all__)


def test_modules_are_reached_without_an_import_of_their_own() -> None:
    code = "import tokenshift.analysis\nprint(tokenshift.analysis.divergence.from_logits.__name__)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert run.stdout.strip() == "tokenshift.analysis.divergence.from_logits", run.stderr


def test_an_unknown_name_is_an_attribute_error() -> None:
    module = importlib.import_module("tokenshift.analysis")
    with pytest.raises(AttributeError, match=r"^module 'tokenshift\.analysis' has no attribute 'js_divergense'$"):
        _ = module.js_divergense
    assert not hasattr(module, "__wrapped__")
    with pytest.raises(ImportError, match="js_divergense"):
        exec("from tokenshift.analysis import js_divergense")
