"""An action of the main process whose mistake every process of a run learns."""

from collections.abc import Callable
from typing import TypeVar

from accelerate import PartialState
from accelerate.utils import broadcast_object_list

Result = TypeVar("Result")


def on_main_process(action: Callable[[], Result]) -> Result | None:
    """Do something on the main process; every process of a run must call it.

    Args:
        action: called without arguments, on the main process alone.

    Returns:
        What the action returns, on the main process; None on others.

    Raises:
        ValueError: on every process, if the action raises one; the main process raises that error itself.
    """
    result, mistake = None, None
    if PartialState().is_main_process:
        try:
            result = action()
        except ValueError as error:
            mistake = error
    (message,) = broadcast_object_list([None if mistake is None else str(mistake)])
    if mistake is not None:
        raise mistake
    if message is not None:
        raise ValueError(message)
    return result
