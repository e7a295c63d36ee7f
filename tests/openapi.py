"""Looks whether responses are as the OpenAPI document says: their status, their type, every field of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import httpx
from jsonschema import Draft202012Validator, FormatChecker

from app.main import create_app
from app.settings import Settings

Operation = Mapping[str, Any]


class Contract:
    """The document of this application. Fields that it does not name count as wrong here, though clients are
    told to expect them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._validators: dict[tuple[str, str, str], Draft202012Validator] = {}

    @cached_property
    def document(self) -> dict[str, Any]:
        document: dict[str, Any] = create_app(self._settings).openapi()
        return document

    @cached_property
    def _paths(self) -> list[tuple[re.Pattern[str], str]]:
        """Those with the fewest variables first."""
        paths = sorted(self.document["paths"], key=lambda path: path.count("{"))
        return [(re.compile(re.sub(r"\\{[^}]*\\}", "[^/]+", re.escape(path))), path) for path in paths]

    async def check(self, response: httpx.Response) -> None:
        """An event hook of httpx. What is at no documented address is not looked at."""
        method, address = response.request.method.lower(), response.request.url.path
        path = next((path for pattern, path in self._paths if pattern.fullmatch(address)), None)
        operation = self.document["paths"].get(path, {}).get(method)
        if operation is None:
            return
        told, where = operation["responses"], f"{method} {path}"
        status = str(response.status_code)
        known = next((one for one in (status, f"{status[0]}XX") if one in told), None)
        assert known, f"{where} answered {status}, which is not in the OpenAPI document: {sorted(told)}"
        kind = response.headers.get("content-type", "").partition(";")[0]
        content = told[known].get("content", {"": {}})
        assert kind in content or "*/*" in content, f"{where} {status} is {kind}: {sorted(content)}"
        if kind == "application/json" and kind in content:
            await response.aread()
            wrong = [
                f"{'.'.join(map(str, one.absolute_path))}: {one.message[:300]}"
                for one in self._validator(path or "", method, known).iter_errors(response.json())
            ]
            assert not wrong, f"{where} {status} is not as the OpenAPI document says: {wrong[:5]}"

    def _validator(self, path: str, method: str, status: str) -> Draft202012Validator:
        place = (path, method, status)
        if place not in self._validators:
            responses = self.document["paths"][path][method]["responses"]
            schema = responses[status]["content"]["application/json"]["schema"]
            whole = {**schema, "components": self.document["components"]}
            self._validators[place] = Draft202012Validator(_closed(whole), format_checker=FormatChecker())
        return self._validators[place]


def _closed(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: _closed(one) for name, one in schema.items()}
    if "properties" in closed:
        closed.setdefault("additionalProperties", False)
    return closed
