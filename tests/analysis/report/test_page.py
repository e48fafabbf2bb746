"""The HTML report in a real browser: what it shows is what was put in, and nothing that was put in runs."""

import csv
import io
import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.hostile_answers import HOSTILE as HOSTILE_ANSWERS
from matplotlib import image

from tokenshift.analysis.report.conclusions import Conclusion
from tokenshift.analysis.report.embedded_page import EmbeddedPage
from tokenshift.analysis.report.explorer_data import (
    INFINITY,
    LOGP_STEP,
    MISSING,
    NEGATIVE_INFINITY,
    VALUE_FLOOR,
    VALUE_STEP,
    ExploredResponse,
    TextTable,
    code_logps,
    code_values,
)
from tokenshift.analysis.report.page import Piece, Section, SideBySide, write_report
from tokenshift.analysis.thresholds import HIGH, LOG_2

playwright = pytest.importorskip("playwright.sync_api", reason="the report is tested in a browser: install playwright")
CHROMIUM = shutil.which("chromium")
if CHROMIUM is None:
    pytest.skip("the report is tested in a browser: install chromium", allow_module_level=True)

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
HOSTILE = "</script></title></style><img src=x onerror=window.hit=1>&amp;\u2028\"'<script>window.hit=1</script>"
SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 300 200"><style>rect{fill:#00f}</style>'
    '<rect width="300" height="200"/><script>parent.hit=1</script></svg>'
)
CLICK_EACH = """async (count) => {
  const shown = [];
  for (let number = 0; number < count; number++) {
    document.querySelector(`#list .row[data-index='${number}']`).click();
    while (!document.querySelector(`#text[data-response='${number}']:not([aria-busy])`))
      await new Promise((done) => setTimeout(done));
    shown.push(["#prompt", ".token"].map((part) => document.querySelector(part).textContent));
  }
  return shown;
}"""
K = 5


def token_text(index: int) -> str:
    return {0: HOSTILE, 1: "\n", 2: " ", 3: "", 4: "\t\n\n"}.get(index, f" w{index}")


def make_response(
    length: int, *, k: int = K, seed: int = 0, vocabulary: int = 50_000, **fields: Any
) -> ExploredResponse:
    """Two models over k + 4 tokens a position: RL's logits are the base's, little changed at most positions."""
    rng = np.random.default_rng(seed)
    some = k + 4
    # few ids are frequent; a row's are distinct, since each lies in a range of its own
    ids = (vocabulary // some * rng.random((length, some)) ** 4).astype(np.int64) + np.arange(some) * (
        vocabulary // some
    )
    sharpness = np.where(rng.random((length, 1)) < 0.7, 2.5, 0.6)
    logits = np.empty((2, length, some))
    logits[0] = -sharpness * rng.exponential(1, (length, some)).cumsum(axis=-1)
    spread = np.where(rng.random((length, 1)) < 0.05, 3, rng.lognormal(-3.5, 1, (length, 1)))
    logits[1] = logits[0] + spread * rng.normal(size=(length, some))
    logps = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    (base, rl), middle = np.exp(logps), np.log(np.exp(logps).mean(axis=0))
    sampled = (logps[1] + rng.gumbel(size=(length, some))).argmax(axis=-1)[:, None]
    order = np.argsort(-logps, axis=-1, kind="stable")
    chosen = np.take_along_axis(logps, sampled[None], axis=-1)[..., 0].astype(np.float32)
    ranks = (order == sampled).argmax(axis=-1).astype(np.int32) + 1
    js = 0.5 * (base * (logps[0] - middle)).sum(-1) + 0.5 * (rl * (logps[1] - middle)).sum(-1)
    values = {
        "js": js.clip(0).astype(np.float32),
        "js_top_p": (0.8 * js).clip(0).astype(np.float32),
        "forward_kl": (base * (logps[0] - logps[1])).sum(-1).clip(0).astype(np.float32),
        "reverse_kl": (rl * (logps[1] - logps[0])).sum(-1).clip(0).astype(np.float32),
        "entropy_base": -(base * logps[0]).sum(-1).astype(np.float32),
        "entropy_rl": -(rl * logps[1]).sum(-1).astype(np.float32),
        "logp_base": chosen[0],
        "logp_rl": chosen[1],
        "rank_base": ranks[0],
        "rank_rl": ranks[1],
    }
    top = order[..., :k]
    given: dict[str, Any] = {
        "problem_id": 0,
        "sample_id": 0,
        "trajectory": "rl",
        "correct": True,
        "prompt": "What is 2 + 3?",
        "tokens": [token_text(index) for index in np.take_along_axis(ids, sampled, axis=-1)[:, 0].tolist()],
        "values": values,
        "top_ids": np.take_along_axis(ids[None], top, axis=-1).astype(np.int32),
        "top_logps": np.stack([np.take_along_axis(logps, which[None], axis=-1) for which in top]).astype(np.float32),
    }
    return ExploredResponse(**{**given, **fields})


