"""What can go wrong with a model.

LlmError
├── ModelUnavailable   down, unreachable or its breaker is open: try another model, or later
│   ├── ModelOverloaded    it said 429 or 503; `retry_after` seconds if it said when
│   └── ModelTimeout       nothing came within the time given
├── ModelRejected      it refused the request (unknown model, bad field): the request must change
│   └── ContextTooLong     prompt and answer do not fit its window of `limit` tokens: send less
├── OutputsUnavailable the cache of outputs cannot be reached, so nothing was erased from it: try again
├── StreamBroken       it died after the first token: what was sent stands, nothing follows
└── PromptInvalid      a template has an unknown placeholder or is missing: the release must change
"""


class LlmError(Exception):
    """Base of everything this folder raises on purpose."""


class ModelUnavailable(LlmError):
    pass


class ModelOverloaded(ModelUnavailable):
    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ModelTimeout(ModelUnavailable):
    pass


class ModelRejected(LlmError):
    pass


class ContextTooLong(ModelRejected):
    """`tokens` is what the prompt and the longest answer need, None where the server did not say."""

    def __init__(self, message: str, *, tokens: int | None = None, limit: int | None = None) -> None:
        super().__init__(message)
        self.tokens = tokens
        self.limit = limit


class OutputsUnavailable(LlmError):
    pass


class StreamBroken(LlmError):
    pass


class PromptInvalid(LlmError):
    pass
