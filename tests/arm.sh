#!/bin/sh
# Build both cores for arm64 on another Linux machine, and run tests of kernels under qemu. `make arm` calls this.
#
# Needs Debian's packages qemu-user and g++-aarch64-linux-gnu. Python and its libraries for arm64 are unpacked under
# build/arm, from the same release of Debian, and so are the wheels: nothing is installed on the system.
#
#     tests/arm.sh PYTHON [ARGUMENT_OF_PYTEST ...]
#
# PYTHON has cmake, ninja and nanobind, and its version is that of Debian's python3.
set -eu
cd "$(dirname "$0")/.."
bin=$(dirname "$1")
shift
arm=$PWD/build/arm
for tool in qemu-aarch64 aarch64-linux-gnu-g++; do
    command -v $tool > /dev/null || { echo "$tool is missing: apt install qemu-user g++-aarch64-linux-gnu" >&2; exit 1; }
done
export PATH="$bin:$PATH"
mkdir -p "$arm"

# --- Python and its libraries, from Debian, by an apt with a state of its own ---

if [ ! -e "$arm/root/done" ]; then
    echo "downloading Debian's Python for arm64"
    mkdir -p "$arm/apt/lists/partial" "$arm/apt/archives/partial" "$arm/root"
    apt() {
        apt-get -qq -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o APT::Sandbox::User= \
            -o Dir::State="$arm/apt" -o Dir::State::status=/dev/null -o Dir::Cache="$arm/apt" "$@"
    }
    apt update || true  # sources without arm64 are no matter
    apt install --yes --no-install-recommends --download-only python3 python3-dev libstdc++6 libgomp1
    for package in "$arm"/apt/archives/*.deb; do dpkg --extract "$package" "$arm/root"; done
    touch "$arm/root/done"
fi
version=$(basename "$(readlink "$arm/root/usr/bin/python3")" | sed s/python//)
"$bin/python" -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$version')" || {
    echo "Debian's Python is $version, and $bin/python is another: make clean && make arm PYTHON=python$version" >&2
    exit 1
}

# --- wheels ---

# pip takes this machine for the target where a requirement depends on the machine, so torch comes without its
# requirements. Later versions of torch for arm64 need CUDA's libraries.
if [ ! -e "$arm/site/done" ]; then
    echo "downloading wheels for arm64"
    grep -v '^torch==' constraints.txt > "$arm/constraints.txt"
    platforms=
    for glibc in 2014 _2_17 _2_24 _2_26 _2_27 _2_28 _2_31 _2_34; do
        platforms="$platforms --platform manylinux${glibc}_aarch64"
    done
    wheels() {
        "$bin/pip" install --disable-pip-version-check --quiet --only-binary=:all: --python-version "$version" \
            $platforms --constraint "$arm/constraints.txt" --upgrade --target "$arm/site" "$@" 2> "$arm/pip.log" ||
            { cat "$arm/pip.log" >&2; exit 1; }
    }
    wheels numpy regex click matplotlib safetensors gguf pytest hypothesis tiktoken tokenizers huggingface_hub tqdm bpe-openai \
        sympy networkx jinja2 filelock fsspec typing-extensions
    wheels --no-deps 'torch==2.9.1' llama-models
    touch "$arm/site/done"
fi

# --- the cores ---

cmake -S . -B "$arm/cores" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_SYSTEM_NAME=Linux \
    -DCMAKE_SYSTEM_PROCESSOR=aarch64 -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++ \
    -DCMAKE_CXX_FLAGS="-idirafter $arm/root/usr/include" -DPython_EXECUTABLE="$(command -v python)" \
    -DPython_INCLUDE_DIR="$arm/root/usr/include/python$version" \
    -DPython_LIBRARY="$arm/root/usr/lib/aarch64-linux-gnu/libpython$version.so" > "$arm/cmake.log" ||
    { cat "$arm/cmake.log" >&2; exit 1; }
cmake --build "$arm/cores" > "$arm/build.log" || { cat "$arm/build.log" >&2; exit 1; }

# --- tests, in a copy of the tree, beside whose Python the cores for arm64 lie ---

rm -rf "$arm/tree"
mkdir "$arm/tree"
git ls-files -z bpe model tests corpora pyproject.toml cli.py | xargs -0 cp --parents -t "$arm/tree"
ln -s ../cli.py "$arm/tree/bpe/cli.py"
cp "$arm"/cores/_core.*.so "$arm/tree/bpe/_core.so"
cp "$arm"/cores/model/_core.*.so "$arm/tree/model/_core.so"
cd "$arm/tree"
[ $# -gt 0 ] || set -- tests/bpe/core/test_kernels.py tests/bpe/core/test_scan.py tests/bpe/core/test_utf8.py \
    tests/bpe/core/test_merge.py tests/model/training/test_kernels.py
# More threads of torch would wait for each other in loops, which qemu makes slow.
exec qemu-aarch64 -L "$arm/root" -E OMP_NUM_THREADS=1 -E PYTHONPATH="$arm/tree:$arm/site" "$arm/root/usr/bin/python$version" \
    -m pytest -p no:cacheprovider "$@"
