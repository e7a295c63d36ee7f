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

The messages name addresses and what servers said: they are the operator's, in the log. `told` is what
everybody else may hear.
"""


class LlmError(Exception):
    """Base of everything this folder raises on purpose."""


class ModelUnavailable(LlmError):
    told = "The model is away or cannot be used. Try again in a few seconds."


class ModelOverloaded(ModelUnavailable):
    told = "The model has too much to do. Try again in a few seconds."

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ModelTimeout(ModelUnavailable):
    told = "The model sent nothing within the time given. Ask again."


class ModelRejected(LlmError):
    told = "The model does not take this request."


class ContextTooLong(ModelRejected):
    """`tokens` is what the prompt and the longest answer need, None where the server did not say."""

    told = "The request does not fit the model's window. Send less."

    def __init__(self, message: str, *, tokens: int | None = None, limit: int | None = None) -> None:
        super().__init__(message)
        self.tokens = tokens
        self.limit = limit


class OutputsUnavailable(LlmError):
    told = "The store of kept answers is away; it is tried again."


class StreamBroken(LlmError):
    told = "The answer broke off before it was complete. Ask again."


class PromptInvalid(LlmError):
    pass
