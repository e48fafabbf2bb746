"""The hooks of the docs site, where what `make docs` installs is there."""

import importlib.util
from types import ModuleType

import pytest
from helpers.documents import ROOT


@pytest.fixture(scope="module")
def rendering() -> ModuleType:
    pytest.importorskip("latex2mathml", reason="the extra docs is not installed")
    spec = importlib.util.spec_from_file_location("rendering", ROOT / "docs" / "hooks" / "rendering.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_formulas_become_mathml(rendering: ModuleType) -> None:
    page = r'<p>Where <span class="arithmatex">\(x_{&lt;t}\)</span></p><div class="arithmatex">\[\log p\]</div>'
    shown = rendering.on_page_content(page)
    assert "arithmatex" not in shown
    assert shown.startswith('<p>Where <math xmlns="http://www.w3.org/1998/Math/MathML" display="inline">')
    assert '<div class="formula"><math xmlns="http://www.w3.org/1998/Math/MathML" display="block">' in shown
    assert f"{rendering.SPACE}<mi>log</mi>{rendering.SPACE}" in shown


def test_docstrings_of_transformers_style_are_plain(rendering: ModuleType) -> None:
    page = "TRL's [<code>~trl.GRPOConfig</code>] (<code>`str`, *optional*, defaults to `&#34;k3&#34;`</code>)"
    assert rendering.on_page_content(page) == "TRL's <code>trl.GRPOConfig</code> (<code>str</code>)"
    link = "[<code>name</code>](page.md)"
    assert rendering.on_page_content(link) == link
