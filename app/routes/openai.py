"""The part of OpenAI's chat request that this service takes.

Fields that change nothing here are accepted when they ask for what happens anyway (`n=1`, `tools=[]`);
those that ask for something else are refused by name, never ignored.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, cast

from pydantic import BeforeValidator, Field

from app.errors import RequestInvalid
from app.routes.bodies import Flag, Selection, Strict, Whole, such_as
from llm.types import Message

MOST_MESSAGES = 200
MOST_HISTORY = 20
"""The whole conversation may be as long as this many questions."""

CONVERSATION = r"^[A-Za-z0-9._:-]{1,128}$"

Role = Literal["system", "developer", "user", "assistant", "tool", "function"]
_ROLES: dict[str, Literal["system", "user", "assistant"]] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
}


def _as_parts(content: Any) -> Any:
    """A text as the one part that it is. Of a union, errors would be told by the parser's names."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if isinstance(content, list) and all(isinstance(part, dict) for part in content):
        return content
    raise ValueError("a text is needed, or a list of parts")


def _as_list(stop: Any) -> Any:
    if isinstance(stop, str):
        return [stop]
    if isinstance(stop, list) and all(isinstance(one, str) for one in stop):
        return stop
    raise ValueError("a text is needed, or a list of texts")


Content = Annotated[
    list[dict[str, Any]],
    BeforeValidator(_as_parts, json_schema_input_type=str | list[dict[str, Any]]),
]
Stop = Annotated[list[str], BeforeValidator(_as_list, json_schema_input_type=str | list[str])]


class ChatMessage(Strict):
    role: Role
    content: Content | None = None
    name: str | None = None
    refusal: str | None = None
    annotations: list[Any] | None = None
    audio: Any = None
    function_call: Any = None
    tool_calls: list[Any] | None = None
    tool_call_id: str | None = None
    plumbline: Any = None


class StreamOptions(Strict):
    include_usage: Flag | None = None
    include_obfuscation: Flag | None = None


class Extra(Selection):
    """Our own additions to the request."""

    cache: Flag = Field(default=True, description="False neither reads nor writes cached outputs.")
    conversation: Annotated[str, Field(pattern=CONVERSATION)] | None = Field(
        default=None,
        description="The conversation's id; made up, and told in the reply, where there is none.",
    )


class ChatRequest(Strict):
    """Fields that ask for what this service does not do are refused by name. Those that say nothing to it,
    such as `user`, `store` and `metadata`, are taken and change nothing."""

    model_config = such_as(
        {
            "model": "plumbline",
            "messages": [{"role": "user", "content": "How many days of paid leave do I get?"}],
        },
        {
            "messages": [{"role": "user", "content": "How many days of paid leave do I get?"}],
            "stream": True,
            "stream_options": {"include_usage": True},
            "temperature": 0,
            "plumbline": {"collection": "default", "filter": {"lang": "en"}},
        },
    )

    model: str = Field("plumbline", min_length=1, max_length=200)
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MOST_MESSAGES)]
    stream: Flag | None = False
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[Whole, Field(gt=0, le=1_000_000)] | None = None
    max_completion_tokens: Annotated[Whole, Field(gt=0, le=1_000_000)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None
    seed: Annotated[Whole, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Stop | None = None
    plumbline: Extra = Extra()

    # Known to OpenAI's clients; `refuse_unsupported` says which values of them are taken.
    n: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logprobs: Flag | None = None
    top_logprobs: int | None = None
    logit_bias: dict[str, float] | None = None
    response_format: dict[str, Any] | None = None
    tools: list[Any] | None = None
    tool_choice: Any = None
    functions: list[Any] | None = None
    function_call: Any = None
    modalities: list[str] | None = None
    audio: Any = None
    prediction: Any = None
    web_search_options: Any = None
    reasoning_effort: str | None = None
    verbosity: str | None = None

    # Change nothing here, whatever they say.
    parallel_tool_calls: Flag | None = None
    user: str | None = None
    metadata: dict[str, Any] | None = None
    store: Flag | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None

    @property
    def most_tokens(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    @property
    def stops(self) -> tuple[str, ...]:
        stops = tuple(self.stop or ())
        if len(stops) > 4 or not all(0 < len(stop) <= 200 for stop in stops):
            raise RequestInvalid("`stop`: at most 4 texts of 1 to 200 characters.", "stop")
        return stops

    @property
    def include_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)


_TAKEN: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "response_format": ({"type": "text"},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "web_search_options": (),
    "reasoning_effort": ("none",),
    "verbosity": ("medium",),
}


def refuse_unsupported(request: ChatRequest) -> None:
    for name in [name for name in _TAKEN if name in request.model_fields_set]:
        value, taken = getattr(request, name), _TAKEN[name]
        if value is not None and value not in taken:
            only = f"; leave it out or send {' or '.join(map(repr, taken))}" if taken else "; leave it out"
            raise RequestInvalid(
                f"`{name}` with this value is not supported here{only}.", name, "unsupported_parameter"
            )


def messages_of(request: ChatRequest, question_limit: int) -> tuple[Message, ...]:
    """The conversation in our words, the question last, within the limits."""
    messages = tuple(_message(message, i) for i, message in enumerate(request.messages))
    last = f"messages[{len(messages) - 1}]"
    question = messages[-1]
    if question.role != "user":
        raise RequestInvalid("The last message must be the user's question.", f"{last}.role")
    if not question.content.strip():
        raise RequestInvalid("The question is empty.", f"{last}.content")
    if len(question.content) > question_limit:
        raise RequestInvalid(
            f"The question has {len(question.content)} characters; at most {question_limit} are answered. "
            "Shorten it, or upload the text as a document and ask about that.",
            f"{last}.content",
            "context_length_exceeded",
        )
    if sum(len(message.content) for message in messages) > MOST_HISTORY * question_limit:
        raise RequestInvalid(
            f"The conversation is longer than {MOST_HISTORY * question_limit} characters. Leave out the "
            "oldest messages.",
            "messages",
            "context_length_exceeded",
        )
    return messages


def _message(message: ChatMessage, position: int) -> Message:
    param = f"messages[{position}]"
    role = _ROLES.get(message.role)
    if role is None or message.tool_calls or message.function_call or message.audio:
        raise RequestInvalid("Messages of tools, functions and audio are not supported.", param)
    return Message(role, _content(message, f"{param}.content"))


def _content(message: ChatMessage, param: str) -> str:
    if message.content is None:
        if message.role == "assistant":
            return ""
        raise RequestInvalid(f"The field `{param}` is missing.", param, "missing_required_parameter")
    text = "".join(_parts(message.content, param))
    if "\x00" in text:
        raise RequestInvalid(f"`{param}` must not hold the character U+0000.", param)
    return text


def _parts(parts: list[dict[str, Any]], param: str) -> list[str]:
    for i, part in enumerate(parts):
        if part.get("type") != "text" or not isinstance(part.get("text"), str):
            kind = str(part.get("type"))[:40]
            raise RequestInvalid(
                f"Content of type {kind!r} is not supported: send text.",
                f"{param}[{i}]",
                "unsupported_content",
            )
    return [cast(str, part["text"]) for part in parts]
