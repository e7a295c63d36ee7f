"""Signed receipts of erasures: files beside the database, so that they outlive its backups.

A receipt names each store, what went and when, and what is pending. Of documents it keeps salted hashes of
their ids, the version of their deletion and the numbers of their revisions: enough to apply it again after a
restore, and no text. It is signed with Ed25519 by a key that the data folder keeps; whoever has the public
half can check it anywhere.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ingestion.errors import DocumentInvalid

FORMAT = 1
_KEY = "signing.key"
_SUFFIX = ".json"
_DRAFT = ".draft"


@dataclass(frozen=True, slots=True)
class Receipt:
    """`signed` says whether the signature holds, `ours` whether it is this instance's."""

    body: Mapping[str, Any]
    signature: Mapping[str, str]
    signed: bool
    ours: bool

    @property
    def whole(self) -> dict[str, Any]:
        """As it is written."""
        return {**self.body, "signature": dict(self.signature)}

    @property
    def id(self) -> str:
        return str(self.body["id"])

    @property
    def tenant(self) -> str:
        return str(self.body["tenant"])


class Receipts:
    """The receipts of an instance, in a folder that only we may read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def draft(self, erasure_id: str, body: Mapping[str, Any]) -> None:
        """Keep what the ledger is about to forget."""
        self._write(erasure_id + _DRAFT, body)

    def drafted(self, erasure_id: str) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads((self._folder / (erasure_id + _DRAFT)).read_text())
        except FileNotFoundError:
            return {}
        return found

    def sign(self, erasure_id: str, body: Mapping[str, Any]) -> Path:
        """Write the receipt, in place of its draft."""
        key = self._signing_key()
        signature = {
            "algorithm": "Ed25519",
            "public_key": _text(_public(key)),
            "value": _text(key.sign(_canonical(body))),
        }
        path = self._write(erasure_id + _SUFFIX, {**body, "signature": signature})
        (self._folder / (erasure_id + _DRAFT)).unlink(missing_ok=True)
        return path

    def get(self, erasure_id: str) -> Receipt | None:
        path = self._folder / (erasure_id + _SUFFIX)
        return self.read(path) if path.exists() else None

    def ids(self) -> set[str]:
        return {path.stem for path in self._folder.glob(f"*{_SUFFIX}")} if self._folder.exists() else set()

    def read(self, path: Path) -> Receipt:
        """Raises `DocumentInvalid` for a file that is no receipt."""
        try:
            said = json.loads(path.read_text(encoding="utf-8"))
            signature = said.pop("signature")
            public = b64decode(signature["public_key"])
            held = said["format"] == FORMAT and _verified(public, b64decode(signature["value"]), said)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DocumentInvalid(f"{path} is no receipt that can be read: {error}.") from None
        return Receipt(said, signature, held, held and public == self._own_public())

    def _own_public(self) -> bytes | None:
        return _public(self._signing_key()) if (self._folder / _KEY).exists() else None

    def _signing_key(self) -> Any:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        path = self._folder / _KEY
        if not path.exists():
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            _create(path, Ed25519PrivateKey.generate().private_bytes_raw())
        return Ed25519PrivateKey.from_private_bytes(path.read_bytes())

    def _write(self, name: str, body: Mapping[str, Any]) -> Path:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self._folder / name
        partial = path.with_name(f".{name}.{secrets.token_hex(4)}")
        _create(partial, json.dumps(body, indent=1, sort_keys=True).encode())
        partial.replace(path)
        return path


def found(paths: Sequence[Path]) -> Iterator[Path]:
    """The receipts among these files and folders."""
    for path in paths:
        yield from sorted(path.glob(f"*{_SUFFIX}")) if path.is_dir() else [path]


def reference(salt: str, tenant: str, document_id: str) -> str:
    """What a receipt calls a document."""
    return hashlib.sha256(f"{salt}\0{tenant}\0{document_id}".encode()).hexdigest()


def new_salt() -> str:
    return secrets.token_hex(16)


def _canonical(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def _verified(public: bytes, signature: bytes, body: Mapping[str, Any]) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, _canonical(body))
    except InvalidSignature:
        return False
    return True


def _public(key: Any) -> bytes:
    raw: bytes = key.public_key().public_bytes_raw()
    return raw


def _text(raw: bytes) -> str:
    return b64encode(raw).decode()


def _create(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)
