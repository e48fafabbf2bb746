"""One HTML file for numbers, figures and an explorer of responses. It asks the network for nothing.

Whatever comes from data is escaped or set as text, figures are images that run no script, and the page's security
policy allows only its own stylesheet and script.
"""

import base64
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from tokenshift.analysis.report import explorer_data
from tokenshift.analysis.report.explorer_data import ExploredResponse, TextTable, pack_js, pack_response
from tokenshift.analysis.storage.whole_file import write_whole
from tokenshift.analysis.thresholds import HIGH, LOG_2, NEAR_ZERO

WIDE = 2.2
"""Width by height above which a figure takes the page's whole width."""


@dataclass(frozen=True)
class Piece:
    """A part of a response's text.

    Attributes:
        text: of it.
        kind: `shared` with the response beside it, from the start; `own`; or `replaced`, a token in another's place.
        instead_of: text of the token that a replaced one took the place of.
    """

    text: str
    kind: Literal["shared", "own", "replaced"] = "own"
    instead_of: str | None = None


@dataclass(frozen=True)
class SideBySide:
    """Two responses to a problem, as far as they are the same and where they part.

    Attributes:
        name: heading.
        prompt: text before either response.
        sides: two of a heading, a verdict (None where there is none), and the response's pieces in order.
    """

    name: str
    prompt: str
    sides: tuple[tuple[str, bool | None, Sequence[Piece]], tuple[str, bool | None, Sequence[Piece]]]


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        title: its heading.
        text: plain text, a paragraph a block between blank lines.
        table: header and rows, plain text.
        figures: SVG texts and their captions.
        pairs: responses side by side.
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
    high: float = HIGH,
    near_zero: float = NEAR_ZERO,
) -> None:
    """Write the report, which appears whole.

    Args:
        path: the HTML file.
        title: its heading.
        facts: what the numbers come from (models, sampling settings, ...), shown at the top.
        sections: the parts, in order.
        responses: those to explore, after the sections; with none there is no explorer.
        token_text: the text of a token id of the responses' `top_ids`.
        high: JS in nats above which the explorer marks a token at first.
        near_zero: JS in nats where its shading begins.
    """
    style, script = _part("report.css"), _part("explorer.js")
    policy = "; ".join(
        (
            "default-src 'none'",
            "img-src data:",
            f"style-src '{_hash(style)}'",
            f"script-src '{_hash(script)}'",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
    names = [section.title for section in sections] + (["Responses"] if responses else [])
    links = "\n".join(f'<a href="#part-{place}">{escape(name)}</a>' for place, name in enumerate(names))
    body = [_section(section, f"part-{place}") for place, section in enumerate(sections)]
    if responses:
        body.append(_EXPLORER.replace("PART", f"part-{len(sections)}"))
        body.extend(_data(responses, token_text, high, near_zero))
    write_whole(
        path,
        f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>{escape(title)}</title>
<style>{style}</style>
</head>
<body>
<header>
<h1>{escape(title)}</h1>
<button type="button" id="theme" hidden>Dark</button>
<dl>
{_facts(facts)}
</dl>
{f'<nav aria-label="Parts">{links}</nav>' if len(names) > 1 else ""}
</header>
<main>
{"".join(body)}
</main>
<script>{script}</script>
</body>
</html>
""",
    )


def _part(name: str) -> str:
    return files("tokenshift.analysis.report.static").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """As a content security policy names an inline style or script."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _facts(facts: Mapping[str, str]) -> str:
    return "\n".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts.items())


def _section(section: Section, name: str) -> str:
    blocks = [block.strip() for block in re.split(r"\n\s*\n", section.text) if block.strip()]
    parts = [
        f'<section id="{name}">\n<h2>{escape(section.title)}</h2>',
        *(f"<p>{escape(block)}</p>" for block in blocks),
    ]
    if section.table is not None:
        parts.append(_table(*section.table))
    if section.figures:
        parts.extend(('<div class="figures">', *(_figure(svg, caption) for svg, caption in section.figures), "</div>"))
    parts.extend(_pair(pair) for pair in section.pairs)
    return "\n".join([*parts, "</section>\n"])


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns whose cells begin as numbers do are aligned at the right."""
    numeric = [
        bool(rows)
        and all(
            re.match(r"\s*([-+−<>≤≥±\[(]*\s*[-−]?[.\d]|[-–—]?\s*$)", row[place]) for row in rows if place < len(row)
        )
        for place in range(len(header))
    ]
    right = [' class="number"' if is_number else "" for is_number in numeric]
    head = "".join(f'<th scope="col"{kind}>{escape(cell)}</th>' for cell, kind in zip(header, right, strict=True))
    lines = [
        "<tr>" + "".join(f"<td{kind}>{escape(cell)}</td>" for cell, kind in zip(row, right, strict=True)) + "</tr>"
        for row in rows
    ]
    # it scrolls sideways where it is too wide, by keyboard too
    return "\n".join(
        (
            '<div class="wide" tabindex="0" role="group" aria-label="Table"><table>',
            f"<thead><tr>{head}</tr></thead>",
            "<tbody>",
            *lines,
            "</tbody></table></div>",
        )
    )


def _figure(svg: str, caption: str) -> str:
    """As an image, whose scripts never run and whose styles stay its own."""
    source = base64.b64encode(svg.encode()).decode()
    box = re.search(r'viewBox\s*=\s*"[-\d.e]+[ ,]+[-\d.e]+[ ,]+([\d.e]+)[ ,]+([\d.e]+)"', svg)
    width, height = (float(box[1]), float(box[2])) if box else (0.0, 0.0)
    size = f' width="{width:.0f}" height="{height:.0f}"' if width and height else ""
    kind = ' class="whole"' if height and width / height > WIDE else ""
    return (
        f'<figure{kind}><img src="data:image/svg+xml;base64,{source}" alt="{escape(caption)}"{size}>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _pair(pair: SideBySide) -> str:
    sides = "\n".join(_side(*side) for side in pair.sides)
    return f"""<article class="pair">
<h3>{escape(pair.name)}</h3>
<details><summary>Prompt</summary><div class="pair-text" dir="auto">{escape(pair.prompt)}</div></details>
<div class="sides">
{sides}
</div>
</article>"""


def _side(name: str, correct: bool | None, pieces: Sequence[Piece]) -> str:
    verdict = {True: "correct", False: "incorrect", None: "unjudged"}[correct]
    sign = {True: "\N{CHECK MARK} ", False: "\N{BALLOT X} ", None: ""}[correct]
    parts, before = [], "shared"
    for piece in pieces:
        if before == "shared" != piece.kind:
            parts.append('<span class="parting"><span class="unseen">[here the two part]</span></span>')
        before = piece.kind
        if piece.kind == "replaced":
            note = "" if piece.instead_of is None else f' title="{escape(f"in place of {visible(piece.instead_of)}")}"'
            parts.append(f"<mark{note}>{escape(visible(piece.text))}</mark>" + "\n" * piece.text.count("\n"))
        elif piece.kind == "shared":
            parts.append(f'<span class="shared">{escape(piece.text)}</span>')
        else:
            parts.append(escape(piece.text))
    return (
        f'<div class="side" role="group" aria-label="{escape(name)}"><h4>{escape(name)} '
        f'<span class="badge {verdict}">{sign}{verdict}</span></h4>'
        f'<div class="pair-text" dir="auto">{"".join(parts)}</div></div>'
    )


def visible(text: str) -> str:
    """A token's text with signs for what cannot be seen: every line end, and blanks where there is nothing else."""
    if not text:
        return "\N{EMPTY SET}"
    text = text.replace("\n", "\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}").replace("\t", "\N{RIGHTWARDS ARROW TO BAR}")
    return text if text.strip() else text.replace(" ", "\N{OPEN BOX}")


def _data(
    responses: Sequence[ExploredResponse], token_text: Callable[[int], str], high: float, near_zero: float
) -> list[str]:
    """Script elements that hold data: a JSON, all JS, and one a response, which the page decodes when it is shown."""
    table = TextTable(token_text)
    packed = [pack_response(response, table) for response in responses]
    prompts = list(dict.fromkeys(response.prompt for response in responses))
    number = {prompt: place for place, prompt in enumerate(prompts)}
    description = {
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
                "prompt": number[response.prompt],
                "length": len(response.tokens),
                "k": response.top_ids.shape[-1],
            }
            for response in responses
        ],
    }
    blocks = [("js", pack_js(responses)), *((f"response-{place}", block) for place, block in enumerate(packed))]
    return [
        f'<script type="application/json" id="data">{_json(description)}</script>\n',
        *(
            f'<script type="text/plain" id="{name}">{base64.b64encode(block).decode()}</script>\n'
            for name, block in blocks
        ),
    ]


