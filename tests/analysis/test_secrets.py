"""Secrets that are taken out of what is written."""

import json
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tokenshift.analysis import secrets
from tokenshift.analysis.secrets import HIDDEN, hide_in_text, hide_in_words, hide_secrets, remember_secrets
from tokenshift.analysis.storage.provenance import report_metadata, table_metadata
from tokenshift.analysis.storage.whole_file import write_whole

HF = "hf_" + "Ab1" * 11
PLANTED = (
    HF,
    "wandb_v1_" + "a1B2" * 8,
    "sk-proj-" + "x9" * 16,
    "ghp_" + "q7" * 18,
    "github_pat_" + "11AB" * 8,
    "glpat-" + "z5" * 10,
    "AKIA" + "ABCDEFGH12345678",
    "AIza" + "Sy1" * 12,
    "xoxb-" + "123456789012-abc",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abc-_1",
)
HARMLESS = (
    *("hf_home is set", "org/hf_model", "<|im_end|>", "sk-learn", "https://example.org/a?b=c&n=3", "a@b.org"),
    *("0123456789abcdef0123456789abcdef01234567", "max_tokens=3", "token 5 of 7", "git@github.com:org/repo.git"),
)


@pytest.fixture(autouse=True)
def _nothing_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "_remembered", set())


@pytest.mark.parametrize("token", PLANTED, ids=lambda token: token[:5])
def test_known_kinds_of_tokens_are_hidden_wherever_they_stand(token: str, tmp_path: Path) -> None:
    for text in (token, f"the token {token}, and", f'{{"a": "{token}"}}', f"--hub_token={token}", f"({token})"):
        assert token not in hide_in_text(text)
        assert HIDDEN in hide_in_text(text)
    write_whole(tmp_path / "settings.json", json.dumps({"name": f"of {token}"}))
    assert json.loads((tmp_path / "settings.json").read_text()) == {"name": f"of {HIDDEN}"}
    table = pa.table({"a": [1]}).replace_schema_metadata(table_metadata({"model": token}))
    pq.write_table(table, tmp_path / "table.parquet")
    assert token.encode() not in (tmp_path / "table.parquet").read_bytes()
    assert report_metadata({"model": token})["model"] == HIDDEN


JWT = PLANTED[-1]


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        (f"token_{JWT}", f"token_{HIDDEN}"),
        (f"eyJa-{JWT}", HIDDEN),
        (f"a.{JWT}", f"a.{HIDDEN}"),
        (f"\\n{JWT}", f"\\n{HIDDEN}"),
        (f"key{JWT}", f"key{JWT}"),
        (f"a1+b://me:word@host {JWT}", f"a1+b://{HIDDEN}@host {HIDDEN}"),
    ],
)
def test_where_a_web_token_begins(text: str, hidden: str) -> None:
    assert hide_in_text(text) == hidden


HOSTILE = (
    "a.",
    "eyJ-",
    "x+",
    "a://",
    "-_eyJ",
    "?token-",
    "Bearer ",
    "sk-",
    "eyJaaaaaaaaaa.aaaaaaaaaa",
    "Authorization:",
)


@pytest.mark.parametrize("repeated", HOSTILE)
@pytest.mark.parametrize("end", ["", "://", ".aaaaaaaaaaaa.", " " * 100_000])
def test_the_time_is_linear_in_the_length_of_a_text(repeated: str, end: str) -> None:
    text = repeated * (300_000 // len(repeated)) + end
    started = time.process_time()
    hide_in_text(text)
    assert time.process_time() - started < 3, "a tenth of a second, or minutes where it is quadratic"


@pytest.mark.parametrize("text", HARMLESS)
def test_other_texts_stay(text: str) -> None:
    assert hide_in_text(text) == text
    assert hide_secrets({"a": [text]}) == {"a": [text]}


@pytest.mark.parametrize(
    ("url", "hidden"),
    [
        ("https://me:pa55word@host.org/x", f"https://{HIDDEN}@host.org/x"),
        ("https://plaintoken@host.org/x", f"https://{HIDDEN}@host.org/x"),
        ("hf://datasets/x?token=abc&b=1", f"hf://datasets/x?token={HIDDEN}&b=1"),
        ("Authorization: Bearer abcdefghijklmnop1234", f"Authorization: Bearer {HIDDEN}"),
    ],
)
def test_urls_lose_user_and_password(url: str, hidden: str) -> None:
    assert hide_in_text(url) == hidden


def test_values_of_the_environment_are_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "plain-looking-42")
    monkeypatch.setenv("DB_PASSWORD", 'quoted"pass\\word1')
    monkeypatch.setenv("HF_TOKEN_PATH", "/a/folder/that/stays1")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "falsefalse1")
    text = json.dumps(["plain-looking-42", 'quoted"pass\\word1', "/a/folder/that/stays1", "falsefalse1"])
    assert json.loads(hide_in_text(text)) == [HIDDEN, HIDDEN, "/a/folder/that/stays1", "falsefalse1"]


def test_settings_named_as_secrets_are_hidden_and_remembered() -> None:
    settings: dict[str, Any] = {
        "hub_token": "abc",
        "model_init_kwargs": {"token": "private-thing-1", "dtype": "float32"},
        "eos_token": "<|end|>",
        "push_to_hub": True,
        "list": [{"api_key": "another-thing"}],
    }
    assert hide_secrets(settings) == {
        **settings,
        "hub_token": HIDDEN,
        "model_init_kwargs": {"token": HIDDEN, "dtype": "float32"},
        "list": [{"api_key": HIDDEN}],
    }
    remember_secrets(settings)
    assert hide_in_text("private-thing-1 and another-thing, abc") == f"{HIDDEN} and {HIDDEN}, abc"


def test_words_of_a_command_line() -> None:
    words = [
        "train.py",
        "--hub_token",
        "my-own-token",
        "--seed",
        "1",
        "--hub-token=my-other-token",
        "--eos_token",
        "a",
    ]
    hidden = ["train.py", "--hub_token", HIDDEN, "--seed", "1", f"--hub-token={HIDDEN}", "--eos_token", "a"]
    assert hide_in_words(words) == hidden
    assert hide_in_text("my-own-token my-other-token") == f"{HIDDEN} {HIDDEN}"


TOKEN = "hf_" + "AbCdEfGh" * 4


@pytest.mark.parametrize(
    "text",
    [
        f"my_{TOKEN}",
        f"out/run_{TOKEN}/x",
        json.dumps(f"a\n{TOKEN}"),
        "https://h/x?hf_token=abc12345&y=1",
        "https://h/x?X-Amz-Signature=abc12345",
        "https://h/x#access_token=abc12345",
        "https://user:p@ss-abc12345@host/x",
    ],
)
def test_secrets_inside_names_json_and_urls(text: str) -> None:
    hidden = hide_in_text(text)
    assert "abc12345" not in hidden
    assert TOKEN not in hidden
    assert HIDDEN in hidden


def test_a_secret_of_any_type_is_hidden_under_its_name() -> None:
    assert hide_secrets({"hub_token": 12345678901, "api_key": ["a", "b"], "seed": 1}) == {
        "hub_token": HIDDEN,
        "api_key": HIDDEN,
        "seed": 1,
    }
