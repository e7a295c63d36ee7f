"""What a document's id and a collection's name may be."""

from __future__ import annotations

import re

ID_LENGTH = 200

ID = re.compile(rf"[A-Za-z0-9._:~@-]{{1,{ID_LENGTH}}}")
STEPS = frozenset({".", ".."})
"""Ids by their characters, but clients leave them out of an address, as a folder."""
COLLECTION = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
