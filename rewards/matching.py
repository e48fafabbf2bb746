"""The matching of items that may come in any order."""

from collections.abc import Callable, Sequence
from typing import TypeVar

_Item = TypeVar("_Item")


def same_in_any_order(golds: Sequence[_Item], answers: Sequence[_Item], same: Callable[[_Item, _Item], bool]) -> bool:
    """Whether each gold item is the same as an item of the answer, and none of the answer's is left over."""
    if len(golds) != len(answers):
        return False
    left = list(answers)
    for gold in golds:
        match = next((index for index, answer in enumerate(left) if same(gold, answer)), None)
        if match is None:
            return False
        del left[match]
    return True
