"""Settings that lie in files, as secrets of containers do."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.settings import SettingsError, load_settings


def test_a_secret_is_read_from_the_file_that_its_variable_names(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("pässword\n", encoding="utf-8")
    settings = load_settings({"PLUMBLINE_MODEL_KEY_FILE": str(tmp_path / "secret")})
    assert settings.model_key is not None
    assert settings.model_key.get_secret_value() == "pässword"


def test_a_file_that_is_not_there_is_told_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"REDIS_URL_FILE: cannot read .*No such file"):
        load_settings({"REDIS_URL_FILE": str(tmp_path / "nothing")})


def test_a_file_that_is_no_text_is_told_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"\xff\xfe\x00\x9f")
    with pytest.raises(SettingsError, match=r"MODEL_KEY_FILE: .* is no text in UTF-8"):
        load_settings({"PLUMBLINE_MODEL_KEY_FILE": str(tmp_path / "key")})
