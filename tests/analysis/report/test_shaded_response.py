"""A response with shaded tokens, as HTML for notebooks."""

import html
import math
import re
from typing import Any

import numpy as np
import pytest

from tokenshift.analysis.report.shaded_response import ShadedResponse


def shaded(tokens: list[str], values: list[float], **changes: Any) -> ShadedResponse:
    return ShadedResponse("<Problem> 1", "<b>&</b> ?", tokens, np.array(values, np.float32), "JS < x", **changes)


def test_heat_is_that_of_the_explorer() -> None:
    # explorer.js: clamp((log(js) - log(near_zero)) / (log(ln 2) - log(near_zero)), 0, 1), 0 for js = 0
    values = [0.0, 1e-4, 1e-3, 0.01, 0.1, math.log(2), math.nan, math.inf]
    expected = [0, 0, 0, math.log(10) / math.log(math.log(2) / 1e-3), math.log(100) / math.log(math.log(2) / 1e-3), 1]
    response = shaded(list("abcdefgh"), values)
    assert response.heat == pytest.approx([*expected, 0, 1], abs=1e-6)
    assert response.is_high.tolist() == [False] * 5 + [True, False, True]  # 0.1 itself is not above 0.1


def test_everything_is_escaped_and_nothing_is_asked_for() -> None:
    token = '</span><script>alert("x")</script>'
    page = shaded([token, "&amp;", "\n", "", " "], [0.5, 0, 0, 0, 0])._repr_html_()
    assert "<script" not in page
    assert "<b>&amp;" not in page
    assert "&lt;Problem&gt; 1" in page
    assert "&lt;b&gt;&amp;&lt;/b&gt; ?" in page
    assert "JS &lt; x" in page
    assert not re.search(r"(?:src|href|url|@import|http)", page)
    body = page.rpartition('dir="auto">')[2]
    spans = re.findall(r"<span([^>]*)>(.*?)</span>", body, re.DOTALL)
    assert [html.unescape(re.sub(r"<i>.*?</i>", "", text)) for _, text in spans] == [token, "&amp;", "\n", "", " "]
    assert "↵" in spans[2][1]
    assert "∅" in spans[3][1]
    assert 'class="ts-high"' in spans[0][0]
    assert "ts-high" not in "".join(names for names, _ in spans[1:])
    assert re.search(r"position 0, .*: 0\.5", html.unescape(spans[0][0]))


def test_other_scales_and_no_tokens() -> None:
    response = shaded(["a", "b"], [1.0, 4.0], largest=4.0, high=None)
    assert response.heat[1] == 1
    assert not response.is_high.any()
    assert "underlined" not in response._repr_html_()
    assert "no tokens" in shaded([], [])._repr_html_()
    assert repr(shaded(["a"], [0.5])) == "<ShadedResponse: <Problem> 1: 1 tokens, 1 above 0.1 nats>"


def test_values_must_fit() -> None:
    with pytest.raises(ValueError, match=r"values have shape \(1,\), tokens are 2"):
        shaded(["a", "b"], [0.1])
    with pytest.raises(ValueError, match=r"below 0\.0001"):
        shaded(["a"], [0.1], largest=1e-4)
