# edge4d with Rockchip's compiler and simulator, each under an interpreter of its own: their pins clash.
#   docker build -f docker/Dockerfile -t edge4d . && docker build -f docker/rknn.Dockerfile -t edge4d-rknn .
ARG EDGE4D=edge4d
# hadolint ignore=DL3006
FROM ${EDGE4D}
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
USER 0
COPY docker/rknn-constraints.txt /opt/rknn-constraints.txt
# --no-deps: the toolkit asks for an older torch and for the OpenCV that needs a display; the pins work as well.
RUN python3 -c 'import sys; sys.exit(sys.version_info[:2] > (3, 12))' \
 && "$(readlink -f "$(command -v python3)")" -m venv /opt/rknn \
 && /opt/rknn/bin/pip install --extra-index-url "${TORCH_INDEX}" -c /opt/rknn-constraints.txt torch numpy onnx onnxruntime protobuf \
    opencv-python-headless fast-histogram ruamel.yaml scipy psutil tqdm setuptools \
 && /opt/rknn/bin/pip install --no-deps -c /opt/rknn-constraints.txt rknn-toolkit2
ENV EDGE4D_RKNN_PYTHON=/opt/rknn/bin/python
USER 10001
