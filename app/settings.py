"""Where things are: addresses, secrets, limits of this installation. Never what the service does; that
is the release. Read once, in `main` or the command line, and passed on.

Every name can also be given as `NAME_FILE`, the path of a file that holds the value (for secrets).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import AliasChoices, Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

_ORIGIN = re.compile(r"https?://([a-z0-9.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")
_CREDENTIALS = re.compile(r"//[^/@,]*@")


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting as it can be shown: `value` is what it is now, without what may be a secret."""

    variable: str
    value: str
    description: str


class SettingsError(Exception):
    """A setting is missing or malformed; the message names each in a sentence."""


def _plain(name: str) -> Any:
    """A setting that goes by the name people know, or by ours."""
    return AliasChoices(name, f"PLUMBLINE_{name}")


_OTHERS = frozenset(
    f"PLUMBLINE_{name}" for name in ("RULES", "JUDGE_URL", "JUDGE_MODEL", "JUDGE_KEY", "JUDGE_REPEATS")
)
"""What commands of other folders read."""
_ADDRESSES = {
    "redis_url": (("redis", "rediss", "unix"), "redis://:password@127.0.0.1:6379/0"),
    "milvus_uri": (("http", "https", "tcp"), "http://127.0.0.1:19530"),
    "weaviate_url": (("http", "https"), "http://127.0.0.1:8080"),
    "embedder_url": (("http", "https"), "http://127.0.0.1:8001/v1"),
    "rerank_url": (("http", "https"), "http://127.0.0.1:8000/v1"),
}
"""The schemes that an address may have, and how one looks."""


def _is_address(given: str, schemes: tuple[str, ...]) -> bool:
    try:
        parts = urlsplit(given)
    except ValueError:
        return False
    return parts.scheme in schemes and bool(parts.path if parts.scheme == "unix" else parts.hostname)


def _parts(given: str | None) -> list[str]:
    return [part.strip() for part in (given or "").split(",") if part.strip()]


def _servers(given: str | None) -> list[tuple[str, str]]:
    """The model and the URL of each server; of one for all models, the model is empty."""
    parted = [
        part.rpartition("=") if not part.startswith("http") else ("", "", part) for part in _parts(given)
    ]
    return [(model, url) for model, _, url in parted]


