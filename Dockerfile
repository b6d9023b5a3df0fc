# One image for every pod: head, workers, jobs and the served graph.
# docker build -t guidelens:0.1.0 .
# CPU only: --build-arg PIP_ARGS="…" with the options that make pip find a CPU build of the locked torch.

FROM node:20-bookworm-slim AS web
WORKDIR /web
COPY serve/web/package.json serve/web/package-lock.json serve/web/.npmrc serve/web/vendor.mjs ./
RUN npm ci --omit=dev --no-audit --no-fund

FROM python:3.11-slim-bookworm AS build
ARG PIP_ARGS=""
WORKDIR /opt/guidelens
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
COPY requirements.lock ./
RUN pip install --no-cache-dir $PIP_ARGS -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY platform ./platform
COPY pipelines ./pipelines
COPY feature_repo ./feature_repo
COPY serve ./serve
COPY --from=web /web/vendor ./serve/web/vendor
RUN pip install --no-cache-dir --no-deps --no-build-isolation -e .

FROM python:3.11-slim-bookworm
# KubeRay's probes call bash and wget inside the container.
RUN apt-get update && apt-get install -y --no-install-recommends wget && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --create-home guidelens && install -d -o guidelens -g guidelens /var/lib/guidelens
COPY --from=build /opt/venv /opt/venv
COPY --from=build --chown=root:root /opt/guidelens /opt/guidelens
# A job's code must lie under its working folder (pipelines/cluster.py), so the image runs the sources in place.
WORKDIR /opt/guidelens
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/opt/guidelens:/opt/guidelens/platform \
    PYTHONUNBUFFERED=1 \
    GUIDELENS_HOME=/var/lib/guidelens
USER 10001
EXPOSE 8000
CMD ["guidelens", "--help"]
