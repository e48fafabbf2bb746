"""Settings that differ between the processes of a run."""

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from tokenshift.trainer.resume import process_group
from tokenshift.trainer.resume.same_settings import check_same_settings, difference, settings_of


@dataclass
class Settings:
    learning_rate: float = 1e-3
    model_init_kwargs: Any = None
    local_rank: int = 0
    function: Any = field(default=None)
    derived: int = field(default=0, init=False)


def test_a_difference_is_named_with_both_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_group, "_processes", {0: ("a", 1, 0.0), 1: ("a", 2, 0.0), 2: ("b", 1, 0.0)})
    mine, its = settings_of(Settings()), settings_of(Settings(learning_rate=2e-3))
    assert difference([mine, mine, mine]) is None
    assert difference([mine, mine, its]) == ("learning_rate is 0.001 on rank 0 (host a), but 0.002 on rank 2 (host b)")
    more = {**its, "seed": "1"}
    assert str(difference([mine, more])).endswith("but 0.002 on rank 1 (host a) (and seed)")
    assert "seed is not there on rank 0 (host a), but 1" in str(difference([mine, {**mine, "seed": "1"}]))


def test_what_belongs_to_a_process_may_differ() -> None:
    first = Settings(local_rank=0, function=object(), model_init_kwargs={"token": "hf_" + "a" * 34})
    second = Settings(local_rank=1, function=object(), model_init_kwargs={"token": "hf_" + "b" * 34})
    second.derived = 1
    assert settings_of(first) == settings_of(second)
    assert "hf_a" not in str(settings_of(first))


def test_every_process_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    check_same_settings({"a": "1"})  # alone
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)

    def gather(everyone: list[Any], mine: Any) -> None:
        everyone[:] = [mine, {"a": "2"}]

    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    with pytest.raises(ValueError, match=r"a is 1 on rank 0 .* but 2 on rank 1 .*; give all processes of a run the"):
        check_same_settings({"a": "1"})
    check_same_settings({"a": "2"})
