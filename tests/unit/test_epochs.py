"""An epoch that was seen lately stands for a question to the ledger; one seen too long ago does not."""

from __future__ import annotations

from app.epochs import MOST, RECENT, Epochs
from retrieval.types import Filter

HERE = Filter(tenant="acme", groups=None, collections=("a",))


def test_an_epoch_is_known_for_a_while_by_tenant_and_collections() -> None:
    now = 100.0
    epochs = Epochs(lambda: now)
    assert epochs.recent(HERE) is None
    epochs.see(HERE, "1")
    assert epochs.recent(Filter(tenant="acme", groups=frozenset({"few"}), collections=("a",))) == "1"
    assert epochs.recent(Filter(tenant="globex", groups=None, collections=("a",))) is None
    assert epochs.recent(Filter(tenant="acme", groups=None, collections=("b",))) is None
    assert epochs.recent(Filter(tenant="acme", groups=None)) is None
    epochs.see(HERE, "2")
    assert epochs.recent(HERE) == "2"
    now += RECENT
    assert epochs.recent(HERE) is None


def test_of_many_filters_the_latest_are_known() -> None:
    epochs = Epochs()
    for n in range(MOST + 1):
        epochs.see(Filter(tenant=str(n), groups=None), "1")
    assert epochs.recent(Filter(tenant="0", groups=None)) is None
    assert epochs.recent(Filter(tenant=str(MOST), groups=None)) == "1"