def with_values(response: ExploredResponse, **values: Sequence[float] | np.ndarray) -> ExploredResponse:
    arrays = {name: np.asarray(array, dtype=np.float32) for name, array in values.items()}
    return replace(response, values={**response.values, **arrays})


@dataclass
class Opened:
    """A page, and what it did beside showing itself."""

    page: Any
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def check_quiet(self) -> None:
        assert not self.complaints
        assert self.page.evaluate("window.hit") is None
        assert self.requests[0].startswith("file://")
        assert all(url.startswith("data:") for url in self.requests[1:])

    def wait_for(self, response: int) -> None:
        self.page.wait_for_selector(f"#text[data-response='{response}']:not([aria-busy])", state="attached")

    def listed(self) -> list[int]:
        """Responses in the list, in its order. A frame has passed, so a change of the threshold has come through."""
        self.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        found: list[int] = self.page.eval_on_selector_all("#list .row", "rows => rows.map(row => +row.dataset.index)")
        return found

    def focused(self) -> int:
        return int(self.page.evaluate("document.activeElement.dataset.index ?? -1"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        running = started.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield running
        running.close()


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Iterator[Callable[..., Opened]]:
    """Writes a report of responses, opens it and waits for the first."""
    contexts = []

    def write_and_open(
        responses: Sequence[ExploredResponse],
        *,
        title: str = "Report",
        facts: Mapping[str, str] | None = None,
        sections: Sequence[Section] = (),
        conclusions: Sequence[Conclusion] = (),
        first: int = 0,
        shaded: str = "js",
        **options: Any,
    ) -> Opened:
        path = tmp_path / "report.html"
        write_report(
            path,
            title=title,
            facts=facts or {},
            sections=sections,
            responses=responses,
            token_text=token_text,
            conclusions=conclusions,
            shaded=shaded,
        )
        contexts.append(browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options}))
        found = Opened(contexts[-1].new_page())
        found.page.on("request", lambda request: found.requests.append(request.url))
        found.page.on("console", lambda message: found.complaints.append(message.text))
        found.page.on("pageerror", lambda error: found.complaints.append(str(error)))
        found.page.goto(path.as_uri())
        if responses and options.get("java_script_enabled", True):
            found.wait_for(first)
        return found

    yield write_and_open
    for context in contexts:
        context.close()


def shown_number(text: str) -> float:
    return float(text.replace("−", "-").replace("∞", "inf").replace("–", "nan").replace(",", ""))


def check_digits(text: str, value: float) -> None:
    """Whether the three digits are the value's, as far as packing keeps it."""
    near = {float(f"{value * (1 + off):.3g}") for off in (-2.5e-4, 0, 2.5e-4)}
    assert shown_number(text) in near, (text, value)


def check_detail(page: Any, response: ExploredResponse, index: int) -> None:
    """The panel against the arrays that went in."""
    values = {name: float(array[index]) for name, array in response.values.items()}
    detail = page.locator("#detail")
    assert f"position {index:,} of {len(response.tokens):,}" in detail.locator(".position").inner_text()
    check_digits(detail.locator(".main dd").inner_text(), values["js"])
    for name in ("js_top_p", "forward_kl", "reverse_kl"):
        check_digits(detail.locator(f".{name} dd").inner_text(), values[name])
    both = {name: detail.locator(f".both tr[data-name='{name}'] td").all_inner_texts() for name in ("entropy", "rank")}
    for place, model in enumerate(("base", "rl")):
        check_digits(both["entropy"][place], values[f"entropy_{model}"])
        assert shown_number(both["rank"][place]) == values[f"rank_{model}"]
        logp = detail.locator(".both tr[data-name='log-prob.'] td").all_inner_texts()[place]
        assert shown_number(logp) == pytest.approx(values[f"logp_{model}"], abs=0.5e-3 + LOGP_STEP / 2)
        probability = detail.locator(".both tr[data-name='prob.'] td").all_inner_texts()[place]
        check_digits(probability, math.exp(values[f"logp_{model}"]))
    for which in range(2):
        rows = detail.locator(".top").nth(which).locator("tbody tr").all()
        assert len(rows) == response.top_ids.shape[-1]
        for rank, row in enumerate(rows):
            text = token_text(int(response.top_ids[which, index, rank]))
            assert row.locator("bdi").inner_text() == text.replace(" ", "␣")
            for under, cell in enumerate(row.locator("td").all_inner_texts()):
                check_digits(cell, math.exp(response.top_logps[which, under, index, rank]))
            is_sampled = response.values[("rank_base", "rank_rl")[which]][index] == rank + 1
            assert ("sampled" in (row.get_attribute("class") or "")) == is_sampled