class Settings(BaseSettings):
    """Frozen. Times are in seconds, sizes in bytes."""

    model_config = SettingsConfigDict(
        env_prefix="PLUMBLINE_", frozen=True, extra="ignore", populate_by_name=True, env_ignore_empty=True
    )

    data: Path = Field(Path(".plumbline"), description="Folder of this instance's data.")
    host: str = Field("127.0.0.1", description="Address to listen on; any but loopback needs keys.")
    port: int = Field(8080, ge=0, le=65535, description="Port of the API and the page.")

    database_url: SecretStr | None = Field(
        None, validation_alias=_plain("DATABASE_URL"), description="PostgreSQL of the ledger."
    )
    redis_url: SecretStr | None = Field(
        None, validation_alias=_plain("REDIS_URL"), description="Redis for finished outputs."
    )
    milvus_uri: str | None = Field(
        None, validation_alias=_plain("MILVUS_URI"), description="Milvus, 2.5 or newer."
    )
    milvus_token: SecretStr | None = Field(
        None, validation_alias=_plain("MILVUS_TOKEN"), description="Milvus `user:password` or token."
    )
    weaviate_url: str | None = Field(
        None,
        validation_alias=_plain("WEAVIATE_URL"),
        description="Weaviate, 1.33 or newer, instead of Milvus: its HTTP address.",
    )
    weaviate_grpc_url: str | None = Field(
        None,
        validation_alias=_plain("WEAVIATE_GRPC_URL"),
        description="Where its gRPC listens. Default: port 50051 of the same host.",
    )
    weaviate_api_key: SecretStr | None = Field(
        None, validation_alias=_plain("WEAVIATE_API_KEY"), description="Its API key."
    )
    blobs_url: str | None = Field(
        None,
        description=(
            "Where original files are kept: a folder, or an fsspec URL such as s3://bucket/prefix (the extra "
            "`s3`, with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL and so on). By default a "
            "folder in `data`."
        ),
    )

    model_url: str | None = Field(
        None,
        description=(
            "OpenAI-compatible base URL (ends in /v1) that serves the release's models; several, for several "
            "servers, with commas between. NAME=URL is a server of the model NAME alone."
        ),
    )
    model_key: SecretStr | None = Field(None, description="Bearer key for the model URL.")
    model: str | None = Field(
        None, description="Model that the first release of a new instance names, before `extractive`."
    )
    rerank_url: str | None = Field(
        None,
        description="Base URL (ends in /v1) of a server that reranks, or its endpoint (ends in /rerank).",
    )
    rerank_key: SecretStr | None = Field(None, description="Bearer key for the rerank URL.")
    vllm_python: Path | None = Field(
        None, description="Python of the environment of vLLM, for `up --model`. Default: .venv-vllm here."
    )
    vllm_cpu_cache: int = Field(1, gt=0, description="Memory of a model on the CPU for its cache, in GiB.")
    release: Path | None = Field(None, description="Release file that a new instance starts with.")
    embedder_path: Path | None = Field(
        None,
        description=(
            "Folder with config.json, tokenizer.json and model.safetensors; or one that holds such folders, "
            "each under the name that releases give the model. For a model behind the embedder URL, its "
            "configuration and tokenizer alone."
        ),
    )
    embedder_url: str | None = Field(
        None,
        description=(
            "OpenAI-compatible base URL (ends in /v1), or its endpoint (ends in /embeddings), that serves "
            "the embedders that are not here."
        ),
    )
    embedder_key: SecretStr | None = Field(None, description="Bearer key for the embedder URL.")

    open_access: bool | None = Field(
        None, description="Answer without keys as tenant `default`; only ever on loopback. Default: on there."
    )
    allowed_origins: str | None = Field(
        None,
        description=(
            "Web applications whose pages may call the API from a browser, as https://app.example.com, with "
            "commas between. They need keys in any case. Default: none."
        ),
    )
    upload_limit: int = Field(64 * 2**20, gt=0, description="Largest upload, in bytes.")
    question_limit: int = Field(8_000, gt=0, description="Longest question, in characters.")
    request_timeout: float = Field(60.0, gt=0, description="Deadline of a request that names none.")
    max_running: int = Field(32, gt=0, description="Questions answered at once by one process.")
    max_waiting: int = Field(128, ge=0, description="Questions that may wait for a turn; more are told 429.")

    workers: int = Field(1, ge=0, description="Worker processes that `plumbline up` starts.")
    lease: float = Field(15.0, gt=0, description="How long a worker holds a job between heartbeats.")
    grace: float = Field(
        15.0,
        ge=0,
        le=600,
        description="How long streams and jobs may go on after a signal to stop; jobs are then given back.",
    )
    max_queued: int = Field(
        200_000, gt=0, description="Documents of one tenant that may wait; more are told 429."
    )
    max_queued_bytes: int = Field(32 * 2**30, gt=0, description="Bytes of these.")
    history_days: int = Field(
        30,
        ge=2,
        description="Days for which jobs and versions are remembered that a newer version replaced.",
    )
    parse_timeout: float = Field(
        60.0,
        gt=0,
        description="Processor time for parsing one document; one that stays at a part for long ends before.",
    )
    parse_memory: int = Field(2**30, gt=0, description="Address space of the parsing process, in bytes.")

    url: str | None = Field(None, description="Address of the service, for commands that call it.")
    key: SecretStr | None = Field(None, description="Key that those commands send.")

    stall: float = Field(
        0.25,
        ge=0,
        description="An event loop that stands still for longer is logged with what holds it; 0 logs none.",
    )
    pulse: Path | None = Field(
        None,
        description="File that a worker or controller touches every 5 s while it is not stuck, for probes to "
        "look at; removed at its end.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="What is logged.")
    log_reads: bool = Field(
        False,
        description="Log requests that only look something up and went well, too: pages and probes ask all "
        "the time.",
    )

    @field_validator("log_level", mode="before")
    @classmethod
    def _lower(cls, level: str) -> str:
        return level.lower()

    @field_validator(*_ADDRESSES)
    @classmethod
    def _address(cls, given: SecretStr | str | None, which: ValidationInfo) -> SecretStr | str | None:
        plain = given.get_secret_value() if isinstance(given, SecretStr) else given
        schemes, example = _ADDRESSES[which.field_name or ""]
        if plain is not None and not _is_address(plain, schemes):
            raise ValueError(f"it is not a URL like {example}")
        return given

    @field_validator("model_url")
    @classmethod
    def _model_addresses(cls, given: str | None) -> str | None:
        for _, url in _servers(given):
            if not _is_address(url, ("http", "https")):
                raise ValueError("each is a URL like http://127.0.0.1:8000/v1, or NAME= and one")
        return given

    @field_validator("allowed_origins")
    @classmethod
    def _origins_as_browsers_send_them(cls, given: str | None) -> str | None:
        for one in _parts(given):
            if not _ORIGIN.fullmatch(one):
                raise ValueError(
                    "each is a scheme and a host like https://app.example.com, without a path or *"
                )
        return given

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings

    def listed(self) -> Iterator[Setting]:
        """Every setting by the variable that people know."""
        for name, field in type(self).model_fields.items():
            yield Setting(_variable(name), shown(getattr(self, name)), field.description or "")

    def model_urls(self, name: str) -> tuple[str, ...]:
        """The servers of a model."""
        return tuple(url for model, url in _servers(self.model_url) if model in ("", name))

    @property
    def origins(self) -> tuple[str, ...]:
        """The allowed ones."""
        return tuple(_parts(self.allowed_origins))

    def require(self, *names: str) -> None:
        """Raise `SettingsError` naming every one of these settings that is not set."""
        missing = [name.upper() for name in names if getattr(self, name) is None]
        if missing:
            raise SettingsError(
                f"Not set: {', '.join(missing)}. Set them in the environment, or run `plumbline up`, "
                "which starts these parts itself."
            )


def load_settings(environ: Mapping[str, str] | None = None, **overrides: Any) -> Settings:
    """Settings from the environment, `NAME_FILE` variants included; overrides win when not None."""
    environ = os.environ if environ is None else environ
    values = {**_from_files(environ), **{k: v for k, v in overrides.items() if v is not None}}
    try:
        return Settings(**values)
    except ValidationError as error:
        given = {name for name, value in overrides.items() if value is not None}
        problems = "; ".join(
            f"{_said_by(str(e['loc'][0]), given)}: {e['msg'].removeprefix('Value error, ')}"
            for e in error.errors()
        )
        raise SettingsError(f"Settings that cannot be used: {problems}") from None


def _variable(name: str) -> str:
    """The variable that people know a setting by."""
    alias = Settings.model_fields[name].validation_alias
    return str(alias.choices[0]) if isinstance(alias, AliasChoices) else f"PLUMBLINE_{name.upper()}"


def _said_by(place: str, given: Set[str]) -> str:
    """Where the value of a setting came from: an override is an option of the command line."""
    if place in given:
        return f"--{place.replace('_', '-')}"
    return _variable(place) if place in Settings.model_fields else place


def shown(value: object) -> str:
    """A value without what may be a secret."""
    if value is None:
        return ""
    # An address may hold a password.
    return _CREDENTIALS.sub("//", str(value))


def misspelt(environ: Mapping[str, str] | None = None) -> list[str]:
    """The variables of the environment that look like settings and are none."""
    environ = os.environ if environ is None else environ
    known = {f"PLUMBLINE_{name.upper()}" for name in Settings.model_fields}
    known |= {f"{name}_FILE" for name in known}
    return sorted(name for name in environ if name.startswith("PLUMBLINE_") and name not in known | _OTHERS)


def _from_files(environ: Mapping[str, str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in Settings.model_fields:
        for variable in (f"PLUMBLINE_{name.upper()}", name.upper()):
            path = environ.get(f"{variable}_FILE")
            if path and name not in ("release", "data"):
                try:
                    found[name] = Path(path).read_text(encoding="utf-8").strip()
                except OSError as error:
                    raise SettingsError(f"{variable}_FILE: cannot read {path}: {error.strerror}") from None
                except UnicodeDecodeError:
                    raise SettingsError(f"{variable}_FILE: {path} is no text in UTF-8.") from None
    return found
