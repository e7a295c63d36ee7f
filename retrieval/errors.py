"""What can go wrong in search.

RetrievalError
├── StoreUnavailable      the store is down or too slow: not the caller's fault, try again
├── EmbedderUnavailable   no embedder could be loaded or reached: not the caller's fault
├── RerankerUnavailable   no reranker could be loaded or reached, or not in time: not the caller's fault
├── TextTooLong           a text exceeds the embedder's window: the caller must split it
├── RowInvalid            the store cannot hold this row (a field too long, text that is no Unicode)
└── FilterInvalid         the caller's filter is malformed: trying again does not help
"""


class RetrievalError(Exception):
    """Base of everything this folder raises on purpose."""


class StoreUnavailable(RetrievalError):
    pass


class EmbedderUnavailable(RetrievalError):
    pass


class RerankerUnavailable(RetrievalError):
    pass


class TextTooLong(RetrievalError):
    def __init__(self, tokens: int, limit: int) -> None:
        super().__init__(f"The text has {tokens} tokens; the embedder takes at most {limit}.")
        self.tokens = tokens
        self.limit = limit


class RowInvalid(RetrievalError):
    pass


class FilterInvalid(RetrievalError):
    pass
