#!/usr/bin/env bash
# Builds the CPU and the RKNN image and works inside them. `make docker-test`, or: docker/test.sh [cpu|rknn]...
#   TOOL=buildah|docker|podman   the first that is here
#   BASE=IMAGE                   instead of the Dockerfile's
#   TORCH_INDEX=URL              instead of PyTorch's
#   BUILD_ARGS="--volume …"      further words for the builder, e.g. a mounted pip configuration
set -euo pipefail
cd "$(dirname "$0")/.."
tool=${TOOL:-$(for name in docker podman buildah; do command -v "$name" >/dev/null && "$name" info >/dev/null 2>&1 && echo "$name" && break; done || true)}
[ -n "$tool" ] || { echo "docker/test.sh: no docker, podman or buildah that works" >&2; exit 3; }
args=()
base=()  # only the CPU image's: the RKNN image stands on that one and has no BASE
[ -z "${BASE:-}" ] || base=(--build-arg "BASE=$BASE")
[ -z "${TORCH_INDEX+set}" ] || args+=(--build-arg "TORCH_INDEX=$TORCH_INDEX")
read -ra more <<<"${BUILD_ARGS:-}"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 777 "$work"

build() {  # IMAGE DOCKERFILE WORD...
  local start=$SECONDS words=("${args[@]}" "${more[@]}" "${@:3}" -t "$1" -f "$2")
  [ "$tool" = docker ] || words+=(--format docker)  # the OCI format drops HEALTHCHECK
  "$tool" build "${words[@]}" .
  echo "built $1 in $((SECONDS - start)) s"
}

run() {  # IMAGE ARGUMENT...
  local image=$1 made code=0
  shift
  if [ "$tool" != buildah ]; then "$tool" run --rm --network none -v "$work:/work" "$image" "$@"; return; fi
  made=$(buildah from "$image")  # buildah run ignores the entry point
  buildah run --volume "$work:/work" "$made" -- edge4d "$@" || code=$?
  buildah rm "$made" >/dev/null
  return "$code"
}

cp examples/moving_digits/model.py "$work/digits.py"
cp examples/moving_digits/moving_digits.pt "$work/"
export_it() {  # IMAGE ARGUMENT...
  run "$1" export moving_digits.pt --factory digits:build --input-shape 1x1x16x32x32 -o m.onnx --force "${@:2}"
}
for which in "${@:-cpu}"; do
  case $which in
    cpu)
      build edge4d docker/Dockerfile "${base[@]}"
      run edge4d doctor
      export_it edge4d
      run edge4d verify m.onnx
      run edge4d build m.onnx -r openvino
      run edge4d parity m.onnx m.openvino.xml
      if run edge4d build m.onnx -r rknn; then echo "rknn cannot be here" >&2; exit 1; else [ $? = 3 ]; fi
      ;;
    rknn)
      build edge4d-rknn docker/rknn.Dockerfile
      export_it edge4d-rknn --for rknn
      run edge4d-rknn build m.onnx -r rknn --device rk3588
      run edge4d-rknn parity m.onnx m.rknn
      ;;
    *) echo "docker/test.sh: cpu or rknn, got $which" >&2; exit 2 ;;
  esac
done
echo "images work: ${*:-cpu}"
