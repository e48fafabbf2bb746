"""A weighting or divergence of one's own: how it is registered, and what is refused before a model is loaded."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tokenshift.trainer import DivergenceGRPOConfig, register_divergence, register_weighting
from tokenshift.trainer.weighting.registry import DIVERGENCES, WEIGHTINGS

HEAD = "import torch\nfrom tokenshift.trainer import register_divergence, register_weighting\n"
GOOD = """
@register_weighting(formula="w = 1 + c * tanh(JS / t)", needs=("js",))
def {name}(tokens, *, c: float = 0.5, t: float = 0.05, sharp: bool = False, power: int = 1, note: str = ""):
    return 1 + c * torch.tanh(tokens.js / t)
"""


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., DivergenceGRPOConfig]:
    """`make(**settings)`: a config, made in an empty folder."""
    monkeypatch.chdir(tmp_path)
    defaults = {"num_iterations": 2, "use_cpu": True, "bf16": False, "report_to": []}
    return lambda **settings: DivergenceGRPOConfig(output_dir="out", **{**defaults, **settings})


def write(name: str, text: str) -> None:
    """A user's module in the current folder, not imported yet."""
    sys.modules.pop(name, None)
    Path(f"{name}.py").write_text(HEAD + text)


def message_of(make: Callable[..., Any], **settings: Any) -> str:
    with pytest.raises(ValueError, match=r".") as error:
        make(**settings)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_shipped_entries_and_the_help_text_that_lists_them() -> None:
    assert set(WEIGHTINGS) >= {"sigmoid", "low_prob", "none"}
    fields = DivergenceGRPOConfig.__dataclass_fields__
    for setting, names in (
        ("advantage_weighting", ("sigmoid", "low_prob", "none")),
        ("divergence", ("k1", "k2", "k3", "js", "forward_kl", "reverse_kl")),
    ):
        assert all(name in fields[setting].metadata["help"] for name in names)
    for name, signed in (("k1", True), ("k2", False), ("k3", False)):
        assert DIVERGENCES.get(name).signed == signed
    assert DIVERGENCES.get("js").function is None


@pytest.mark.parametrize("as_json", [False, True])
def test_an_entry_by_dotted_path_with_its_options(make: Callable[..., Any], as_json: bool) -> None:
    write("first_weights", GOOD.format(name="saturating"))
    options = {"c": 1, "power": 3}
    config = make(
        advantage_weighting="first_weights.saturating", weighting_options=json.dumps(options) if as_json else options
    )
    assert config.weighting_options == options
    assert config.weighting_values == {"c": 1.0, "t": 0.05, "sharp": False, "power": 3, "note": ""}
    assert config.weighting.name == "saturating"
    assert config.weighting.reference_statistics == {"js": "js"}
    assert config.compares_distributions
    assert not make().compares_distributions
    assert make(advantage_weighting="saturating").weighting is config.weighting, "imported, it has its own name too"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"d": 1.0}, "weighting_options has 'd'; refusing takes c, t, sharp, power, note."),
        (
            {"shrap": True},
            "'shrap'; refusing takes c, t, sharp, power, note; did you mean sharp?",
        ),
        ({"c": "big"}, "weighting_options: c='big' must be a finite number."),
        ({"c": True}, "weighting_options: c=True must be a finite number."),
        ({"c": float("nan")}, "weighting_options['c']=nan must be a finite number."),
        ('{"c": Infinity}', "weighting_options: c=inf must be a finite number."),
        ({"c": 1e31}, "weighting_options['c']=1e+31 is beyond 1e+30, where float32 overflows."),
        ({"sharp": 1}, "weighting_options: sharp=1 must be true or false."),
        ({"power": 1.5}, "weighting_options: power=1.5 must be a whole number."),
        ({"note": 3}, "weighting_options: note=3 must be a text."),
        ('{"c"', "weighting_options='{\"c\"' is not JSON"),
        ("[1]", "weighting_options=[1] must map names of options to values"),
    ],
)
def test_options_are_checked(make: Callable[..., Any], options: Any, words: str) -> None:
    @register_weighting(formula="w = 1 + c * tanh(JS / t)", needs=("js",))
    def refusing(
        tokens: Any, *, c: float = 0.5, t: float = 0.05, sharp: bool = False, power: int = 1, note: str = ""
    ) -> torch.Tensor:
        return 1 + c * torch.tanh(tokens.js / t)

    assert words in message_of(make, advantage_weighting="refusing", weighting_options=options)


