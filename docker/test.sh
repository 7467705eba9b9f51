#!/usr/bin/env bash
# Builds the images and works inside them. `make docker-test`, or: docker/test.sh [cpu|rknn|tensorrt]...
#   TOOL=buildah|docker|podman   the first that is here
#   BASE=IMAGE                   instead of the CPU image's base
#   TENSORRT_BASE=IMAGE          instead of NVIDIA's; what needs a GPU or TensorRT itself is then only refused properly
#   TORCH_INDEX=URL              instead of PyTorch's
#   BUILD_ARGS="--volume …"      further words for the builder, e.g. a mounted pip configuration
set -euo pipefail
cd "$(dirname "$0")/.."
tool=${TOOL:-$(for name in docker podman buildah; do command -v "$name" >/dev/null && "$name" info >/dev/null 2>&1 && echo "$name" && break; done || true)}
[ -n "$tool" ] || { echo "docker/test.sh: no docker, podman or buildah that works" >&2; exit 3; }
args=()
base=()  # only the CPU image's: the RKNN image stands on that one and has no BASE
[ -z "${BASE:-}" ] || base=(--build-arg "BASE=$BASE")
nvidia=()
[ -z "${TENSORRT_BASE:-}" ] || nvidia=(--build-arg "BASE=$TENSORRT_BASE")
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
  local image=$1
  shift
  inside "$image" edge4d "$@"
}

inside() {  # IMAGE PROGRAM ARGUMENT...
  local image=$1 program=$2 made code=0
  shift 2
  if [ "$tool" != buildah ]; then
    "$tool" run --rm --network none -v "$work:/work" --entrypoint "$program" "$image" "$@"
    return
  fi
  made=$(buildah from "$image")  # buildah run ignores the entry point
  buildah run --volume "$work:/work" "$made" -- "$program" "$@" || code=$?
  buildah rm "$made" >/dev/null
  return "$code"
}

expect() {  # EXIT-CODE COMMAND...
  local want=$1 code=0
  shift
  "$@" || code=$?
  [ "$code" = "$want" ] || { echo "docker/test.sh: exit code $code, expected $want: $*" >&2; exit 1; }
}

no_root() {  # IMAGE
  local user
  inside "$1" sh -c 'id -u >/work/user'  # by a file: under load buildah loses what a short program prints
  user=$(cat "$work/user")
  rm -f "$work/user"
  [ "$user" = 10001 ] || { echo "docker/test.sh: $1 runs as user $user, expected 10001" >&2; exit 1; }
}

size() {  # IMAGE
  case $tool in
    buildah) buildah images --format '{{.Name}} {{.Size}}' --filter "reference=$1" ;;
    *) "$tool" images --format '{{.Repository}} {{.Size}}' "$1" ;;
  esac
}

cp examples/moving_digits/model.py "$work/digits.py"
cp examples/moving_digits/moving_digits.pt "$work/"
export_it() {  # IMAGE ARGUMENT...
  run "$1" export moving_digits.pt --factory digits:build --input-shape 1x1x16x32x32 -o m.onnx --force "${@:2}"
}
for which in "${@:-cpu}"; do
  rm -f "$work"/m.*
  case $which in
    cpu)
      build edge4d docker/Dockerfile "${base[@]}"
      no_root edge4d
      run edge4d doctor
      export_it edge4d
      run edge4d verify m.onnx --profile rknn
      for runtime in onnxruntime openvino; do run edge4d build m.onnx -r "$runtime"; done
      run edge4d parity m.onnx m.onnxruntime.onnx m.openvino.xml
      run edge4d bench m.onnx m.onnxruntime.onnx m.openvino.xml --rounds 2
      expect 3 run edge4d build m.onnx -r rknn  # is not in this image, and says so
      size edge4d
      ;;
    rknn)
      build edge4d-rknn docker/rknn.Dockerfile
      no_root edge4d-rknn
      export_it edge4d-rknn --for rknn
      run edge4d-rknn verify m.onnx --profile rknn
      run edge4d-rknn build m.onnx -r rknn --device rk3588
      run edge4d-rknn parity m.onnx m.rknn
      size edge4d-rknn
      ;;
    tensorrt)
      build edge4d-tensorrt docker/tensorrt.Dockerfile "${nvidia[@]}"
      no_root edge4d-tensorrt
      run edge4d-tensorrt doctor
      export_it edge4d-tensorrt --for tensorrt
      run edge4d-tensorrt verify m.onnx
      # Without a GPU TensorRT builds nothing: the build must be refused, not crash.
      if [ -n "${GPU:-}" ]; then run edge4d-tensorrt build m.onnx -r tensorrt; else expect 3 run edge4d-tensorrt build m.onnx -r tensorrt; fi
      size edge4d-tensorrt
      ;;
    *) echo "docker/test.sh: cpu, rknn or tensorrt, got $which" >&2; exit 2 ;;
  esac
done
echo "images work: ${*:-cpu}"
