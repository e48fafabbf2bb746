"""README and docs/ say what there is: commands parse, links lead somewhere, names and columns are the code's."""

import ast
import importlib
import re
from pathlib import Path

import pytest
import yaml
from helpers.documents import DOCUMENTS, ROOT, Block, anchors, blocks, commands, links

from tokenshift.recipes.command_line.command import split_launch
from tokenshift.recipes.command_line.commands import COMMANDS
from tokenshift.recipes.command_line.config_files import launch_config
from tokenshift.recipes.command_line.dry_run import with_planned_launch
from tokenshift.recipes.command_line.early_check import check_words, class_fields
from tokenshift.recipes.command_line.products import FOLDER_KINDS

DOCS = ROOT / "docs"
SCRIPTS = {entry.script.name: name for name, entry in COMMANDS.items() if entry.arguments}
MADE_UP = ("X.yaml", "mine.yaml", "outputs/pocket/config.yaml")
"""Config files of a reader's own, which are empty here."""

README_WORDS = 1200


def name_of(document: Path) -> str:
    return str(document.relative_to(ROOT))


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder like the checkout, in which a reader has files of their own."""
    for name in ("recipes", "accelerate_configs"):
        (tmp_path / name).symlink_to(ROOT / name)
    for name in MADE_UP:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def check_command(words: list[str]) -> bool:
    """Whether the words start a recipe; an argument that it does not have raises ValueError."""
    while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        words = words[1:]
    if words[:2] == ["accelerate", "launch"]:
        place = next(index for index, word in enumerate(words) if word.startswith("recipes/"))
        launch_config(words[words.index("--config_file") + 1])
        name, rest = SCRIPTS[Path(words[place]).name], words[place + 1 :]
    elif words[0] == "python" and words[1].startswith("recipes/"):
        name, rest = SCRIPTS[Path(words[1]).name], words[2:]
    elif words[0] == "tokenshift":
        if words[1] in ("--help", "--version", "COMMAND"):
            return False
        name, rest = words[1], words[2:]
        _, rest = split_launch(name, with_planned_launch(name, rest))
    else:
        return False
    if "--help" not in rest:
        check_words(COMMANDS[name], rest)
    return True


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_commands_parse(document: Path, checkout: Path) -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for words in commands(document):
        try:
            check_command(words)
        except (ValueError, KeyError) as error:
            pytest.fail(f"{name_of(document)}: {' '.join(words)}: {error!r}")
        if words[0] == "make":
            named = {word for word in words[1:] if "=" not in word}
            assert named <= targets, words


def test_the_check_of_commands_sees_what_is_wrong(checkout: Path) -> None:
    assert check_command(["tokenshift", "shift", "--samples", "2"])
    assert check_command(
        ["accelerate", "launch", "--config_file", "accelerate_configs/ddp.yaml", "recipes/evaluate.py"]
    )
    assert not check_command(["pip", "install", "."])
    for wrong in (
        "tokenshift shift --sample 2",
        "tokenshift train --launch dpd",
        "python recipes/cross_sample.py --criteria jss",
        "python recipes/evaluate.py --samples few",
        "tokenshift train --config no_such_config",
    ):
        with pytest.raises(ValueError, match=r"\w"):
            check_command(wrong.split())
    with pytest.raises(KeyError):
        check_command(["python", "recipes/no_such_script.py"])


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_links_lead_somewhere(document: Path) -> None:
    for link in links(document):
        if re.match(r"[a-z]+:", link):
            continue  # of the network
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), f"{name_of(document)} links to {link}, which is not there"
        assert target.is_relative_to(ROOT)
        if document.is_relative_to(DOCS):
            assert target.is_relative_to(DOCS), f"{link} is not part of the site"
        if anchor:
            assert anchor in anchors(target), f"{name_of(document)} links to {link}; there is no such heading"


def test_every_image_is_shown() -> None:
    shown = {(document.parent / link).resolve() for document in DOCUMENTS for link in links(document)}
    assert set((DOCS / "images").iterdir()) <= shown


def test_every_page_is_in_the_navigation() -> None:
    listed = set(re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text()))
    assert listed == {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")}


def test_the_readme_is_short() -> None:
    words = (ROOT / "README.md").read_text().split()
    assert len(words) <= README_WORDS
    assert {"make demo", "make test", "pip install ."} <= {
        re.sub(r"\s*#.*", "", line) for block in blocks(ROOT / "README.md", "bash") for line in block.code.splitlines()
    }


@pytest.mark.parametrize("block", [block for file in DOCUMENTS for block in blocks(file, "python")], ids=str)
def test_python_compiles_and_its_imports_are_exported(block: Block) -> None:
    for node in ast.walk(ast.parse(block.code)):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("tokenshift"):
            exported = importlib.import_module(str(node.module)).__all__
            assert {alias.name for alias in node.names} <= set(exported)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            for name in names:
                assert importlib.util.find_spec(str(name).partition(".")[0]) is not None


@pytest.mark.parametrize("block", [block for file in DOCUMENTS for block in blocks(file, "yaml")], ids=str)
def test_yaml_is_yaml(block: Block) -> None:
    assert isinstance(yaml.safe_load(block.code), dict)


def first_column(document: Path) -> set[str]:
    """The names in code in the first column of all tables."""
    rows = re.findall(r"^\|([^|]*)\|", document.read_text(), re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row)}


@pytest.mark.parametrize(("page", "package"), [
    ("trainer", "tokenshift.trainer"),
    ("analysis", "tokenshift.analysis"),
    ("rewards", "tokenshift.rewards"),
    ("inputs", "tokenshift.recipes.inputs"),
])  # fmt: skip
def test_the_api_pages_have_every_exported_name(page: str, package: str) -> None:
    text = (DOCS / "reference" / "api" / f"{page}.md").read_text()
    exported = set(importlib.import_module(package).__all__)
    assert set(re.findall(rf"^::: {re.escape(package)}\.(\w+)$", text, re.MULTILINE)) == exported
    assert first_column(DOCS / "reference" / "api" / f"{page}.md") == exported


def yaml_word(value: object) -> str:
    """A default as the page has it."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def test_the_options_are_the_configs_own_fields() -> None:
    owner = "tokenshift.trainer.config.DivergenceGRPOConfig"
    fields = {name: field for name, field in class_fields(owner).items() if field.owner == owner}
    text = (DOCS / "reference" / "options.md").read_text()
    text = text.partition("## Config files")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| `?([^|`]*)`? \|", text, re.MULTILINE))
    assert rows.keys() == fields.keys()
    for name, field in fields.items():
        assert rows[name] == yaml_word(field.default), name


def test_the_columns_are_the_tables() -> None:
    from tokenshift.analysis.cross_sampling.sweep_run import SWEEP_SCHEMA
    from tokenshift.analysis.evaluation.responses import RESPONSE_SCHEMA
    from tokenshift.analysis.sampling.trajectories import TRAJECTORY_SCHEMA
    from tokenshift.analysis.token_table.schema import TABLE_SCHEMA

    text = (DOCS / "reference" / "token-table.md").read_text()
    own, others = text.split("## Other tables")
    rows = re.findall(r"^\|([^|]*)\| (int64|int32|float32|bool|text) \|", own, re.MULTILINE)
    types = {name: kind for names, kind in rows for name in re.findall(r"`(\w+)`", names)}
    words = {"string": "text", "float": "float32", "dictionary<values=string, indices=int8, ordered=0>": "text"}
    assert types == {field.name: words.get(str(field.type), str(field.type)) for field in TABLE_SCHEMA}
    columns = re.findall(r"^\| `.*?\| a response \|(.*)\|$", others, re.MULTILINE)
    assert [set(re.findall(r"`(\w+)`", listed)) for listed in columns] == [
        set(schema.names) for schema in (TRAJECTORY_SCHEMA, RESPONSE_SCHEMA, SWEEP_SCHEMA)
    ]


