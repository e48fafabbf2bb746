"""One response with each token shaded by a divergence, for a notebook: as the report's explorer shows it."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
from markupsafe import Markup, escape

from tokenshift.analysis.report.page import visible
from tokenshift.analysis.thresholds import HIGH, LOG_2, NEAR_ZERO

MARKS = {"\n": "↵", "\r": "␍", "\t": "⇥"}
"""Signs before blanks that have no width of their own."""

DARK_NOTEBOOKS = ('[data-jp-theme-light="false"]', ".vscode-dark", ".vscode-high-contrast", 'html[theme="dark"]')
LIGHT_NOTEBOOKS = ('[data-jp-theme-light="true"]', ".vscode-light", 'html[theme="light"]')
"""Marks of the dark and the light theme in JupyterLab, VS Code and Colab; elsewhere the system's preference holds."""

COLOURS = ("raised", "ink", "quiet", "rule", "hot")
"""The report's colours that are used here, a light and a dark one each, from its stylesheet."""


@dataclass(frozen=True)
class ShadedResponse:
    """A response of T tokens, each shaded by a value of it on a log scale; a notebook shows it.

    Its HTML needs no script, no network and no other file, brings its own paper and ink in light and dark, and escapes
    whatever comes from data.

    Attributes:
        name: The response's heading.
        prompt: The text before the response.
        tokens: T texts of the generated tokens.
        values: `(T,)` the value that shades each token, nats; NaN for none.
        label: What the value is, such as "JS(base, RL) at top-p 0.7, nats".
        largest: The value that is shaded most, nats; all above it look the same.
        near_zero: The value where shading begins, nats.
        high: Tokens above this are underlined, nats; None for none.

    Raises:
        ValueError: If there is not one value for each token, or the scale has no width.
    """

    name: str
    prompt: str
    tokens: Sequence[str]
    values: np.ndarray
    label: str
    largest: float = LOG_2
    near_zero: float = NEAR_ZERO
    high: float | None = HIGH

    def __post_init__(self) -> None:
        if np.shape(self.values) != (len(self.tokens),):
            raise ValueError(f"{self.name}: values have shape {np.shape(self.values)}, tokens are {len(self.tokens)}.")
        if not 0 < self.near_zero < self.largest < math.inf:
            raise ValueError(f"{self.name}: near_zero={self.near_zero} must lie above 0 and below {self.largest}.")

    @property
    def heat(self) -> np.ndarray:
        """The strength of each token's shading, `(T,)`: 0 up to `near_zero`, 1 from `largest` on, by the logarithm."""
        scaled = np.nan_to_num(np.asarray(self.values, dtype=np.float64), nan=0.0, posinf=self.largest)
        clipped = np.clip(scaled, self.near_zero, self.largest)
        heat: np.ndarray = np.log(clipped / self.near_zero) / math.log(self.largest / self.near_zero)
        return heat

    @property
    def is_high(self) -> np.ndarray:
        """Whether each token lies above `high`, `(T,)` bool."""
        high = math.inf if self.high is None else self.high
        return np.asarray(np.asarray(self.values, dtype=np.float32) > np.float32(high))

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self._heading()}>"

    def _heading(self) -> str:
        high = "" if self.high is None else f", {int(self.is_high.sum()):,} above {self.high:g} nats"
        return f"{self.name}: {len(self.tokens):,} tokens{high}"

    def _repr_html_(self) -> str:
        rows = zip(self.tokens, self.values, self.heat, self.is_high, strict=True)
        tokens = Markup("").join(
            _token(index, text, float(value), float(heat), bool(high))
            for index, (text, value, heat, high) in enumerate(rows)
        )
        return str(
            Markup(
                '<div class="tokenshift-shaded"><style>{style}</style><p class="ts-name"><b>{name}</b></p>'
                '<p class="ts-legend">{low} <span class="ts-ramp"></span> {top} · {label}{underlined}</p>'
                '<details><summary>Prompt</summary><div class="ts-text" dir="auto">{prompt}</div></details>'
                '<div class="ts-text" dir="auto">{tokens}</div></div>'
            ).format(
                style=Markup(_style()),
                name=self._heading(),
                low=f"{self.near_zero:g}",
                top="ln 2" if self.largest == LOG_2 else f"{self.largest:.3g}",
                label=self.label,
                underlined="" if self.high is None else f"; underlined above {self.high:g}",
                prompt=self.prompt,
                tokens=tokens or Markup("<em>This response has no tokens.</em>"),
            )
        )


def _token(index: int, text: str, value: float, heat: float, high: bool) -> Markup:
    """One token; blanks without a width of their own get a sign before them."""
    blank = not text.strip()
    mark = "".join(MARKS.get(character, "") for character in text) if blank and text else visible(text)
    sign = Markup("<i>{}</i>").format(mark) if blank and mark else ""
    names = " ".join(name for name, holds in (("ts-high", high), ("ts-blank", blank)) if holds)
    return Markup('<span{}{} title="{}">{}{}</span>').format(
        Markup(' class="{}"').format(names) if names else "",
        Markup(' style="--heat:{:.1f}%"').format(100 * heat) if heat > 0 else "",
        f"position {index}, {visible(text)}: {value:.3g}",
        sign,
        escape(text),
    )


@cache
def _style() -> str:
    """The styles of a shaded response, all below its own class; `light-dark` follows the nearest `color-scheme`."""
    source = files("tokenshift.analysis.report.static").joinpath("report.css").read_text(encoding="utf-8")
    colours = {name: re.findall(rf"^  --{name}: ([^;]+);", source, re.MULTILINE)[0] for name in COLOURS}
    own = ".tokenshift-shaded"
    return "".join(
        (
            f"{own}{{color-scheme:light dark;{''.join(f'--{name}:{value};' for name, value in colours.items())}"
            "background:var(--raised);color:var(--ink);border:1px solid var(--rule);border-radius:6px;"
            "padding:.6rem .9rem;max-width:60rem;font-size:14px;line-height:1.5}",
            f"{','.join(f'{notebook} {own}' for notebook in LIGHT_NOTEBOOKS)}{{color-scheme:light}}",
            f"{','.join(f'{notebook} {own}' for notebook in DARK_NOTEBOOKS)}{{color-scheme:dark}}",
            f"{own} p{{margin:0 0 .3rem;color:inherit}}",
            f"{own} .ts-legend,{own} summary{{color:var(--quiet);font-size:12px}}",
            f"{own} summary{{cursor:pointer}}",
            f"{own} .ts-ramp{{display:inline-block;width:7rem;height:.7rem;vertical-align:middle;"
            "border:1px solid var(--rule);background:linear-gradient(in oklab to right,transparent,var(--hot))}",
            f"{own} .ts-text{{font-family:ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace;line-height:1.75;"
            "white-space:break-spaces;overflow-wrap:anywhere;unicode-bidi:plaintext;max-height:30rem;overflow-y:auto}",
            f"{own} details .ts-text{{color:var(--quiet)}}",
            f"{own} .ts-text>span{{padding:.1em 0;border-radius:2px;"
            "background:color-mix(in oklab,var(--hot) var(--heat,0%),transparent)}",
            f"{own} .ts-high{{text-decoration:underline 2px;text-underline-offset:.25em;"
            "text-decoration-skip-ink:none}",
            f"{own} .ts-blank{{box-shadow:inset 0 -1px var(--rule)}}",
            f"{own} i{{font-style:normal;color:var(--quiet);user-select:none}}",
            f"{own} .ts-high i{{color:inherit}}",
        )
    )
