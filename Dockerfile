# The digest is one that public repositories pin for this tag; it was not looked up at the registry.
FROM python:3.13.16-slim-trixie@sha256:bf44cdfcb76cd3b41e879bc058fc37ec5872002ccfde7fcb765e218cde0cd79c AS build

ENV UV_COMPILE_BYTECODE=1 \
    UV_LINK_MODE=copy \
    UV_NO_CACHE=1 \
    UV_PYTHON=/usr/local/bin/python \
    UV_PYTHON_DOWNLOADS=never

RUN pip install --no-cache-dir uv==0.13.9

WORKDIR /app

COPY pyproject.toml uv.lock ./
RUN uv sync --locked --no-dev --no-editable --extra console --extra otel --extra sentry --no-install-project

COPY README.md LICENSE ./
COPY src ./src
COPY kratos_sync ./kratos_sync
# And a list of what is installed, as CycloneDX.
RUN uv sync --locked --no-dev --no-editable --extra console --extra otel --extra sentry \
 && uv export --locked --no-dev --extra console --extra otel --extra sentry --preview-features sbom-export \
    --quiet --format cyclonedx1.5 --output-file sbom.cdx.json


FROM python:3.13.16-slim-trixie@sha256:bf44cdfcb76cd3b41e879bc058fc37ec5872002ccfde7fcb765e218cde0cd79c

LABEL org.opencontainers.image.title="kratos-identity-sync" \
      org.opencontainers.image.description="Keeps an application's own copy of its Ory Kratos identities right" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0"

RUN groupadd --gid 10001 kratos-sync \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent \
            --shell /usr/sbin/nologin kratos-sync

# The same path as in the build: a virtual environment's scripts name their interpreter absolutely.
COPY --from=build /app/.venv /app/.venv
COPY --from=build /app/sbom.cdx.json /app/sbom.cdx.json

# Your own consumers are one line: COPY acme_sync /app/acme_sync, and KRATOS_SYNC_APP=acme_sync:app.
ENV PATH="/app/.venv/bin:$PATH" \
    PYTHONPATH=/app \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    METRICS_PORT=9100

WORKDIR /app
USER 10001:10001
EXPOSE 8000 8100

# Of the process in the container, whichever it is; on loopback unless METRICS_HOST is set.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
    CMD ["kratos-sync", "healthcheck"]

ENTRYPOINT ["kratos-sync"]
CMD ["--help"]
