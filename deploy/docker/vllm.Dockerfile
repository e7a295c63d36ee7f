# The served model: vLLM's own image, with the flags that Plumbline relies on.
#   docker build -f deploy/docker/vllm.Dockerfile -t plumbline-vllm .
FROM vllm/vllm-openai:v0.20.2
ENV VLLM_NO_USAGE_STATS=1
# As `plumbline release serve-command` has them. Prefix caching pays because prompts are stable from the front.
ENTRYPOINT ["python3", "-m", "vllm.entrypoints.openai.api_server", "--host", "0.0.0.0", "--port", "8000", "--enable-prefix-caching", "--enable-chunked-prefill", "--scheduling-policy", "priority", "--disable-uvicorn-access-log"]
CMD ["--model", "Qwen/Qwen3-8B", "--max-model-len", "16384"]
