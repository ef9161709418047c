"""Where a model is: by path, or by the name of one that ships."""

import pathlib

import pytest

from indep_jax.hub import folders
from indep_jax.support.errors import UserError


def test_a_name_is_a_shipped_model_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert {"small", "small_none"} <= set(folders.shipped())
    for name in folders.shipped():
        folder = folders.locate(name)
        assert folder.is_absolute() and folder.name == name
        assert (folder / "config.json").is_file() and (folder / "model.safetensors").is_file()
    assert folders.locate("other") == pathlib.Path("other")
    assert (
        folders.locate("./small") == folders.locate(pathlib.Path("small")) == pathlib.Path("small")
    )


def test_a_name_with_two_meanings_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small").mkdir()
    with pytest.raises(UserError, match=r"^small: is here, and also .* expected \./small or /.*"):
        folders.locate("small")
    assert folders.locate("./small") == pathlib.Path("small")
