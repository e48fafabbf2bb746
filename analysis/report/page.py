"""One HTML file for numbers, figures and an explorer of responses. It asks the network for nothing.

The template `static/report.html.jinja` escapes whatever comes from data, figures are images that run no script, and
the page's security policy allows only the page's own stylesheet and script.
"""

import base64
import hashlib
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from jinja2 import Environment, FunctionLoader, StrictUndefined, Template
from markupsafe import Markup
from matplotlib.figure import Figure

from tokenshift.analysis.figures.kit import save_figure
from tokenshift.analysis.report import explorer_data
from tokenshift.analysis.report.conclusions import Conclusion
from tokenshift.analysis.report.explorer_data import ExploredResponse, TextTable, pack_js, pack_response
from tokenshift.analysis.storage.whole_file import write_whole
from tokenshift.analysis.thresholds import HIGH, LOG_2, NEAR_ZERO

WIDE_RATIO = 2.2
"""Ratio of width to height above which a figure takes the page's whole width."""


@dataclass(frozen=True)
class Piece:
    """A part of a response's text.

    Attributes:
        text: The part's text.
        kind: `shared` with the response beside it, from the start; `own`, which the other lacks; or `replaced`, a
            token in another's place.
        instead_of: The text of the token that a replaced one took the place of.
    """

    text: str
    kind: Literal["shared", "own", "replaced"] = "own"
    instead_of: str | None = None


@dataclass(frozen=True)
class SideBySide:
    """Two responses to a problem, as far as they are the same and where they part.

    Attributes:
        name: The pair's heading.
        prompt: The text before either response.
        sides: Both responses, each as its heading, its verdict (None where there is none), and its pieces in order.
    """

    name: str
    prompt: str
    sides: tuple[tuple[str, bool | None, Sequence[Piece]], tuple[str, bool | None, Sequence[Piece]]]


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        title: The section's heading.
        text: Plain text; a blank line begins a new paragraph.
        table: Header and rows, plain text.
        figures: The figures' SVG texts and their captions.
        pairs: Responses side by side.
    """

    title: str
    text: str = ""
    table: tuple[Sequence[str], Sequence[Sequence[str]]] | None = None
    figures: Sequence[tuple[str, str]] = ()
    pairs: Sequence[SideBySide] = ()


def write_report(
    path: Path,
    *,
    title: str,
    facts: Mapping[str, str],
    sections: Sequence[Section],
    responses: Sequence[ExploredResponse],
    token_text: Callable[[int], str],
    conclusions: Sequence[Conclusion] = (),
    high: float = HIGH,
    near_zero: float = NEAR_ZERO,
    shaded: str = "js",
) -> None:
    """Write the report, which appears whole.

    Args:
        path: The HTML file.
        title: The page's heading.
        facts: What the numbers come from (models, sampling settings, ...).
        sections: The parts, in order.
        responses: The responses to explore, after the sections; with none there is no explorer.
        token_text: The text of a token id of the responses' `top_ids`.
        conclusions: The numbers that the page begins with.
        high: JS in nats above which the explorer marks a token at first.
        near_zero: JS in nats where the explorer's shading begins.
        shaded: The JS by which the explorer shades and marks tokens: `js`, of whole distributions, or `js_top_p`, of
            truncated ones; the other one is shown beside it.

    Raises:
        ValueError: If a row of a table has another number of cells than its header.
    """
    page = _template().render(
        style=Markup(_static("report.css")),
        script=Markup(_static("page.js") + _static("explorer.js")),
        title=title,
        facts=facts,
        conclusions=conclusions,
        sections=sections,
        explored=_explored(responses, token_text, high, near_zero, shaded) if responses else None,
    )
    write_whole(path, page)


def report_facts(metadata: Mapping[str, Any], hidden: Collection[str] = ()) -> dict[str, str]:
    """The settings and versions behind the numbers, as the head of a page shows them.

    Args:
        metadata: The settings that rows were made with, and `versions` of libraries; values of None are left out.
        hidden: Further names to leave out.
    """
    left_out = {"prompts", "versions", "near_zero", "high", *hidden}
    facts = {
        name.replace("_", " "): ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        for name, value in metadata.items()
        if name not in left_out and value is not None
    }
    if "versions" in metadata:
        facts["versions"] = ", ".join(f"{name} {version}" for name, version in metadata["versions"].items())
    return facts


def saved_figures(folder: Path, figures: Mapping[str, tuple[Figure, str]]) -> list[tuple[str, str]]:
    """Save figures as PNG and SVG, and return what a `Section` shows of them.

    Args:
        folder: Where the files go.
        figures: Each figure and its caption, by file name without a suffix.

    Returns:
        Each figure's SVG text and caption.
    """
    paths = {name: save_figure(figure, folder / name) for name, (figure, _) in figures.items()}
    return [(path.with_suffix(".svg").read_text(encoding="utf-8"), figures[name][1]) for name, path in paths.items()]


def visible(text: str) -> str:
    """A token's text with signs for what cannot be seen: every line end, and blanks where there is nothing else."""
    if not text:
        return "\N{EMPTY SET}"
    text = text.replace("\n", "\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}").replace("\t", "\N{RIGHTWARDS ARROW TO BAR}")
    return text if text.strip() else text.replace(" ", "\N{OPEN BOX}")


