"""An agent that looks into the documents of a running Plumbline, and names where it found what it says.

    python deploy/examples/langchain_agent.py "How many days of paid leave do I get?" \\
        --model-url http://127.0.0.1:8000/v1 --model Qwen/Qwen3-8B

The model is any that calls tools, behind any OpenAI-compatible address (vLLM: `--enable-auto-tool-choice` and
its `--tool-call-parser`). Needs the extra `langchain`.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.prompts import PromptTemplate
from langchain_core.tools import BaseTool, create_retriever_tool
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from app.langchain_client import PlumblineError, PlumblineRetriever

RULES = (
    "Answer from the passages that search_documents finds, and from nothing else. Name the document that "
    "each statement rests on, in brackets. If the passages do not hold the answer, say so."
)


def search_tool(retriever: PlumblineRetriever) -> BaseTool:
    """The model reads each passage under its title and id; the documents are the message's artifact."""
    tool = create_retriever_tool(
        retriever,
        "search_documents",
        "Finds passages of the organisation's own documents that match a question.",
        document_prompt=PromptTemplate.from_template("[{document_id}] {title}\n{page_content}"),
        response_format="content_and_artifact",
    )
    # The model is told in a sentence what went wrong with its search, and can mend it or say so.
    tool.handle_tool_error = True
    return tool


def agent(model: BaseChatModel, retriever: PlumblineRetriever) -> Any:
    return create_agent(model, tools=[search_tool(retriever)], system_prompt=RULES)


def main() -> None:
    options = argparse.ArgumentParser(description="Ask an agent that searches in Plumbline.")
    options.add_argument("question")
    options.add_argument("--model-url", required=True, help="OpenAI-compatible; ends in /v1")
    options.add_argument("--model", required=True)
    options.add_argument("--url", default=os.environ.get("PLUMBLINE_URL", "http://127.0.0.1:8080"))
    asked = options.parse_args()
    key, model_key = os.environ.get("PLUMBLINE_KEY"), os.environ.get("OPENAI_API_KEY", "none")
    model = ChatOpenAI(
        base_url=asked.model_url,
        model=asked.model,
        api_key=SecretStr(model_key),
    )
    retriever = PlumblineRetriever(url=asked.url, key=SecretStr(key) if key else None, limit=5)
    try:
        found = agent(model, retriever).invoke({"messages": [{"role": "user", "content": asked.question}]})
    except PlumblineError as error:
        sys.exit(str(error))
    print(found["messages"][-1].text)


if __name__ == "__main__":
    main()
