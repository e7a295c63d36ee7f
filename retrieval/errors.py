"""What can go wrong in search.

RetrievalError
├── StoreUnavailable      the store is down or too slow: not the caller's fault, try again
├── EmbedderUnavailable   no embedder could be loaded or reached: not the caller's fault
├── RerankerUnavailable   no reranker could be loaded or reached, or not in time: not the caller's fault
├── TextTooLong           a text exceeds the embedder's window: the caller must split it
├── RowInvalid            the store cannot hold this row (a field too long, text that is no Unicode)
└── FilterInvalid         the caller's filter is malformed: trying again does not help

Where a part is down, the message names addresses, paths and what drivers said: it is the operator's, in the
log. `told` is what everybody else may hear.
"""


class RetrievalError(Exception):
    """Base of everything this folder raises on purpose."""


class StoreUnavailable(RetrievalError):
    told = "The index is away or too slow. Try again in a few seconds."


class EmbedderUnavailable(RetrievalError):
    told = "The embedding model is away or cannot be used. Try again later."


class RerankerUnavailable(RetrievalError):
    told = "The reranker is away or too slow. Try again in a few seconds."


class TextTooLong(RetrievalError):
    def __init__(self, tokens: int, limit: int) -> None:
        super().__init__(f"The text has {tokens} tokens; the embedder takes at most {limit}.")
        self.tokens = tokens
        self.limit = limit


class RowInvalid(RetrievalError):
    pass


class FilterInvalid(RetrievalError):
    pass