def test_hostile_text_is_text(opened: Callable[..., Opened]) -> None:
    response = make_response(3, prompt=HOSTILE, trajectory=HOSTILE)
    response.top_ids[:, 0, 0] = 0
    response = replace(response, tokens=[HOSTILE, *response.tokens[1:]])
    other = make_response(1, trajectory="other", problem_id=1)
    section = Section(HOSTILE, f"{HOSTILE}\n\n{HOSTILE}", (["a", HOSTILE], [[HOSTILE, "1"]]), [(SVG, HOSTILE)])
    found = opened([response, other], title=HOSTILE, facts={HOSTILE: HOSTILE}, sections=[section])
    page = found.page
    assert page.title().startswith("</script>")
    assert page.locator("h1").text_content() == HOSTILE
    assert page.locator("header dt").text_content() == page.locator("header dd").text_content() == HOSTILE
    assert page.locator("#part-0 h2").text_content() == HOSTILE
    assert page.locator("#part-0 p").all_text_contents() == [HOSTILE, HOSTILE]
    assert (
        page.locator("#part-0 th").nth(1).text_content() == page.locator("#part-0 td").first.text_content() == HOSTILE
    )
    assert page.locator("figcaption").text_content() == page.locator("img").get_attribute("alt") == HOSTILE
    assert page.locator("#prompt").text_content() == HOSTILE
    assert page.locator("#kind option").nth(1).text_content() == HOSTILE
    page.locator(".token").first.hover()
    listed = HOSTILE.replace(" ", "␣").replace("\u2028", "‹2028›")
    assert page.locator(".token").first.text_content() == HOSTILE
    assert page.locator("#detail .token-text").text_content() == listed
    assert page.locator("#detail .top tbody bdi").first.text_content() == listed
    assert page.locator("#name").text_content().endswith(HOSTILE)
    assert page.locator("img").count() == 1
    assert page.locator("img").evaluate("image => image.complete && image.naturalWidth > 0")
    found.check_quiet()


def test_every_hostile_answer_is_text(opened: Callable[..., Opened]) -> None:
    """Each of the corpus as a name in a table, as a fact, as a prompt and as a token: every response is opened."""
    # the page's own tests are of long texts; a lone surrogate is no text that a file can hold
    texts = [answer.completion[:2_000].encode(errors="replace").decode() for answer in HOSTILE_ANSWERS]
    texts = list(
        dict.fromkeys([*texts, HOSTILE, "javascript:window.hit=1", "{{ 7 * 7 }}", "{% raw %}", "${window.hit=1}"])
    )
    assert len(texts) >= 400
    responses = [
        replace(make_response(1, problem_id=number, prompt=text), tokens=[text]) for number, text in enumerate(texts)
    ]
    section = Section("Names", table=(["model"], [[text] for text in texts]))
    found = opened(responses, facts={text: text for text in texts}, sections=[section])
    page = found.page
    parsed = [text.replace("\0", "").replace("\r\n", "\n").replace("\r", "\n") for text in texts]  # as HTML has it
    for cells in ("#part-0 td", "header dt", "header dd"):
        assert page.eval_on_selector_all(cells, "nodes => nodes.map(node => node.textContent)") == parsed
    assert page.evaluate(CLICK_EACH, len(texts)) == [[text, text] for text in texts]
    found.check_quiet()


def test_responses_side_by_side(opened: Callable[..., Opened]) -> None:
    """All text is text; a replaced token is marked by more than colour, and can be seen if it is a line's end."""
    before = [Piece(HOSTILE, "shared"), Piece(HOSTILE), Piece("\nend")]
    after = [Piece(HOSTILE, "shared"), Piece("\n", "replaced", HOSTILE), Piece("then "), Piece(" ", "replaced", "")]
    whole = [Piece("the same", "shared")]
    section = Section(
        "Pairs",
        pairs=[
            SideBySide(HOSTILE, HOSTILE, ((HOSTILE, False, before), ("mixed", True, after))),
            SideBySide("twice", "", (("one", None, whole), ("two", None, whole))),
        ],
    )
    found = opened([], sections=[section])
    page = found.page
    found.check_quiet()
    first, second = page.locator(".pair").all()
    assert first.locator("h3").text_content() == first.locator("details .pair-text").text_content() == HOSTILE
    left, right = first.locator(".side").all()
    assert left.locator("h4").text_content() == f"{HOSTILE} ✗ incorrect"
    assert right.locator("h4").text_content() == "mixed ✓ correct"
    part = "[here the two part]"
    assert left.locator(".pair-text").text_content() == f"{HOSTILE}{part}{HOSTILE}\nend"
    assert right.locator(".pair-text").text_content() == f"{HOSTILE}{part}↵\nthen ␣"
    marks = right.locator("mark").all()
    assert [mark.get_attribute("title") for mark in marks] == [f"in place of {HOSTILE}", "in place of ∅"]
    line, weight = marks[0].evaluate("m => [getComputedStyle(m).textDecorationLine, getComputedStyle(m).fontWeight]")
    assert (line, weight) == ("underline", "700")
    assert not second.locator(".parting").count()
    boxes = [side.bounding_box() for side in (left, right)]
    assert boxes[0]["y"] == boxes[1]["y"]
    page.set_viewport_size({"width": 360, "height": 700})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_links_to_parts_work_in_a_notebooks_frame(browser: Any, tmp_path: Path) -> None:
    sections = [Section("One", "a\n\n" * 60), Section("Two", "b")]
    options: dict[str, Any] = {"title": "Report", "facts": {}, "responses": [], "token_text": token_text}
    write_report(tmp_path / "report.html", sections=sections, **options)
    frame_of = EmbeddedPage((tmp_path / "report.html").read_text(encoding="utf-8"), "x")
    (tmp_path / "notebook.html").write_text(f"<!DOCTYPE html>{frame_of._repr_html_()}", encoding="utf-8")
    page = browser.new_page()
    page.goto((tmp_path / "notebook.html").as_uri())
    frame = page.frame_locator("iframe")
    frame.get_by_role("link", name="Two").click()
    assert frame.locator("h1").text_content() == "Report"
    assert frame.locator("html").evaluate("root => root.scrollTop") > 0
    page.close()


