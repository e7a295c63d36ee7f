"""What a language model may do here: the tools of `/mcp`, each of which asks what a route answers.

All of them only read. Their arguments are the routes' own, fewer of them and described for a model. Knows
nothing of the protocol.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, cast

from fastapi.exceptions import RequestValidationError
from pydantic import AfterValidator, BaseModel, Field, ValidationError, model_validator
from starlette.types import Receive

from app import access, excerpts, pages
from app.deadline import within
from app.errors import RequestInvalid
from app.routes import filters, results
from app.routes.bodies import CollectionName, DocumentId, Flag, Strict, Text, Whole, not_empty
from app.routes.caller import Inquiry
from app.routes.chat import completion
from app.routes.cited import span_json
from app.routes.collections import collections_of
from app.routes.documents import documents_of
from app.routes.openai import CONVERSATION, ChatRequest
from app.routes.search import SearchRequest, hits_of
from app.routes.source import LONGEST
from app.routes.summarize import Heard, SummarizeRequest, summary_of
from ingestion.errors import NotFound

Call = Callable[[Any, Inquiry, Receive, Heard], Awaitable[dict[str, Any]]]
"""Answers validated arguments. It raises what the route raises, and `ClientGone` when the caller hangs up."""

Collections = Annotated[list[CollectionName], AfterValidator(not_empty), Field(max_length=50)]
DocumentIds = Annotated[list[DocumentId], AfterValidator(not_empty), Field(max_length=200)]


class Where(Strict):
    collections: Collections = Field(
        default_factory=list, description="Only these collections; left out, all that may be read."
    )
    document_ids: DocumentIds = Field(
        default_factory=list, description="Only these documents; left out, all that may be read."
    )
    filter: dict[str, Any] = Field(
        default_factory=dict, description=filters.DESCRIPTION, examples=filters.EXAMPLES
    )


class SearchArguments(Where):
    query: Text = Field(description="What to look for, in plain words or as a question.")
    limit: Annotated[Whole, Field(ge=1, le=100)] = Field(10, description="At most this many passages.")
    group_by_document: Flag = Field(False, description="True: only the best passage of each document.")
    after: Annotated[Text, Field(max_length=pages.LONGEST)] | None = Field(
        None, description="`next` of the page before, to go on with the same query."
    )


class AskArguments(Where):
    question: Text = Field(description="One whole question, to be understood without any before it.")
    conversation: Annotated[str, Field(pattern=CONVERSATION)] | None = Field(
        None, description="`conversation` of the answer before, if this question belongs to the same talk."
    )


class SummarizeArguments(Strict):
    """Documents or collections; or a focus alone, for everything that may be read."""

    document_ids: DocumentIds = Field(default_factory=list, description="The documents to summarize.")
    collections: Collections = Field(default_factory=list, description="The collections to summarize.")
    focus: Text = Field("", max_length=8_000, description="A question for the summary to answer.")
    max_words: Annotated[Whole, Field(ge=10, le=2_000)] = 200

    @model_validator(mode="after")
    def _named(self) -> SummarizeArguments:
        if self.document_ids and self.collections:
            raise ValueError("name `document_ids` or `collections`, not both")
        if not (self.document_ids or self.collections or self.focus.strip()):
            raise ValueError("name `document_ids` or `collections`, or a `focus` alone")
        return self


class ReadArguments(Strict):
    document_id: DocumentId = Field(description="As `search`, `ask` and `list_documents` tell it.")
    offset: Annotated[Whole, Field(ge=0, le=2**31)] = Field(
        0, description="First character: 0, `next_offset` of the page before, or the start of a span."
    )
    length: Annotated[Whole, Field(ge=1, le=LONGEST)] = Field(20_000, description="At most as many.")


class DocumentsArguments(Strict):
    collection: CollectionName | None = Field(None, description="Only of this collection.")
    named: Annotated[Text, Field(max_length=200)] = Field(
        "", description="Words that all stand in a document's title, file name or id."
    )
    after: Annotated[Text, Field(max_length=1_000)] | None = Field(
        None, description="`next` of the page before."
    )
    limit: Annotated[Whole, Field(ge=1, le=500)] = 100


class CollectionsArguments(Strict):
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """`arguments` are what it takes, `result` what it returns of what `call` does."""

    name: str
    title: str
    description: str
    arguments: type[Strict]
    result: type[BaseModel]
    call: Call

    @property
    def input_schema(self) -> dict[str, Any]:
        return _plain(self.arguments.model_json_schema())

    @property
    def output_schema(self) -> dict[str, Any]:
        return _plain(self.result.model_json_schema(mode="serialization"))

    async def answer(
        self, arguments: Mapping[str, Any], inquiry: Inquiry, receive: Receive, heard: Heard
    ) -> dict[str, Any]:
        """Raises `RequestValidationError` for arguments that the schema does not allow."""
        try:
            asked = self.arguments.model_validate(arguments)
        except ValidationError as error:
            wrong = [{**one, "loc": ("arguments", *one["loc"])} for one in error.errors()]
            raise RequestValidationError(wrong) from None
        told = await self.call(asked, inquiry, receive, heard)
        return self.result.model_validate(told).model_dump(mode="json")


def _plain(schema: dict[str, Any]) -> dict[str, Any]:
    return cast(dict[str, Any], _untitled(schema))


def _untitled(schema: Any) -> Any:
    """Without the titles that pydantic makes of names, which every call would pay for in tokens."""
    if isinstance(schema, list):
        return [_untitled(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        name: _untitled(value)
        for name, value in schema.items()
        if not (name == "title" and isinstance(value, str))
    }


async def _search(asked: SearchArguments, inquiry: Inquiry, receive: Receive, heard: Heard) -> dict[str, Any]:
    group = "document" if asked.group_by_document else "chunk"
    stated = {"query": asked.query, "limit": asked.limit, "group": group, "after": asked.after}
    stated |= _selection(asked)
    return await hits_of(SearchRequest.model_validate(stated), inquiry, receive)


async def _ask(asked: AskArguments, inquiry: Inquiry, receive: Receive, heard: Heard) -> dict[str, Any]:
    # Chat looks at it, too, but calls the place by a name that this tool's caller does not know.
    filters.condition(asked.filter, "filter")
    message = {"role": "user", "content": asked.question}
    extra = {**_selection(asked), "conversation": asked.conversation}
    body = ChatRequest.model_validate({"messages": [message], "plumbline": extra})
    try:
        told = await completion(body, inquiry, receive)
    except RequestInvalid as error:
        param = "question" if (error.param or "").startswith("messages") else error.param
        raise RequestInvalid(str(error), param, error.code) from None
    except NotFound as error:
        error.param = (error.param or "").removeprefix("plumbline.") or None
        raise
    return {"answer": told["choices"][0]["message"]["content"], **told["plumbline"]}


async def _summarize(
    asked: SummarizeArguments, inquiry: Inquiry, receive: Receive, heard: Heard
) -> dict[str, Any]:
    stated = {
        "document_ids": asked.document_ids or None,
        "collections": asked.collections or None,
        "focus": asked.focus or None,
        "max_words": asked.max_words,
    }
    told = await summary_of(SummarizeRequest.model_validate(stated), inquiry, receive, heard)
    return {"summary": told["text"], **told}


async def _read(asked: ReadArguments, inquiry: Inquiry, receive: Receive, heard: Heard) -> dict[str, Any]:
    where = access.filter_for(inquiry.caller, document_ids=[asked.document_id])
    index = inquiry.parts.current().index
    async with within(inquiry.deadline, "reading"):
        page = await excerpts.page(index, where, asked.document_id, asked.offset, asked.length)
    if asked.offset and asked.offset >= page.length:
        raise RequestInvalid(f"`offset`: the document has {page.length:,} characters.", "offset")
    return {
        "document_id": asked.document_id,
        "title": page.title,
        "span": span_json(page.span),
        "text": page.text,
        "length": page.length,
        "next_offset": page.span.end if page.span.end < page.length else None,
    }


async def _list_documents(
    asked: DocumentsArguments, inquiry: Inquiry, receive: Receive, heard: Heard
) -> dict[str, Any]:
    async with within(inquiry.deadline, "listing"):
        return await documents_of(
            inquiry.parts,
            inquiry.caller,
            collection=asked.collection,
            named=asked.named,
            after=asked.after,
            limit=asked.limit,
        )


async def _list_collections(
    asked: CollectionsArguments, inquiry: Inquiry, receive: Receive, heard: Heard
) -> dict[str, Any]:
    async with within(inquiry.deadline, "listing"):
        return await collections_of(inquiry.parts, inquiry.caller)


def _selection(asked: Where) -> dict[str, Any]:
    """What is named of it: to a route an empty list is a mistake."""
    named = {"collections": asked.collections, "document_ids": asked.document_ids, "filter": asked.filter}
    return {name: value for name, value in named.items() if value}


TOOLS = (
    Tool(
        name="search",
        title="Search the documents",
        description="Find the passages of the organisation's documents that match a question, best first. "
        "Use it to gather material; use `ask` for a finished answer.",
        arguments=SearchArguments,
        result=results.SearchResult,
        call=_search,
    ),
    Tool(
        name="ask",
        title="Ask the documents",
        description="Answer a question from the organisation's documents. The answer cites its sources as "
        "`[number]`. If `answered` is false, the documents do not hold the answer: say so. `degraded` names "
        "what the answer had to do without: with `index` among it, documents could not be searched.",
        arguments=AskArguments,
        result=results.AskResult,
        call=_ask,
    ),
    Tool(
        name="summarize",
        title="Summarize documents",
        description="Summarize documents or whole collections, with citations; or, with a `focus` alone, "
        "what all documents say about it.",
        arguments=SummarizeArguments,
        result=results.SummaryResult,
        call=_summarize,
    ),
    Tool(
        name="read_document",
        title="Read a document",
        description="Read the text of one document, page by page. Pass `next_offset` as `offset` to read on.",
        arguments=ReadArguments,
        result=results.PageResult,
        call=_read,
    ),
    Tool(
        name="list_documents",
        title="List documents",
        description="List the documents that may be read, in the order of their ids, page by page.",
        arguments=DocumentsArguments,
        result=results.DocumentsResult,
        call=_list_documents,
    ),
    Tool(
        name="list_collections",
        title="List collections",
        description="List the collections of documents, and how many documents each has.",
        arguments=CollectionsArguments,
        result=results.CollectionsResult,
        call=_list_collections,
    ),
)
