"""Run by the peer's own Python: embeds chunks with sentence-transformers and adds them to Milvus Lite through
langchain-milvus, and prints how long that took as JSON.

    python -I peer_langchain.py CHUNKS MODEL DATABASE
"""

import json
import sys
import time
from importlib.metadata import version
from pathlib import Path

from langchain_huggingface import HuggingFaceEmbeddings  # type: ignore[import-not-found,unused-ignore]
from langchain_milvus import Milvus  # type: ignore[import-not-found,unused-ignore]

PACKAGES = ("langchain-milvus", "langchain-huggingface", "sentence-transformers", "torch", "milvus-lite")
AT_ONCE = 1_000


def main(chunks: Path, model: str, database: str) -> None:
    texts = [json.loads(line) for line in chunks.read_text(encoding="utf-8").split("\n") if line]
    embeddings = HuggingFaceEmbeddings(
        model_name=model, encode_kwargs={"normalize_embeddings": True, "batch_size": 32}
    )
    embeddings.embed_documents(texts[:64])
    store = Milvus(
        embedding_function=embeddings,
        connection_args={"uri": database},
        auto_id=True,
        index_params={"index_type": "FLAT", "metric_type": "COSINE"},
    )
    begin = time.perf_counter()
    for start in range(0, len(texts), AT_ONCE):
        store.add_texts(texts[start : start + AT_ONCE], batch_size=AT_ONCE)
    seconds = time.perf_counter() - begin
    versions = {name: version(name) for name in PACKAGES}
    print(json.dumps({"seconds": round(seconds, 2), "versions": versions}))  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
