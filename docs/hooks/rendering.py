"""Hooks of the docs site: formulas become MathML, which browsers draw by themselves, so that pages load no script.

In the Markdown a formula is `$...$` or a block of the language `math`, which GitHub draws too. mkdocs calls
`on_page_content` with each page's HTML, in which `pymdownx.arithmatex` has marked them.
"""

import html
import re
from typing import Any

from latex2mathml.converter import convert

FORMULA = re.compile(
    r'<(?P<tag>span|div) class="arithmatex">\\(?P<open>[(\[])(?P<tex>.*?)\\[)\]]</(?P=tag)>', re.DOTALL
)
"""A formula: in brackets within a line, in square ones on a line of its own."""

FUNCTION = re.compile(r"<mi>(?:log|ln|exp)</mi>")
SPACE = '<mspace width="0.17em"/>'
"""The thin space that TeX puts around the name of a function."""

REFERENCE = re.compile(r"\[(<code>~?[\w.]+</code>)\](?!\()")
"""A name as transformers' and TRL's docstrings mark it: [`~trl.GRPOConfig`]."""

PARAMETER = re.compile(r"\(<code>`([^`<]+)`[^<]*</code>")
"""A parameter's type as these docstrings have it: (`str`, *optional*, defaults to `"sigmoid"`)."""


def on_page_content(page_html: str, **context: Any) -> str:
    """The HTML of a page with its formulas as MathML, and the marks of transformers' docstrings as plain code."""
    page_html = FORMULA.sub(_math, page_html)
    page_html = REFERENCE.sub(lambda match: match[1].replace("~", ""), page_html)
    return PARAMETER.sub(r"(<code>\1</code>", page_html)


def _math(match: re.Match[str]) -> str:
    on_own_line = match["open"] == "["
    formula: str = convert(html.unescape(match["tex"]).strip(), display="block" if on_own_line else "inline")
    formula = FUNCTION.sub(lambda name: SPACE + name[0] + SPACE, formula)
    return f'<div class="formula">{formula}</div>' if on_own_line else formula
