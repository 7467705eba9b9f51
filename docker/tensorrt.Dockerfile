# edge4d with full TensorRT on NVIDIA's base. Run it with --gpus all; TensorRT builds for the GPU that it sees.
#   docker build -f docker/tensorrt.Dockerfile -t edge4d-tensorrt .
ARG BASE=nvcr.io/nvidia/tensorrt:25.09-py3
# hadolint ignore=DL3006
FROM ${BASE}
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY edge4d edge4d
COPY exporters exporters
COPY validators validators
# The base's own tensorrt is seen through --system-site-packages; it belongs to its CUDA, so it is not pinned here.
RUN python3 -m venv --system-site-packages /opt/edge4d \
 && /opt/edge4d/bin/pip install -c constraints.txt setuptools wheel \
 && /opt/edge4d/bin/pip install -c constraints.txt --extra-index-url "${TORCH_INDEX}" torch \
 && /opt/edge4d/bin/pip install -c constraints.txt --no-build-isolation '.[onnxruntime]' cuda-bindings \
 && useradd --create-home --uid 10001 edge4d
ENV PATH=/opt/edge4d/bin:$PATH
USER 10001
WORKDIR /work
HEALTHCHECK --interval=5m --timeout=60s CMD ["edge4d", "doctor"]
ENTRYPOINT ["edge4d"]
CMD ["--help"]