def test_conclusions_and_the_way_to_the_responses_are_seen_first(opened: Callable[..., Opened]) -> None:
    found = opened(
        [make_response(3)],
        facts={"base": "tiny"},
        sections=[Section("Numbers", "Some. " * 2_000)],
        conclusions=[Conclusion("97.0 %", "96.0 to 98.0", HOSTILE), Conclusion("1", "", "one")],
    )
    page = found.page
    assert page.locator(".conclusions strong").all_text_contents() == ["97.0 %", "1"]
    assert page.locator(".conclusions small").all_text_contents() == ["95 %: 96.0 to 98.0"]
    assert page.locator(".conclusions span").first.text_content() == HOSTILE
    assert not page.locator("header dd").is_visible()
    link = page.get_by_role("link", name="Explore the responses")
    assert link.bounding_box()["y"] < 900
    link.click()
    assert page.locator("#explorer").evaluate("part => part.getBoundingClientRect().top") < 300
    page.locator("summary", has_text="Settings").click()
    assert page.locator("header dd").is_visible()
    found.check_quiet()


@pytest.mark.parametrize("width", [390, 1280])
def test_tables_and_figures_are_files_and_figures_grow(opened: Callable[..., Opened], width: int) -> None:
    rows = [["all, of it", '0.97 "'], ["=1+1", "-0.5"]]
    section = Section("Numbers", table=(["set", "share"], rows), figures=[(SVG, "A blue figure")])
    found = opened([], sections=[section], accept_downloads=True, viewport={"width": width, "height": 800})
    page = found.page
    names = {}
    for ending in ("CSV", "SVG", "PNG"):
        with page.expect_download() as waiting:
            page.get_by_role("button").filter(has_text=ending).click()
        names[waiting.value.suggested_filename] = Path(waiting.value.path()).read_bytes()
    assert list(names) == ["numbers.csv", "a_blue_figure.svg", "a_blue_figure.png"]
    read = list(csv.reader(names["numbers.csv"].decode().splitlines()))
    assert read == [["set", "share"], ["all, of it", '0.97 "'], ["'=1+1", "-0.5"]]
    assert names["a_blue_figure.svg"].decode() == SVG
    pixels = image.imread(io.BytesIO(names["a_blue_figure.png"]))
    assert pixels.shape[:2] == (400, 600)
    assert pixels[200, 300, :3].tolist() == [0, 0, 1]
    small = page.locator("figure img").bounding_box()["width"]
    page.get_by_role("button", name="Enlarge").press("Enter")
    assert page.locator("dialog img").bounding_box()["width"] >= min(small, 0.9 * width)
    page.keyboard.press("Escape")
    assert not page.locator("dialog").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_phone_reads_a_wide_table_sideways_with_its_rows_names_in_sight(opened: Callable[..., Opened]) -> None:
    header = ["statement", *(f"column {number}" for number in range(4))]
    rows = [["mean full JS among exact zeros, nats", *["a few words of text"] * 3, "0.00115 [0.00107, 0.00124]"]]
    page = opened([], sections=[Section("S", table=(header, rows))], viewport={"width": 390, "height": 800}).page
    name = page.locator(".wide td").first
    assert name.bounding_box()["width"] >= 128  # 8 rem
    before = name.bounding_box()["x"]
    assert page.evaluate("(w => (w.scrollLeft = 200, w.scrollLeft))(document.querySelector('.wide'))") == 200
    assert name.bounding_box()["x"] == before
    assert page.locator(".wide td").nth(1).bounding_box()["x"] < before
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_figures_keep_their_own_styles(opened: Callable[..., Opened]) -> None:
    found = opened([], sections=[Section("Figures", figures=[(SVG, "blue")])])
    pixel = found.page.evaluate(
        """() => {
          const context = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
          context.drawImage(document.querySelector("img"), 0, 0);
          return [...context.getImageData(5, 5, 1, 1).data];
        }"""
    )
    assert pixel == [0, 0, 255, 255]
    found.check_quiet()


