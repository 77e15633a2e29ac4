# Pin the base image by digest with --build-arg PYTHON_IMAGE=python:3.13-slim@sha256:... This command prints the current digest:
#     docker buildx imagetools inspect python:3.13-slim --format '{{.Manifest.Digest}}'
ARG PYTHON_IMAGE=python:3.13-slim

FROM ${PYTHON_IMAGE} AS build
COPY deploy/requirements.txt /opt/fubd/requirements.txt
# Only wheels with known hashes: nothing is compiled, and no setup script runs. The final environment has no pip.
RUN python -m venv --without-pip /opt/fubd/venv \
    && python -m pip --python /opt/fubd/venv/bin/python install \
        --disable-pip-version-check --no-cache-dir --only-binary :all: --require-hashes --requirement /opt/fubd/requirements.txt
COPY fubd /opt/fubd/app/fubd
# The file system may be read-only at run time, so the byte code is compiled now.
RUN /opt/fubd/venv/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/fubd/app

FROM ${PYTHON_IMAGE}
ENV PATH=/opt/fubd/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
COPY --from=build /opt/fubd /opt/fubd
WORKDIR /opt/fubd/app
USER 10001:10001
EXPOSE 8080
# For Docker only: Railway checks /readyz at deploy time and never again. A stalled process ends itself.
HEALTHCHECK --interval=30s --timeout=5s --start-period=15s --retries=3 CMD ["python", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('PORT') or 8080), timeout=3); c.request('GET', '/healthz'); sys.exit(c.getresponse().status != 200)"]
# Without a shell, which would not pass SIGTERM on.
CMD ["python", "-m", "fubd"]