def test_the_output_folders_have_every_product() -> None:
    named = set(re.findall(r"`([^`]+)`", (DOCS / "reference" / "output-folders.md").read_text()))
    for kind, folder in FOLDER_KINDS.items():
        assert set(folder.products) <= named, f"{kind}: docs/reference/output-folders.md lacks a file"


def test_commands_and_configs_are_listed() -> None:
    page = (DOCS / "reference" / "command-line.md").read_text()
    options = (DOCS / "reference" / "options.md").read_text()
    for name, entry in COMMANDS.items():
        assert f"`tokenshift {name}`" in page
        assert not entry.arguments or f"`{entry.script.name}`" in page
    for file in (ROOT / "accelerate_configs").glob("*.yaml"):
        assert f"| `{file.stem}` |" in page
    for file in (ROOT / "recipes" / "configs").glob("*.yaml"):
        assert f"`{file.stem}`" in options


def test_the_comparison_that_is_shown_is_one(checkout: Path) -> None:
    from tokenshift.recipes.command_line.early_values import EarlyArguments
    from tokenshift.recipes.jobs.comparison.early import check_file

    (block,) = blocks(DOCS / "how-to" / "compare.md", "yaml")
    (checkout / "mine.yaml").write_text(block.code)
    check_file(EarlyArguments({"config": "mine.yaml"}))
    (checkout / "mine.yaml").write_text(block.code.replace("baseline: dapo", "baseline: dap"))
    with pytest.raises(ValueError, match="baseline"):
        check_file(EarlyArguments({"config": "mine.yaml"}))