def test_without_javascript(opened: Callable[..., Opened]) -> None:
    section = Section("Numbers", "Some.", (["set", "share"], [["all", "0.97"]]), [(SVG, "A figure")])
    found = opened([make_response(3)], sections=[section], facts={"base": "tiny"}, java_script_enabled=False)
    for text in ("Numbers", "Some.", "0.97", "A figure", "tiny", "Exploring single responses needs JavaScript."):
        assert found.page.get_by_text(text, exact=True).first.is_visible()
    assert not found.page.locator("#explorer").is_visible()
    assert not found.page.locator("#theme").is_visible()


def test_without_responses(opened: Callable[..., Opened]) -> None:
    found = opened([], sections=[Section("Numbers", "Some.")])
    assert found.page.locator("#explorer, #data, nav").count() == 0
    found.page.locator("#theme").click()
    assert found.page.locator("html").get_attribute("data-theme") == "dark"
    found.check_quiet()


def test_hover_and_focus_show_the_numbers(opened: Callable[..., Opened]) -> None:
    responses = [make_response(60, seed=seed, problem_id=seed) for seed in range(2)]
    found = opened(responses)
    tokens = found.page.locator(".token")
    for index in (0, 31, 59):
        tokens.nth(index).hover()
        check_detail(found.page, responses[0], index)
    tokens.nth(20).focus()
    for index in (21, 22):
        found.page.keyboard.press("ArrowRight")
        assert found.focused() == index
        check_detail(found.page, responses[0], index)
    found.page.keyboard.press("Escape")
    assert found.focused() == -1
    assert found.page.locator("#detail .summary").count() == 0
    found.page.keyboard.press("j")
    found.wait_for(1)
    tokens.nth(7).hover()
    check_detail(found.page, responses[1], 7)
    assert tokens.all_text_contents() == list(responses[1].tokens)
    found.check_quiet()


def test_values_without_a_number(opened: Callable[..., Opened]) -> None:
    """Infinite, missing and tiny values, and log-probabilities beyond the codes."""
    response = with_values(
        make_response(4),
        js_top_p=[np.nan, 0, 1e-12, 1e-8],
        forward_kl=[np.inf, 1e-8, 20, 5000],
        logp_rl=[-np.inf, -500, 0, np.nan],
    )
    response.top_logps[0, :, 0, -1] = -np.inf
    found = opened([response])
    seen = {"js_top_p": [], "forward_kl": [], "log-prob.": [], "prob.": []}
    for index in range(4):
        found.page.locator(".token").nth(index).hover()
        for name, texts in seen.items():
            place = f".{name} dd" if "_" in name else f".both tr[data-name='{name}'] td:last-child"
            texts.append(found.page.locator(f"#detail {place}").text_content())
        if index == 0:
            last = found.page.locator("#detail .top").first.locator("tbody tr").last
            assert last.locator("td").all_text_contents() == ["0", "0"]
    assert seen == {
        "js_top_p": ["–", "0", "0", "1.00e−8"],
        "forward_kl": ["∞", "1.00e−8", "20.0", "5.00e+3"],
        "log-prob.": ["−∞", "< −31.999", "0", "–"],
        "prob.": ["0", "< 1.27e−14", "1.00", "–"],
    }
    found.check_quiet()


def test_tokens_are_shaded_by_the_chosen_js(opened: Callable[..., Opened]) -> None:
    """The panel's main number and the high tokens are of the truncated JS, and the full one stands beside it."""
    response = with_values(make_response(5), js=[0.3, 0.09, 0, 0.2, 0.01], js_top_p=[0.4, 0, 0, 0.05, 0.69])
    found = opened([response], shaded="js_top_p")
    marked = found.page.locator(".token.high")
    assert [int(mark) for mark in marked.evaluate_all("tokens => tokens.map(token => token.dataset.index)")] == [0, 4]
    assert "between distributions truncated to top-p" in found.page.locator("#explorer > p").first.inner_text()
    for index in range(5):
        found.page.locator(".token").nth(index).hover()
        detail = found.page.locator("#detail")
        assert detail.locator(".main dt").inner_text() == "JS, top-p truncated"
        assert detail.locator(".js dt").inner_text() == "JS"
        check_digits(detail.locator(".main dd").inner_text(), float(response.values["js_top_p"][index]))
        check_digits(detail.locator(".js dd").inner_text(), float(response.values["js"][index]))
    found.check_quiet()


