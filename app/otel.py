"""The OTEL_* variables that are heeded: what they mean, and whether their values can be used.

OpenTelemetry's library reads them itself; some of what it cannot use it passes over in silence, some ends it
in a traceback, at times on import. This knows nothing of the library, so that it can be asked before.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from app.settings import Setting, SettingsError, shown

EXPORTERS = ("otlp", "console", "none")
PROPAGATORS = ("tracecontext", "baggage", "none")
SAMPLERS = ("always_on", "always_off", "traceidratio")
_SECRET = "*" * 10

Check = Callable[[str], str | None]
"""What is wrong with a value, None if nothing is."""


def _one_of(*known: str) -> Check:
    def check(value: str) -> str | None:
        return None if value.lower() in known else f"{value!r} is not known, {_listed(known)} are"

    return check


def _some_of(*known: str) -> Check:
    def check(value: str) -> str | None:
        named = {one.strip().lower() for one in value.split(",")}
        if named <= set(known):
            return None
        return f"{value!r} is not known, {_listed(known)} are, with commas between"

    return check


def _listed(known: tuple[str, ...]) -> str:
    return f"{', '.join(known[:-1])} and {known[-1]}"


def _protocol(value: str) -> str | None:
    return None if value == "http/protobuf" else "http/protobuf alone is spoken"


def _url(value: str) -> str | None:
    try:
        parts = urlsplit(value)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        usable = False
    return None if usable else "it is not a URL like http://127.0.0.1:4318"


def _pairs(value: str) -> str | None:
    parted = [one.partition("=") for one in value.split(",") if one.strip()]
    return None if all(name.strip() and found for name, found, _ in parted) else "it is not NAME=VALUE,..."


def _seconds(value: str) -> str | None:
    try:
        return None if float(value) > 0 else "it is not more than 0"
    except ValueError:
        return "it is not a number of seconds"


def _share(value: str) -> str | None:
    try:
        return None if 0 <= float(value) <= 1 else "it is not between 0 and 1"
    except ValueError:
        return "it is not a number between 0 and 1"


def _count(value: str) -> str | None:
    return None if value.isdecimal() and int(value) > 0 else "it is not a whole number above 0"


def _limit(value: str) -> str | None:
    return None if value.isdecimal() else "it is not a whole number"


def _file(value: str) -> str | None:
    return None if Path(value).is_file() else "there is no such file"


def _any(value: str) -> str | None:
    return None


_SWITCH = _one_of("true", "false")
_COMPRESSIONS = _one_of("gzip", "deflate", "none")
_LIMITS = {
    "OTEL_ATTRIBUTE_COUNT_LIMIT": "Most attributes of anything.",
    "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "Most characters of an attribute.",
    "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "Most attributes of a span.",
    "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT": "Most characters of an attribute of a span.",
    "OTEL_SPAN_EVENT_COUNT_LIMIT": "Most events of a span.",
    "OTEL_SPAN_LINK_COUNT_LIMIT": "Most links of a span.",
    "OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT": "Most attributes of an event.",
    "OTEL_LINK_ATTRIBUTE_COUNT_LIMIT": "Most attributes of a link.",
}
_HEEDED: dict[str, tuple[str, Check]] = {
    "OTEL_EXPORTER_OTLP_ENDPOINT": ("Collector that traces, and scores of evaluations, are sent to.", _url),
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": ("Where traces go instead: the whole URL.", _url),
    "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": ("Where scores of evaluations go instead: the whole URL.", _url),
    "OTEL_TRACES_EXPORTER": (
        "otlp, console or none. Default: otlp where an endpoint is set.",
        _one_of(*EXPORTERS),
    ),
    "OTEL_LOGS_EXPORTER": ("The same, for scores of evaluations.", _one_of(*EXPORTERS)),
    "OTEL_SDK_DISABLED": ("true: nothing is made or sent.", _SWITCH),
    "OTEL_EXPORTER_OTLP_PROTOCOL": ("http/protobuf, the only one that is spoken.", _protocol),
    "OTEL_EXPORTER_OTLP_HEADERS": ("What each request carries, a key say: NAME=VALUE,...", _pairs),
    "OTEL_EXPORTER_OTLP_TIMEOUT": ("Seconds that a request may take.", _seconds),
    "OTEL_EXPORTER_OTLP_COMPRESSION": ("gzip, deflate or none.", _COMPRESSIONS),
    "OTEL_EXPORTER_OTLP_CERTIFICATE": ("File of the certificates that are trusted.", _file),
    "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": ("File of our own certificate,", _file),
    "OTEL_EXPORTER_OTLP_CLIENT_KEY": ("and of its key.", _file),
    "OTEL_SERVICE_NAME": ("Name of this process. Default: plumbline, plumbline-worker, ...", _any),
    "OTEL_RESOURCE_ATTRIBUTES": ("More that is said about this process: NAME=VALUE,...", _pairs),
    "OTEL_TRACES_SAMPLER": (
        "Which traces are recorded: always_on, always_off, traceidratio, or one of these after parentbased_. "
        "Default: a few a second, and of more a hundredth.",
        _one_of(*SAMPLERS, *(f"parentbased_{name}" for name in SAMPLERS)),
    ),
    "OTEL_TRACES_SAMPLER_ARG": ("The share that traceidratio records.", _share),
    "OTEL_PROPAGATORS": ("What is taken over from a caller, and handed on.", _some_of(*PROPAGATORS)),
    "OTEL_BSP_SCHEDULE_DELAY": ("Milliseconds between two sendings.", _count),
    "OTEL_BSP_EXPORT_TIMEOUT": ("Milliseconds that a sending may take.", _count),
    "OTEL_BSP_MAX_QUEUE_SIZE": ("Spans that may wait.", _count),
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": ("Spans in one sending, no more than may wait.", _count),
    **{name: (meaning, _limit) for name, meaning in _LIMITS.items()},
}


def listed(environ: Mapping[str, str] | None = None) -> Iterator[Setting]:
    """Every variable that is heeded, as settings are shown."""
    environ = os.environ if environ is None else environ
    for variable, (meaning, _) in _HEEDED.items():
        value = environ.get(variable, "")
        secret = variable.endswith("_HEADERS") and value
        yield Setting(variable, _SECRET if secret else shown(value), meaning)


def unusable(environ: Mapping[str, str] | None = None) -> list[str]:
    """A sentence for each variable whose value cannot be used; one that is empty counts as not set."""
    environ = os.environ if environ is None else environ
    given = {name: environ.get(name, "").strip() for name in _HEEDED}
    return [
        f"{name}: {problem}"
        for name, value in given.items()
        if value and (problem := _HEEDED[name][1](value)) is not None
    ]


def require_usable(environ: Mapping[str, str] | None = None) -> None:
    """Raise `SettingsError` naming each variable whose value cannot be used."""
    wrong = unusable(environ)
    if wrong:
        raise SettingsError(f"Settings that cannot be used: {'; '.join(wrong)}")