def _json(value: Any) -> str:
    """JSON that ends no script element: `json` escapes what is not ASCII, U+2028 and U+2029 among it."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


_EXPLORER = """<section id="PART" class="explorer-part">
<h2>Responses</h2>
<noscript><p>Exploring single responses needs JavaScript.</p></noscript>
<div id="explorer" hidden>
<p>Each token is shaded by JS(base, RL) at its position; those above the threshold are underlined.
All values are in nats.</p>
<div class="explorer">
<form class="controls" aria-label="Filters">
<label>Problem <input id="problem" type="text" size="8" placeholder="all" autocomplete="off"
  title="Numbers and ranges, such as 3, 8-12"></label>
<label>Verdict <select id="verdict">
<option value="any">any</option>
<option value="correct">correct</option>
<option value="incorrect">incorrect</option>
<option value="unjudged">unjudged</option>
</select></label>
<label id="kind-label">Trajectory <select id="kind"><option value="">all</option></select></label>
<label>Order <select id="order">
<option value="problem">problem</option>
<option value="share">share of high</option>
<option value="largest">largest JS</option>
<option value="length">length</option>
</select></label>
<label class="check"><input id="with-high" type="checkbox"> with a high token</label>
<label class="threshold">High: JS above <input id="threshold" type="number" min="0" step="any">
<input id="slider" type="range" min="0" max="1000" aria-label="Threshold, on a log scale"></label>
</form>
<div class="list-part">
<p id="count" role="status"></p>
<ol id="list" aria-label="Responses"></ol>
</div>
<div class="reading">
<div class="heading">
<h3 id="name"></h3>
<span class="jumps">
<button type="button" id="previous-high" aria-keyshortcuts="p">&larr; high</button>
<button type="button" id="next-high" aria-keyshortcuts="n">high &rarr;</button>
<output id="place"></output>
</span>
<span class="legend"><span id="legend-low"></span><span class="ramp"></span>ln 2</span>
</div>
<canvas id="map" role="img"></canvas>
<div id="pane">
<details id="prompt-part" open><summary>Prompt</summary><div id="prompt"></div></details>
<div id="text" role="listbox" aria-label="Tokens of the response" aria-orientation="horizontal"></div>
</div>
</div>
<div id="detail" role="region" aria-label="The token" aria-live="polite"></div>
<p class="keys">
<span><kbd>n</kbd> <kbd>p</kbd> next, previous high token</span>
<span><kbd>j</kbd> <kbd>k</kbd> next, previous response</span>
<span><kbd>&larr;</kbd> <kbd>&rarr;</kbd> <kbd>&uarr;</kbd> <kbd>&darr;</kbd> <kbd>Home</kbd> <kbd>End</kbd>
move in the text</span>
<span><kbd>Esc</kbd> clears</span>
</p>
</div>
</div>
</section>
"""