def test_filters_and_orders(opened: Callable[..., Opened]) -> None:
    largest = (0.05, 0.2, 0.6, 0.0005, 0.3, 0.1)
    correct = (True, False, None, True, False, True)
    responses = []
    for place, (peak, verdict) in enumerate(zip(largest, correct, strict=True)):
        js = np.full(10 + place, 1e-5)
        js[place % 3] = peak
        response = make_response(
            10 + place,
            problem_id=place // 2,
            sample_id=place % 2,
            correct=verdict,
            trajectory=("base", "rl")[place % 2],
        )
        responses.append(with_values(response, js=js))
    found = opened(responses)
    page = found.page
    assert found.listed() == [0, 1, 2, 3, 4, 5]
    for typed, expected in (("1", [2, 3]), ("0, 2", [0, 1, 4, 5]), ("1-2", [2, 3, 4, 5]), ("7", []), ("", range(6))):
        page.locator("#problem").fill(typed)
        assert found.listed() == list(expected)
    for verdict in ("correct", "incorrect", "unjudged"):
        page.locator("#verdict").select_option(verdict)
        wanted = {"correct": True, "incorrect": False, "unjudged": None}[verdict]
        assert found.listed() == [place for place, one in enumerate(correct) if one is wanted]
    page.locator("#verdict").select_option("any")
    page.locator("#kind").select_option("rl")
    assert found.listed() == [1, 3, 5]
    page.locator("#kind").select_option("")
    page.locator("#with-high").check()
    assert found.listed() == [1, 2, 4]  # 0.1 is not above 0.1, in float32 either
    found.wait_for(1)  # the first of them, since the one shown before is filtered out
    page.locator("#threshold").fill("0.04")
    assert found.listed() == [0, 1, 2, 4, 5]
    page.locator("#slider").evaluate("slider => { slider.value = 1000; slider.dispatchEvent(new Event('input')); }")
    assert found.listed() == []
    assert shown_number(page.locator("#threshold").input_value()) == pytest.approx(LOG_2, rel=1e-3)
    page.wait_for_function("document.querySelectorAll('.token').length === 0")
    page.locator("#with-high").uncheck()
    page.locator("#threshold").fill(str(HIGH))
    page.locator("#order").select_option("largest")
    assert found.listed() == [2, 4, 1, 5, 0, 3]
    page.locator("#order").select_option("share")
    assert found.listed() == [1, 2, 4, 0, 3, 5]
    assert page.locator("#count").text_content() == "6 of 6 responses"
    assert "11 tokens, 1 high (9.09 %)" in page.locator("#list .row").first.text_content()
    found.check_quiet()


def test_jumps_and_keys(opened: Callable[..., Opened]) -> None:
    js = np.full(300, 1e-4)
    js[[10, 11, 250]] = (0.2, 0.5, 0.11)
    js[100] = 0.09
    responses = [with_values(make_response(300, problem_id=place), js=js * (place < 2)) for place in range(3)]
    found = opened(responses)
    page = found.page
    press = page.keyboard.press
    assert page.locator(".token.high").count() == 3
    assert page.locator(".token.high").first.evaluate("t => getComputedStyle(t).textDecorationLine") == "underline"
    for key, expected in (("n", 10), ("n", 11), ("n", 250), ("n", 10), ("p", 250), ("p", 11)):
        press(key)
        assert found.focused() == expected
    assert page.locator("#place").text_content() == "2 of 3 high"
    assert page.locator(".token[tabindex='0']").evaluate_all("all => all.map(t => +t.dataset.index)") == [11]
    for key, expected in (("ArrowLeft", 10), ("End", 299), ("ArrowRight", 299), ("Home", 0), ("ArrowLeft", 0)):
        press(key)
        assert found.focused() == expected
    press("ArrowDown")
    below = page.locator(".token").nth(found.focused()).bounding_box()
    above = page.locator(".token").first.bounding_box()
    assert below["y"] + below["height"] > above["y"] + above["height"]
    press("ArrowUp")
    assert found.focused() == 0
    page.locator("#threshold").fill("0.08")
    press("n")  # typed into the field, where it moves nothing
    assert found.focused() == -1
    page.locator("#next-high").click()
    page.locator("#next-high").click()
    page.locator("#next-high").click()
    assert found.focused() == 100
    pane, token = page.locator("#pane").bounding_box(), page.locator(".token").nth(100).bounding_box()
    assert pane["y"] <= token["y"] <= pane["y"] + pane["height"] - token["height"]
    # the old response stays whole while the next is decoded, and the last of several asked for is shown
    page.evaluate(
        """() => {
          for (const row of document.querySelectorAll(".row")) row.click();
          for (const token of document.querySelectorAll(".token")) {
            token.dispatchEvent(new PointerEvent("pointerover", { bubbles: true }));
          }
        }"""
    )
    found.wait_for(2)
    press("n")  # nothing is high there
    assert page.locator("#place").text_content() == "0 high"
    press("j")
    found.wait_for(0)
    press("k")
    found.wait_for(2)
    assert page.locator(".row[aria-current='true']").count() == 1
    page.locator(".row").nth(1).click()
    found.wait_for(1)
    press("ArrowDown")
    found.wait_for(2)
    found.check_quiet()


