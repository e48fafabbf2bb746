"""Training is unchanged, bit for bit, by the weighting `none` (against stock TRL) and by a scale of zero."""

import pytest
from helpers.tiny_training import Build, parameters, same

LOSSES = ("grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo")


@pytest.mark.parametrize("loss_type", LOSSES)
def test_none_and_zero_scale_train_as_stock_trl(build: Build, loss_type: str) -> None:
    settings = {"loss_type": loss_type, "num_iterations": 2}
    ends = {}
    for name, extra in (
        ("stock", {"stock": True}),
        ("none", {"advantage_weighting": "none"}),
        ("zero", {"divergence_scale": 0.0}),
        ("high", {}),
    ):
        trainer = build(**settings, **extra)
        before = parameters(trainer)
        trainer.train()
        ends[name] = parameters(trainer)
        assert not same(before, ends[name]), "nothing was learnt, so the comparison could not fail"
    assert same(ends["stock"], ends["none"])
    assert same(ends["stock"], ends["zero"])
    assert not same(ends["stock"], ends["high"])