def test_options_of_shipped_weightings_are_fields(make: Callable[..., Any]) -> None:
    assert make(divergence_alpha=-7, divergence_scale=2).weighting_values == {"alpha": -7.0, "s": 2.0}
    assert make(advantage_weighting="low_prob", low_prob_coef=0.3).weighting_values == {"c": 0.3}
    words = message_of(make, weighting_options={"alpha": 3.0})
    assert words == "weighting_options has 'alpha', which divergence_alpha sets; give divergence_alpha instead."
    words = message_of(make, advantage_weighting="none", weighting_options={"c": 3.0})
    assert words == "weighting_options has 'c'; none takes none."


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("second_weights.saturatign", "has no saturatign; did you mean saturating_too?"),
        ("no_such_weights.f", "cannot be imported: ModuleNotFoundError: No module named 'no_such_weights'"),
        ("second_weights.undecorated", "is a function that is not registered; decorate it by @register_weighting."),
        ("second_weights.HALF", "is a float, not a function."),
        (3, "advantage_weighting=3 is a int; it must be the name of a weighting."),
    ],
)
def test_paths_that_lead_nowhere(make: Callable[..., Any], path: Any, words: str) -> None:
    write("second_weights", GOOD.format(name="saturating_too") + "HALF = 0.5\ndef undecorated(tokens): ...\n")
    assert words in message_of(make, advantage_weighting=path)


@pytest.mark.parametrize(
    ("arguments", "keywords", "words"),
    [
        ("", "", "a weighting takes one argument by position, and its options after a *, each with a default, as in"),
        ("tokens, c", "", "takes (tokens, c): a weighting takes one argument by position"),
        ("tokens, c=1.0", "", "a weighting takes one argument by position"),
        ("tokens, *, c", "", "a weighting takes one argument by position, and its options after a *, each with a"),
        ("tokens, **options", "", "a weighting takes one argument by position"),
        ("tokens, *more", "", "a weighting takes one argument by position"),
        ("tokens", ", needs=('jss',)", "needs has 'jss'; did you mean js? Known are"),
        ("tokens", ", needs='js'", "needs='js' must be a tuple of names, as in needs=('js',)."),
        ("tokens", ", kind='sum'", "kind='sum' is not known; choose one of multiplier, mask, additive."),
        ("tokens", ", name='low_prob'", "The weighting 'low_prob' is registered already, by"),
    ],
)
def test_wrong_registrations_name_function_file_and_line(
    make: Callable[..., Any], tmp_path: Path, arguments: str, keywords: str, words: str
) -> None:
    write("wrong", f"@register_weighting(formula='w'{keywords})\ndef f({arguments}): ...\n")
    said = message_of(make, advantage_weighting="wrong.f")
    assert words in said
    assert "wrong.py, line 3)" in said


@pytest.mark.parametrize("formula", ["", "two\nlines", None])
def test_formula_is_one_line(formula: Any) -> None:
    with pytest.raises(ValueError, match="must be one line of text"):
        register_weighting(formula=formula)(lambda tokens: tokens.logps)


def test_names_are_taken_once() -> None:
    def first(logps: torch.Tensor, old_logps: torch.Tensor) -> torch.Tensor:
        return (logps - old_logps).abs()

    def second(logps: torch.Tensor, old_logps: torch.Tensor) -> torch.Tensor:
        return (logps - old_logps) ** 2

    register_divergence("taken", formula="D = |d|")(first)
    register_divergence("taken", formula="D = |d|")(first)  # as when a module is imported again
    with pytest.raises(ValueError, match=r"'taken' is registered already, by .*first; choose another name\."):
        register_divergence("taken", formula="D = d^2")(second)


TRIALS = [
    (
        "torch.ones(3)",
        "multiplier",
        (),
        "the shape (3,) on a trial batch; it must be that of the tokens, (4, 6)",
    ),
    ("1.0", "multiplier", (), "returned a float on a trial batch; it must return a tensor."),
    ("tokens.logps", "multiplier", (), "each value must be finite and at least 0."),
    ("tokens.logps * torch.nan", "multiplier", (), "gave nan to 10 of 10 tokens on a trial batch"),
    ("1 / (1 - tokens.position.float())", "additive", (), "gave inf to 2 of 10 tokens"),
    ("tokens.logps * torch.nan", "additive", (), "each value must be finite."),
    (
        "0.5 * torch.ones_like(tokens.logps)",
        "mask",
        (),
        "gave 0.5 to 10 of 10 tokens on a trial batch; each value must be 0",
    ),
    ("tokens.mask", "multiplier", (), "returned torch.bool on a trial batch; it must return floating-point numbers."),
    (
        "tokens.position",
        "additive",
        (),
        "returned torch.int64 on a trial batch; it must return floating-point numbers.",
    ),
    ("tokens.logps * 1j", "mask", (), "returned torch.complex64 on a trial batch; it must return 0 or 1, or a bool."),
    ("tokens.js", "multiplier", (), "raised AttributeError in line 5 on a trial batch: tokens.js is there only for"),
    ("tokens.js", "multiplier", (), "needs=('js',)"),
    ("tokens.lenght", "multiplier", ("js",), "tokens has no lenght; did you mean length?"),
    (
        "torch.zeros(2) + torch.zeros(3)",
        "multiplier",
        (),
        "raised RuntimeError in line 5 on a trial batch: The size of",
    ),
]