def test_map_moves(opened: Callable[..., Opened]) -> None:
    found = opened([make_response(5000, vocabulary=9000)])
    canvas = found.page.locator("#map")
    box = canvas.bounding_box()
    for share in (0.75, 0.25):
        canvas.click(position={"x": share * box["width"], "y": 10})
        assert found.focused() == pytest.approx(share * 5000, abs=2 * 5000 / box["width"])
        assert found.page.locator(".token").nth(found.focused()).is_visible()
    box = canvas.bounding_box()  # the page may have scrolled to show the text and the panel
    found.page.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + 10)
    found.page.mouse.down()
    found.page.mouse.move(box["x"] + box["width"] + 50, box["y"] + 10, steps=3)  # past its end
    found.page.mouse.up()
    assert found.focused() == pytest.approx(4999, abs=5000 / box["width"])
    assert "5,000 tokens" in canvas.get_attribute("aria-label")
    assert found.page.evaluate(
        "document.querySelector('#map').getContext('2d').getImageData(0, 0, 900, 44).data.some(Boolean)"
    )
    found.check_quiet()


CONTRAST = """token => {
  const context = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const chain = [];
  for (let at = token; at; at = at.parentElement) chain.unshift(getComputedStyle(at).backgroundColor);
  const paint = (colour) => { context.fillStyle = colour; context.fillRect(0, 0, 1, 1); };
  const luminance = () => {
    const linear = [...context.getImageData(0, 0, 1, 1).data].map((v) => v / 255)
      .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  };
  chain.forEach(paint);
  const behind = luminance();
  paint(getComputedStyle(token).color);
  const front = luminance();
  return [behind, (Math.max(front, behind) + 0.05) / (Math.min(front, behind) + 0.05)];
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stays_readable(opened: Callable[..., Opened], scheme: str) -> None:
    js = np.geomspace(1e-6, LOG_2, 30)
    found = opened([with_values(make_response(30), js=js)], color_scheme=scheme)
    page = found.page
    background = "getComputedStyle(document.body).backgroundColor"
    seen = []
    for _ in range(2):  # as the system prefers, then the other
        results = page.locator(".token").evaluate_all(f"tokens => tokens.map({CONTRAST})")
        assert min(contrast for _, contrast in results) >= 4.5
        behind = [luminance for luminance, _ in results]
        shaded = js > 1.2e-3
        assert len({round(luminance, 4) for luminance in behind}) > 8  # shades of one hue
        monotone = np.diff(np.array(behind)[shaded])
        assert (monotone < 0).all() or (monotone > 0).all()
        for place in (".badge.correct", ".row-numbers", ".hint", ".keys", "#place", "#count"):
            assert page.locator(place).first.evaluate(CONTRAST)[1] >= 4.5
        seen.append((page.evaluate(background), behind[0] > 0.5))
        page.locator("#theme").click()
    assert seen[0][0] != seen[1][0]
    assert [light for _, light in seen] == ([True, False] if scheme == "light" else [False, True])
    found.check_quiet()


def test_short_and_blank(opened: Callable[..., Opened]) -> None:
    blanks = ["\n", " ", "", "\t\n\n", "x", "\r", "   "]
    responses = [
        make_response(0, problem_id=0),
        make_response(1, problem_id=1, k=1),
        replace(make_response(7, problem_id=2), tokens=blanks),
    ]
    found = opened(responses)
    page = found.page
    assert "no tokens" in page.locator("#text").inner_text()
    page.keyboard.press("n")
    page.keyboard.press("j")
    found.wait_for(1)
    page.locator(".token").hover()
    check_detail(page, responses[1], 0)
    page.locator("#map").click()
    assert found.focused() == 0
    page.keyboard.press("j")
    found.wait_for(2)
    tokens = page.locator(".token")
    assert tokens.all_text_contents() == blanks
    names = ["↵", "␣", "∅", "⇥↵↵", "x", "␍", "␣␣␣"]
    for index, name in enumerate(names):
        box = tokens.nth(index).evaluate("token => token.getClientRects()[0].toJSON()")
        assert box["width"] > 2
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        assert page.locator("#detail .token-text").text_content() == name
    lines = tokens.evaluate_all("tokens => tokens.map(token => token.getBoundingClientRect().bottom)")
    assert lines[1] > lines[0] + 10  # the break is one
    found.check_quiet()


@pytest.mark.parametrize("width", [1280, 400])
def test_fits_the_width(opened: Callable[..., Opened], width: int) -> None:
    table = ([f"column {place}" for place in range(20)], [["0.123"] * 20])
    sections = [Section("Numbers", "Text", table, [(SVG, "figure")] * 3)]
    js = np.where(np.arange(400) % 50 == 49, 0.3, 1e-4)
    response = with_values(make_response(400), js=js)
    found = opened([response], sections=sections, viewport={"width": width, "height": 800})
    page = found.page
    assert page.evaluate("document.documentElement.scrollWidth") == width
    for _ in range(5):
        page.keyboard.press("n")
    token, detail = page.locator(".token.detailed").bounding_box(), page.locator("#detail").bounding_box()
    assert 0 <= token["y"] <= detail["y"] - token["height"]
    assert detail["y"] + detail["height"] <= 801
    before = page.evaluate("scrollY")
    page.locator(".token").nth(found.focused() + 1).hover()
    assert page.evaluate("scrollY") == before


@pytest.mark.slow
def test_large(opened: Callable[..., Opened], tmp_path: Path) -> None:
    responses = [
        make_response(1000, k=10, seed=seed, problem_id=seed // 2, sample_id=seed % 2, correct=seed % 3 == 0)
        for seed in range(200)
    ]
    responses.append(make_response(8000, k=10, seed=200, problem_id=100))
    start = time.perf_counter()
    found = opened(responses)
    print(f"written, opened and shown in {time.perf_counter() - start:.1f} s")
    size = (tmp_path / "report.html").stat().st_size * 200 / 208  # of 200,000 tokens
    print(f"{size / 1e6:.1f} MB")
    assert size < 30e6
    timed = """index => new Promise((done) => {
      const start = performance.now();
      const text = document.querySelector("#text");
      const look = () => {
        if (text.dataset.response === String(index) && !text.hasAttribute("aria-busy")) {
          text.getBoundingClientRect();
          done(performance.now() - start);
        } else requestAnimationFrame(look);
      };
      document.querySelector(`.row[data-index="${index}"]`).click();
      look();
    })"""
    times = {index: found.page.evaluate(timed, index) for index in (1, 50, 199, 200)}
    print({index: f"{value:.0f} ms" for index, value in times.items()})
    assert max(times[index] for index in (1, 50, 199)) < 1000
    assert times[200] < 4000
    assert found.page.locator(".token").count() == 8000
    start = time.perf_counter()
    found.page.locator("#threshold").fill("0.01")
    assert len(found.listed()) == 201
    print(f"threshold changed in {time.perf_counter() - start:.2f} s")
    found.page.keyboard.press("Escape")
    found.page.locator(".token").nth(7990).focus()
    check_detail(found.page, responses[200], 7990)
    found.check_quiet()


def test_codes_keep_three_digits() -> None:
    values = np.geomspace(1e-8, 9e3, 100_000)
    back = VALUE_FLOOR * np.exp((code_values(values).astype(np.float64) - 1) * VALUE_STEP)
    assert np.abs(back / values - 1).max() < 2.4e-4
    logps = -np.linspace(0, 31.9, 100_000)
    assert np.abs(np.exp(-code_logps(logps).astype(np.float64) * LOGP_STEP) / np.exp(logps) - 1).max() < 2.5e-4
    assert code_values(np.array([0.0, -1e-9, np.inf, np.nan])).tolist() == [0, 0, INFINITY, MISSING]
    assert code_logps(np.array([1e-7, -np.inf, np.nan])).tolist() == [0, NEGATIVE_INFINITY, MISSING]


def test_texts_are_numbered_once() -> None:
    asked = []

    def text(index: int) -> str:
        asked.append(index)
        return f"t{index % 2}"

    table = TextTable(text)
    assert table.numbers(np.array([[5, 2], [5, 7]])).tolist() == [[1, 0], [1, 1]]
    assert table.number("t1") == 1
    table.numbers(np.array([7]))
    assert sorted(asked) == [2, 5, 7]
    assert table.texts == ["t0", "t1"]


def test_wrong_shapes_are_named() -> None:
    with pytest.raises(ValueError, match="problem 4, sample 0: js has shape"):
        with_values(make_response(3, problem_id=4), js=[0.1])
    with pytest.raises(ValueError, match=r"top_logps \(2, 3, 5\) must be"):
        replace(make_response(3), top_logps=np.zeros((2, 3, K)))


def test_appears_whole(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "report.html"

    def fails(index: int) -> str:
        raise KeyError(index)

    with pytest.raises(KeyError):
        write_report(path, title="t", facts={}, sections=[], responses=[make_response(2)], token_text=fails)
    assert not path.exists()
