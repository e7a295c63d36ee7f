"""Names of spans and attributes, in one place.

The GenAI conventions of OpenTelemetry are still in development: these are version 1.41's, and changing
them here changes them everywhere. Ours begin with `plumbline.`.
"""

from __future__ import annotations

from typing import Final

OPERATION: Final = "gen_ai.operation.name"
PROVIDER: Final = "gen_ai.provider.name"
REQUEST_MODEL: Final = "gen_ai.request.model"
REQUEST_TEMPERATURE: Final = "gen_ai.request.temperature"
REQUEST_TOP_P: Final = "gen_ai.request.top_p"
REQUEST_MAX_TOKENS: Final = "gen_ai.request.max_tokens"
REQUEST_STREAM: Final = "gen_ai.request.stream"
RESPONSE_MODEL: Final = "gen_ai.response.model"
RESPONSE_FINISH: Final = "gen_ai.response.finish_reasons"
FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"
INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
DIMENSIONS: Final = "gen_ai.embeddings.dimension.count"
DB_SYSTEM: Final = "db.system.name"
DATA_SOURCE: Final = "gen_ai.data_source.id"
CONVERSATION: Final = "gen_ai.conversation.id"
PROMPT_NAME: Final = "gen_ai.prompt.name"
ERROR_TYPE: Final = "error.type"
RESPONSE_ID: Final = "gen_ai.response.id"
EVALUATION_RESULT: Final = "gen_ai.evaluation.result"
EVALUATION_NAME: Final = "gen_ai.evaluation.name"
EVALUATION_SCORE: Final = "gen_ai.evaluation.score.value"
EVALUATION_EXPLANATION: Final = "gen_ai.evaluation.explanation"

METHOD: Final = "http.request.method"
ROUTE: Final = "http.route"
STATUS: Final = "http.response.status_code"
SCHEME: Final = "url.scheme"
PATH: Final = "url.path"
PROTOCOL: Final = "network.protocol.version"
ADDRESS: Final = "server.address"
PORT: Final = "server.port"

CHAT: Final = "chat"
EMBEDDINGS: Final = "embeddings"
RETRIEVAL: Final = "retrieval"

RELEASE: Final = "plumbline.release"
REQUEST_ID: Final = "plumbline.request_id"
DEGRADED: Final = "plumbline.degraded"
CACHED: Final = "plumbline.cached"
PROMPT_VERSION: Final = "plumbline.prompt.version"
ARM: Final = "plumbline.search.arm"
HITS: Final = "plumbline.search.hits"
TEXTS: Final = "plumbline.embeddings.texts"
ROWS: Final = "plumbline.index.rows"
EVALUATION_DATASET: Final = "plumbline.evaluation.dataset"
EVALUATION_CASE: Final = "plumbline.evaluation.case"
JOB: Final = "plumbline.job.id"
JOB_OUTCOME: Final = "plumbline.job.outcome"
JOB_ATTEMPT: Final = "plumbline.job.attempt"
JOB_CHUNKS: Final = "plumbline.job.chunks"
