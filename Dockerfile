# To pin the base by digest: docker build --build-arg PYTHON_IMAGE=python:3.13-slim@sha256:...
ARG PYTHON_IMAGE=python:3.13-slim

FROM ${PYTHON_IMAGE} AS build
COPY deploy/requirements.txt /opt/fubd/requirements.txt
# Wheels only, each of a known hash: nothing is compiled and nothing of a stranger's runs. No pip goes into the last stage's environment.
RUN python -m venv --without-pip /opt/fubd/venv \
    && python -m pip --python /opt/fubd/venv/bin/python install \
        --disable-pip-version-check --no-cache-dir --only-binary :all: --require-hashes --requirement /opt/fubd/requirements.txt
COPY fubd /opt/fubd/app/fubd
# The file system may be read-only later, so the byte code is made now.
RUN /opt/fubd/venv/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/fubd/app

FROM ${PYTHON_IMAGE}
ENV PATH=/opt/fubd/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
COPY --from=build /opt/fubd /opt/fubd
WORKDIR /opt/fubd/app
USER 10001:10001
EXPOSE 8080
# For Docker alone: Railway asks /readyz at deploy time and never again. A process that is wedged ends itself.
HEALTHCHECK --interval=30s --timeout=5s --start-period=15s --retries=3 CMD ["python", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('PORT') or 8080), timeout=3); c.request('GET', '/healthz'); sys.exit(c.getresponse().status != 200)"]
# No shell in between: it would keep SIGTERM for itself.
CMD ["python", "-m", "fubd"]
