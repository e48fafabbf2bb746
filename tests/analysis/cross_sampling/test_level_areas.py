"""Areas up to 10 % of tokens where the intervention everywhere replaces less: alike by construction, and said so."""

import numpy as np
import pytest
from helpers.made_sweep import made_sweep

from tokenshift.analysis.cross_sampling.recovery import area_of_first, recovery_summary
from tokenshift.analysis.cross_sampling.report import level_areas


def test_curves_are_level_beyond_what_the_intervention_replaces() -> None:
    """As on pocket, forward: RL's tokens everywhere replace 1.4 % of the tokens."""
    share = 0.014
    useless, perfect = (
        float(area_of_first(np.array([point]), np.array([value]), share, 1.0))
        for point, value in ((share - 1e-9, 0.0), (1e-9, 1.0))
    )
    assert useless == pytest.approx(0.86, abs=1e-6)
    assert perfect == pytest.approx(1.0, abs=1e-6)
    cell = {
        "direction": "forward",
        "criterion": "all",
        "gamma": 0.0,
        "sharpening": None,
        "effective": {"value": share},
    }
    others = [
        {**cell, "criterion": "js_top_p"},
        {**cell, "gamma": 0.05},
        {**cell, "direction": "backward", "effective": {"value": 0.12}},
    ]
    (text,) = level_areas({"cells": [cell, *others]})
    assert "86 of 100 points are the same for every criterion, forward: " in text
    assert "replace only 1.4 % of the tokens" in text


def test_nothing_is_said_where_the_intervention_replaces_more() -> None:
    """A fifth of the tokens."""
    assert level_areas(recovery_summary(made_sweep(20, 8), resamples=5)) == []
