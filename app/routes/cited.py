"""Citations, degradations and stages as every answering endpoint tells them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from app.types import Citation, Support, Usage
from retrieval.types import Span

_MARKER = re.compile(r"\[\s*(\d{1,4}(?:\s*,\s*\d{1,4})*)\s*\]")


def span_json(span: Span) -> dict[str, int]:
    return {"start": span.start, "end": span.end}


def citation_json(citation: Citation) -> dict[str, Any]:
    return {
        "number": citation.number,
        "document_id": citation.document_id,
        "chunk_id": citation.chunk_id,
        "title": citation.title,
        "heading": citation.heading,
        "page": citation.page,
        "span": span_json(citation.span),
        "text": citation.text,
        "url": passage_url(citation),
    }


def passage_url(citation: Citation) -> str | None:
    if not citation.document_id:
        return None
    return f"/v1/documents/{citation.document_id}/chunks/{citation.chunk_id}"


def url_citations(text: str, citations: Sequence[Citation]) -> list[dict[str, Any]]:
    """OpenAI's `url_citation` for every place where the text names a source."""
    known = {citation.number: citation for citation in citations}
    return [
        {
            "type": "url_citation",
            "url_citation": {
                "start_index": marker.start(),
                "end_index": marker.end(),
                "title": known[number].title,
                "url": passage_url(known[number]) or "",
            },
        }
        for marker in _MARKER.finditer(text)
        for number in map(int, marker[1].split(","))
        if number in known
    ]


def support_json(support: Support) -> dict[str, Any]:
    return {
        "sentence": support.sentence,
        "start": support.start,
        "end": support.end,
        "citations": support.citations,
        "verdict": support.verdict,
        "score": support.score,
        "reason": support.reason,
        "spans": support.spans,
    }


def share(support: Sequence[Support]) -> float | None:
    """The share of sentences that are supported, None without any."""
    if not support:
        return None
    return round(sum(one.verdict == "supported" for one in support) / len(support), 4)


def told(
    *,
    citations: Sequence[Citation],
    release: str,
    degraded: Sequence[str],
    stages: Mapping[str, float],
    model: str,
    support: Sequence[Support],
) -> dict[str, Any]:
    return {
        "citations": [citation_json(citation) for citation in citations],
        "release": release,
        "degraded": list(degraded),
        "stages": dict(stages),
        "model": model,
        "support": [support_json(one) for one in support],
        "supported": share(support),
    }


def usage_json(usage: Usage) -> dict[str, int]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.prompt_tokens + usage.output_tokens,
    }
