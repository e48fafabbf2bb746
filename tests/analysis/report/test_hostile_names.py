"""Strings that look like code, as names and texts of every report: in a browser they are text, and nothing runs."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from helpers.hostile_strings import HOSTILE
from matplotlib.figure import Figure

from tokenshift.analysis import Sampling, analyze, evaluate
from tokenshift.analysis.evaluation.responses import Grade
from tokenshift.analysis.figures.kit import heading, save_figure, short
from tokenshift.analysis.figures.training_curves import training_curves
from tokenshift.analysis.report.markdown import markdown_table
from tokenshift.analysis.report.page import Piece, Section, SideBySide, write_report
from tokenshift.analysis.storage.file_names import file_name
from tokenshift.recipes.inputs import find_model

playwright = pytest.importorskip("playwright.sync_api", reason="the report is tested in a browser: install playwright")
CHROMIUM = shutil.which("chromium")
if CHROMIUM is None:
    pytest.skip("the report is tested in a browser: install chromium", allow_module_level=True)

FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync", "--no-first-run")


@pytest.fixture(scope="module")
def page() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser.new_page()
        browser.close()


def clicked_through(page: Any, path: Path) -> list[str]:
    """Open a page and click on whatever can be clicked; all that it did beside showing itself."""
    did: list[str] = []
    page.on("request", lambda request: did.append(f"request {request.url[:80]}"))
    page.on("console", lambda message: did.append(f"console {message.text}"))
    page.on("pageerror", lambda error: did.append(f"error {error}"))
    page.on("dialog", lambda dialog: (did.append(f"dialog {dialog.message}"), dialog.dismiss()))
    page.on("popup", lambda popup: did.append("popup"))
    page.goto(path.as_uri())
    page.wait_for_load_state("load")
    # all at once in the page: pages of thousands of elements would take minutes one by one
    clicks = page.evaluate(
        """async () => {
            let clicks = 0;
            for (const choice of document.querySelectorAll("select"))
                for (const option of choice.options) {
                    choice.value = option.value;
                    choice.dispatchEvent(new Event("change", {bubbles: true}));
                    clicks++;
                }
            for (const selector of ["summary", "button", "#list .row", "input[type=checkbox]", "#text span", "a"])
                for (const element of [...document.querySelectorAll(selector)].slice(0, 200)) {
                    for (const kind of ["pointerover", "mouseover", "focus"])
                        element.dispatchEvent(new Event(kind, {bubbles: true}));
                    element.click();
                    clicks++;
                    await new Promise((done) => setTimeout(done, 0));
                }
            return clicks;
        }"""
    )
    assert clicks > 0
    assert page.evaluate("window.hit") is None
    assert page.evaluate("({}).hit") is None
    return [what for what in did if not what.startswith(("request file://", "request data:", "request blob:"))]


def shown(page: Any) -> str:
    return str(page.evaluate("document.documentElement.textContent"))


def visible_part(text: str) -> str:
    """The part of a text that a browser keeps: no control characters but blanks, and no line end as it was."""
    return "".join(letter for letter in text.replace("\r", "\n") if letter.isprintable() or letter in "\n ").strip()


def test_every_place_of_a_page(page: Any, tmp_path: Path) -> None:
    sections = []
    for index, text in enumerate(HOSTILE):
        figure = Figure(figsize=(1, 1))
        figure.subplots().set_title(short(text))
        heading(figure, text, text)
        image = save_figure(figure, tmp_path / f"figure_{index}", ("svg",)) if index % 8 == 0 else None
        figures = [] if image is None else [(image.read_text(encoding="utf-8"), text)]
        pieces = (Piece(text, "shared"), Piece(text, "replaced", text), Piece(text))
        pair = SideBySide(text, text, ((text, True, pieces), (text, None, pieces)))
        sections.append(Section(text, text, ((text, "n"), ((text, "1"),)), figures, (pair,)))
    path = tmp_path / f"{file_name(HOSTILE[0])}#a?b%20.html"
    facts = {text or "empty": text for text in HOSTILE}
    write_report(
        path, title=HOSTILE[1], facts=facts, sections=sections, responses=[], token_text=lambda index: HOSTILE[index]
    )
    assert clicked_through(page, path) == []
    text = shown(page)
    assert [one for one in HOSTILE if len(one) < 200 and visible_part(one) not in visible_part(text)] == []


def test_reports_of_models(page: Any, tmp_path: Path, tiny_model: str) -> None:
    import torch

    source = find_model("model", tiny_model)
    model = source.load("float32", torch.device("cpu"))
    prompts = [text for text in HOSTILE if source.tokenizer(text)["input_ids"] and len(text) < 100]
    name = "".join(text for text in HOSTILE if "\x00" not in text and len(text) < 200)
    sampling = Sampling(max_new_tokens=3)
    shift = analyze(
        model,
        model,
        source.tokenizer,
        Dataset.from_list([{"prompt": prompt} for prompt in prompts]),
        base_name=name,
        rl_name=f"{name} trained",
        sampling=sampling,
        resamples=10,
        output_dir=tmp_path / "shift",
        judge=lambda rows, texts: [bool(row % 2) for row in rows],
    )
    assert clicked_through(page, shift.report()) == []
    assert visible_part(HOSTILE[0]) in shown(page)
    notebook = tmp_path / "notebook.html"

    def grade(rows: list[int], texts: list[str]) -> list[Grade]:
        return [Grade(bool(row % 2), True, text, 0, 1.0) for row, text in zip(rows, texts, strict=True)]

    evaluation = evaluate(
        {name: model, "other": model},
        source.tokenizer,
        prompts[:6],
        grade,
        sampling=sampling,
        samples=2,
        resamples=10,
        set_name=name,
        output_dir=tmp_path / "evaluation",
    )
    written = evaluation.report().read_text(encoding="utf-8")
    notebook.write_text(f"<details><summary>x</summary></details>{evaluation._repr_html_()}", encoding="utf-8")
    assert clicked_through(page, notebook) == []
    assert "<script" not in written
    assert "<img" not in written


def test_tables_and_figures() -> None:
    for text in HOSTILE:
        table = markdown_table(("name", "n"), ((text, "1"),))
        assert len(table.splitlines()) == 3
        assert "<script" not in table
        figure = training_curves([{"step": 1, "reward": 0.1}, {"step": 2, "reward": 0.2}], text)
        assert figure is not None
        figure.canvas.draw()