@pytest.mark.parametrize(("returned", "kind", "needs", "words"), TRIALS)
def test_a_trial_batch_finds_what_a_function_does_wrong(
    make: Callable[..., Any], returned: str, kind: str, needs: tuple[str, ...], words: str
) -> None:
    decorator = f"@register_weighting(formula='w', kind={kind!r}, needs={needs!r})"
    write("trial", f"{decorator}\ndef trial_weighting(tokens):\n    return {returned}\n")
    said = message_of(make, advantage_weighting="trial.trial_weighting")
    assert words in said
    assert "advantage_weighting='trial_weighting': the function trial_weighting (trial.py, line 3)" in said


@pytest.mark.parametrize(
    ("arguments", "returned", "words"),
    [
        (
            "logps, old_logps",
            "logps - old_logps",
            "at least 0 (else register it with signed=True).",
        ),
        ("logps, old_logps", "(logps - old_logps).abs().mean()", "returned the shape () on a trial batch; it must be"),
        ("logps, old_logps", "1 / (0 * logps)", "gave -inf to "),
        ("logps, old_logps", "logps > old_logps", "returned torch.bool"),
        ("logps", "logps", "a divergence takes two arguments by position"),
    ],
)
def test_a_trial_batch_finds_what_a_divergence_does_wrong(
    make: Callable[..., Any], arguments: str, returned: str, words: str
) -> None:
    write("trial", f"@register_divergence(formula='D')\ndef trial_divergence({arguments}):\n    return {returned}\n")
    said = message_of(make, divergence="trial.trial_divergence")
    assert words in said
    assert "(trial.py, line 3)" in said


def test_the_trial_leaves_the_random_numbers_alone(make: Callable[..., Any]) -> None:
    @register_weighting(formula="w ~ U(0, 1)", varies_at_first_update=True)
    def random_weights(tokens: Any) -> torch.Tensor:
        return torch.rand_like(tokens.logps)

    state = torch.get_rng_state()
    make(advantage_weighting="random_weights")
    assert torch.equal(torch.get_rng_state(), state)


def test_constant_weights_are_refused_unless_the_entry_says_that_they_vary(make: Callable[..., Any]) -> None:
    @register_weighting(formula="w = 1 + |d|")
    def moved(tokens: Any) -> torch.Tensor:
        return 1 + (tokens.logps - tokens.old_logps).abs()

    @register_weighting(formula="w = 1 + H", needs=("entropy",), varies_at_first_update=True)
    def uncertain(tokens: Any) -> torch.Tensor:
        return 1 + tokens.entropy

    said = message_of(make, advantage_weighting="moved", num_iterations=1)
    assert "Set num_iterations or steps_per_generation higher" in said
    assert said.endswith("Or register the weighting with varies_at_first_update=True, if it does.")
    assert make(advantage_weighting="uncertain", num_iterations=1).weighting.kind == "multiplier"
    assert not make(advantage_weighting="uncertain").compares_distributions, "the policy's entropy costs nothing"


def test_an_additive_term_has_no_mean_to_divide_by(make: Callable[..., Any]) -> None:
    @register_weighting(formula="b = |d|", kind="additive")
    def added(tokens: Any) -> torch.Tensor:
        return (tokens.logps - tokens.old_logps).abs()

    said = message_of(make, advantage_weighting="added", normalize_weights=True)
    assert re.search("added is additive: set normalize_weights=False", said)
    make(advantage_weighting="added", weight_control="shuffle")


def test_a_check_of_ones_own(make: Callable[..., Any]) -> None:
    @register_weighting(
        formula="w = 1 + |d| / t",
        check=lambda options, divergence: None if options["t"] > 0 else f"t={options['t']:g} must be positive.",
    )
    def scaled(tokens: Any, *, t: float = 1.0) -> torch.Tensor:
        return 1 + (tokens.logps - tokens.old_logps).abs() / t

    assert message_of(make, advantage_weighting="scaled", weighting_options={"t": -2}) == "t=-2 must be positive."
