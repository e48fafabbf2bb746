"""Every recipe whose rewards verify answers refuses the same numbers, by the names of its own options."""

from typing import Any

import pytest

from tokenshift.recipes.inputs.verification_arguments import VERIFICATION, VerificationArguments
from tokenshift.recipes.jobs.analysis.shift import ShiftArguments
from tokenshift.recipes.jobs.sft.preparation import SftControlArguments
from tokenshift.recipes.jobs.training.arguments import RecipeArguments
from tokenshift.rewards import accuracy


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"verify_workers": 0}, "verify_workers=0 must be at least 1"),
        ({"verify_timeout": 0.0}, "verify_timeout=0.0 must be positive, at most 3600 seconds"),
        ({"verify_timeout": 5000.0}, "verify_timeout=5000.0 must be positive, at most 3600 seconds"),
        ({"verify_timeout": float("nan")}, "verify_timeout=nan must be positive"),
        ({"verify_budget": -1.0}, "verify_budget=-1.0"),
    ],
)
@pytest.mark.parametrize("recipe", [ShiftArguments, SftControlArguments, RecipeArguments])
def test_numbers_out_of_range_are_refused(recipe: Any, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recipe(**wrong, dataset_name="pocket")


def test_the_rewards_of_this_process_verify_so(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    monkeypatch.setattr(
        "tokenshift.recipes.inputs.verification_arguments.configure_verification", lambda *values: given.extend(values)
    )
    arguments = VerificationArguments(3, 2.5, 7.0, True)
    arguments.check_verification()
    arguments.configure_verification()
    assert given == [3, 2.5, True, 7.0]
    names = list(accuracy.configure_verification.__annotations__)[:4]
    assert names == ["workers", "limit", "decimal_comma", "budget"]
    assert set(VERIFICATION) == set(vars(arguments))
