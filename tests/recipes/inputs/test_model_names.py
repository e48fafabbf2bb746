"""What a model's name stands for, and what is said of one that stands for nothing."""

from pathlib import Path

import pytest

from tokenshift.recipes.inputs.model_names import local_folder


@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("outputs/run", "adapter_config.json; did you mean outputs/run/model?"),
        ("./outputs/run/", "adapter_config.json; did you mean ./outputs/run/model?"),
        ("outputs/run/modle", "adapter_config.json; there is no such folder."),
        ("outputs/empty", "adapter_config.json."),
    ],
)
def test_a_name_that_is_no_model_is_told_with_what_may_be_meant(
    name: str, end: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "outputs" / "run" / "model").mkdir(parents=True)
    (tmp_path / "outputs" / "run" / "model" / "config.json").write_text("{}")
    (tmp_path / "outputs" / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="rl_model=") as error:
        local_folder(name, "rl_model")
    assert str(error.value).endswith(end)
    assert local_folder("outputs/run/model", "rl_model") == Path("outputs/run/model")


def test_other_names_are_the_hubs() -> None:
    assert local_folder("pocket", "rl_model") is None
    assert local_folder("org/no-such-folder", "rl_model") is None
