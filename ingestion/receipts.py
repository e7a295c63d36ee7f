"""Signed receipts of erasures: files beside the original ones and not in the database, so that they outlive
its backups.

A receipt names each store, what went and when, and what is pending. Of documents it keeps salted hashes of
their ids, the version of their deletion and the numbers of their revisions: enough to apply it again after a
restore, and no text. It is signed with Ed25519 by a key that lies beside them; whoever has the public half
can check it anywhere.
"""

from __future__ import annotations

import errno
import hashlib
import json
import secrets
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ingestion.blobs import open_backend
from ingestion.errors import DocumentInvalid, StorageUnavailable

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
    """The receipts of an instance: `url` is a folder that only we may read, or an fsspec URL that the workers
    of several hosts share. Calls block; they raise `StorageUnavailable` when the place is away."""

    def __init__(self, url: str) -> None:
        self._files = open_backend(url)

    def draft(self, erasure_id: str, body: Mapping[str, Any]) -> None:
        """Keep what the ledger is about to forget."""
        with _away():
            self._files.write(erasure_id + _DRAFT, _written(body))

    def drafted(self, erasure_id: str) -> dict[str, Any]:
        with _away():
            content = self._files.read(erasure_id + _DRAFT)
        found: dict[str, Any] = json.loads(content) if content else {}
        return found

    def sign(self, erasure_id: str, body: Mapping[str, Any]) -> None:
        """Write the receipt, in place of its draft. One that is there stays: whoever wrote it was killed
        before the erasure was finished, and its draft, which says what it is about, may be gone."""
        with _away():
            if self._files.read(erasure_id + _SUFFIX) is None:
                key = self._signing_key()
                signature = {
                    "algorithm": "Ed25519",
                    "public_key": _text(_public(key)),
                    "value": _text(key.sign(_canonical(body))),
                }
                self._files.write(erasure_id + _SUFFIX, _written({**body, "signature": signature}))
            self._files.remove(erasure_id + _DRAFT)

    def get(self, erasure_id: str) -> Receipt | None:
        with _away():
            content = self._files.read(erasure_id + _SUFFIX)
        return self._receipt(content, erasure_id) if content else None

    def all(self) -> Iterator[Receipt]:
        for one in sorted(self.ids()):
            receipt = self.get(one)
            if receipt:
                yield receipt

    def ids(self) -> set[str]:
        with _away():
            names = self._files.names()
        return {name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX)}

    def read(self, path: Path) -> Receipt:
        """One that lies anywhere. Raises `DocumentInvalid` for a file that is no receipt."""
        try:
            content = path.read_bytes()
        except OSError as error:
            raise DocumentInvalid(f"{path} is no receipt that can be read: {error}.") from None
        return self._receipt(content, str(path))

    def _receipt(self, content: bytes, name: str) -> Receipt:
        try:
            said = json.loads(content.decode())
            signature = said.pop("signature")
            public = b64decode(signature["public_key"])
            held = said["format"] == FORMAT and _verified(public, b64decode(signature["value"]), said)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DocumentInvalid(f"{name} is no receipt that can be read: {error}.") from None
        return Receipt(said, signature, held, held and public == self._own_public())

    def _own_public(self) -> bytes | None:
        with _away():
            raw = self._files.read(_KEY)
        return _public(_private(raw)) if raw else None

    def _signing_key(self) -> Any:
        """Made by whoever needs it first, on whichever host."""
        raw = self._files.read(_KEY)
        if not raw:
            self._files.create(_KEY, _new_key())
            raw = self._files.read(_KEY)
        if not raw:
            raise OSError(errno.EIO, "the key that signs receipts does not stay where it was written")
        return _private(raw)


@contextmanager
def _away() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise StorageUnavailable(f"The store of receipts: {reason}.") from error


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


def _private(raw: bytes) -> Any:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(raw)


def _new_key() -> bytes:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.generate().private_bytes_raw()


def _written(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, indent=1, sort_keys=True).encode()


def _text(raw: bytes) -> str:
    return b64encode(raw).decode()