def _static(name: str) -> str:
    return files("tokenshift.analysis.report.static").joinpath(name).read_text(encoding="utf-8")


@cache
def _template() -> Template:
    """The page's template. It escapes whatever is not `Markup`, and a name that it is not given is an error."""
    environment = Environment(
        loader=FunctionLoader(_static), autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    environment.globals["WIDE_RATIO"] = WIDE_RATIO
    environment.filters |= {
        "base64": _base64,
        "numeric_columns": _numeric_columns,
        "paragraphs": _paragraphs,
        "source_hash": _source_hash,
        "view_box": _view_box,
        "visible": visible,
    }
    return environment.get_template("report.html.jinja")


def _base64(content: str | bytes) -> str:
    return base64.b64encode(content.encode() if isinstance(content, str) else content).decode()


def _source_hash(text: str) -> str:
    """The hash by which a content security policy names an inline style or script."""
    return f"sha256-{_base64(hashlib.sha256(text.encode()).digest())}"


def _paragraphs(text: str) -> list[str]:
    return [block.strip() for block in re.split(r"\n\s*\n", text) if block.strip()]


def _numeric_columns(table: tuple[Sequence[str], Sequence[Sequence[str]]]) -> list[bool]:
    """Whether each column is aligned at the right: its cells all begin as numbers do."""
    header, rows = table
    if wrong := [row for row in rows if len(row) != len(header)]:
        raise ValueError(f"A row has {len(wrong[0])} cells, the table's header {len(header)}: {wrong[0]!r}.")
    number = re.compile(r"\s*([-+−<>≤≥±\[(]*\s*[-−]?[.\d]|[-–—]?\s*$)")
    return [bool(rows) and all(number.match(row[index]) for row in rows) for index in range(len(header))]


def _view_box(svg: str) -> tuple[float, float]:
    """Width and height of a figure; (0, 0) if it does not say."""
    box = re.search(r'viewBox\s*=\s*"[-\d.e]+[ ,]+[-\d.e]+[ ,]+([\d.e]+)[ ,]+([\d.e]+)"', svg)
    return (float(box[1]), float(box[2])) if box else (0.0, 0.0)


@dataclass(frozen=True)
class _Explored:
    """The explorer's data, which the page decodes response by response when they are shown.

    Attributes:
        description: What lists and filters need, ready for JSON.
        blocks: Packed bytes by the name of the element that holds them: JS of all tokens, then each response.
    """

    description: dict[str, Any]
    blocks: dict[str, bytes]


def _explored(
    responses: Sequence[ExploredResponse],
    token_text: Callable[[int], str],
    high: float,
    near_zero: float,
    shaded: str,
) -> _Explored:
    table = TextTable(token_text)
    packed = {f"response-{index}": pack_response(response, table, shaded) for index, response in enumerate(responses)}
    prompts = list(dict.fromkeys(response.prompt for response in responses))
    prompt_number = {prompt: number for number, prompt in enumerate(prompts)}
    description = {
        "shaded": shaded,
        "beside": explorer_data.BESIDE[shaded],
        "high": float(high),
        "near_zero": float(near_zero),
        "largest": LOG_2,
        "value_floor": explorer_data.VALUE_FLOOR,
        "value_step": explorer_data.VALUE_STEP,
        "logp_step": explorer_data.LOGP_STEP,
        "texts": table.texts,
        "prompts": prompts,
        "responses": [
            {
                "problem": int(response.problem_id),
                "sample": int(response.sample_id),
                "trajectory": response.trajectory,
                "correct": None if response.correct is None else bool(response.correct),
                "prompt": prompt_number[response.prompt],
                "length": len(response.tokens),
                "k": response.top_ids.shape[-1],
            }
            for response in responses
        ],
    }
    return _Explored(description, {"js": pack_js(responses, shaded), **packed})
