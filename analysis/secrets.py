"""Removes secrets (access tokens, API keys, passwords) from whatever is written: settings, summaries, cards, messages.

A text is a secret if it looks like a token of a known kind, stands in a URL before the host, is the value of an
environment variable or of a setting that is named as one, or was remembered.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

HIDDEN = "<SECRET>"
"""Text written in place of a secret."""

SHORTEST = 8
"""Characters of the shortest secret that is looked for in texts: shorter ones would hide words."""

TOKENS = re.compile(
    r"(?:(?<![A-Za-z0-9])|(?<=\\[nrt]))(?:"  # behind the escaped line ends and tabs of JSON too
    r"hf_[A-Za-z0-9]{16,}|api_org_[A-Za-z0-9]{16,}"  # Hugging Face
    r"|wandb_v\d_[A-Za-z0-9_]{16,}|local-[0-9a-f]{40}"  # W&B
    r"|sk-[A-Za-z0-9_-]{20,}|AIza[A-Za-z0-9_-]{30,}|A[KS]IA[A-Z0-9]{16}"  # OpenAI and the like, Google, Amazon
    r"|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}|glpat-[A-Za-z0-9_-]{16,}"  # GitHub, GitLab
    r"|xox[abprs]-[A-Za-z0-9-]{10,}"  # Slack
    r"|npm_[A-Za-z0-9]{30,}|pypi-[A-Za-z0-9_-]{30,}|[sr]k_live_[A-Za-z0-9]{16,}"  # npm, PyPI, Stripe
    r"|nvapi-[A-Za-z0-9_-]{30,}|gsk_[A-Za-z0-9]{30,}|r8_[A-Za-z0-9]{30,}"  # NVIDIA, Groq, Replicate
    r")"
)
WEB_TOKEN = re.compile(  # JSON web tokens; what is looked ahead for keeps the time linear in the text's length
    r"(?<![A-Za-z0-9_-])(?=[A-Za-z0-9_-]+\.[A-Za-z0-9_-]{10,}\.)"
    r"((?:(?<=\\)[nrt]|[A-Za-z0-9_-]*?[_-])??)eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]*"
)
BEARER = re.compile(r"(?i)(\b(?:Bearer|Authorization:\s*Basic)\s+)[A-Za-z0-9._~+/=-]{16,}")
URL_USER = re.compile(r"((?<=[A-Za-z0-9+.-])://)[^\s/\"'<>]+@")
URL_PARAMETER = re.compile(
    r"(?i)([?&#;](?:[\w-]*(?:token|key|password|passwd|secret|signature|credential)|sig)=)[^&#;\s\"'<>]+"
)
NAME = re.compile(
    r"(?i)(?:^|_)(?:(?:hub|hf|auth|access|api|bearer|secret|private)_?(?:token|key)|password|passwd|secret)$|^token$"
)
"""Names of settings that hold secrets; those of special tokens, such as `eos_token`, are none."""
VARIABLE = re.compile(r"(?:^|_)(?:TOKEN|KEY|PAT|SECRET|PASSWORD|PASSWD|CREDENTIALS?)$|APIKEY$")
"""Names of environment variables that hold secrets."""

_remembered: set[str] = set()


def is_secret_name(name: Any) -> bool:
    """Whether a setting of this name holds a secret: `hub_token`, `token`, `api_key`, `password`, ..."""
    return isinstance(name, str) and NAME.search(name.lstrip("-").replace("-", "_")) is not None


def remember_secrets(settings: Any) -> None:
    """Remember the values of settings that are named as secrets, so that they are hidden in every text.

    Args:
        settings: a mapping, or a list of them, nested.
    """
    _remembered.update(value for value in _named(settings) if len(value) >= SHORTEST)


def hide_in_text(text: str) -> str:
    """The text with `<SECRET>` in place of every secret."""
    for secret in sorted(_remembered | set(_of_environment()), key=len, reverse=True):
        text = text.replace(secret, HIDDEN).replace(json.dumps(secret)[1:-1], HIDDEN)
    text = URL_USER.sub(rf"\1{HIDDEN}@", text)
    text = URL_PARAMETER.sub(rf"\1{HIDDEN}", text)
    text = WEB_TOKEN.sub(rf"\1{HIDDEN}", TOKENS.sub(HIDDEN, text))
    return BEARER.sub(rf"\1{HIDDEN}", text)


def hide_secrets(value: Any, name: Any = None) -> Any:
    """A copy of a value with every secret in it hidden, in the keys and values of mappings, in lists and tuples; the
    value itself where it has none.

    Args:
        value: anything; what is no text, mapping, list or tuple stays as it is.
        name: the setting that has the value.
    """
    hidden: Any
    if is_secret_name(name) and value and not isinstance(value, bool | Mapping):
        hidden = HIDDEN  # also a number, or a list
    elif isinstance(value, str):
        hidden = hide_in_text(value)
    elif isinstance(value, Mapping):
        hidden = {hide_secrets(key): hide_secrets(part, key) for key, part in value.items()}
    elif type(value) in (list, tuple):
        hidden = type(value)(hide_secrets(part) for part in value)
    else:
        return value
    return value if hidden == value else hidden  # an enumeration of texts keeps its type


def hide_in_words(words: list[str]) -> list[str]:
    """Words of a command line with the secrets hidden; the values of options named as secrets are remembered."""
    hidden, hides_next = [], False
    for word in words:
        name, equals, value = word.partition("=")
        if hides_next and not word.startswith("--"):
            remember_secrets({"token": word})
            word = HIDDEN
        elif word.startswith("--") and equals and is_secret_name(name):
            remember_secrets({"token": value})
            word = f"{name}={HIDDEN}"
        hides_next = word.startswith("--") and not equals and is_secret_name(word)
        hidden.append(hide_in_text(word))
    return hidden


def _named(value: Any, name: Any = None) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _named(part, key)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _named(part)
    elif isinstance(value, str) and is_secret_name(name):
        yield value


def _of_environment() -> Iterator[str]:
    for name, value in os.environ.items():
        # a word without digits may be no secret, and stand in texts
        telling = len(value) >= 2 * SHORTEST or (len(value) >= SHORTEST and any(map(str.isdigit, value)))
        if telling and VARIABLE.search(name.upper()):
            yield value
