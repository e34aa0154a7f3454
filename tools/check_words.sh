#!/bin/bash
# Checks the wording of sources, scripts and documents, and the line length of documents.
#   tools/check_words.sh            the whole tree
#   tools/check_words.sh FILE...    only these files
# A line that needs a listed word, in a quotation say, carries the comment "check_words: allow".
set -euo pipefail
export LC_ALL=C.UTF-8  # lengths are counted in characters
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# One entry a line: a Perl regular expression, " => ", and what to write instead. Letter case is ignored, and an
# underscore ends a word, so that names of variables are checked as well.
words=(
  'reckon(s|ed|ing|ings)? => estimate, compute, plan with'
  'deal(s|ing)?(?= (out|experts|rows|tokens|layers)\b) => assign, balance, distribute'
  'dealt(?! with)|dealer => assigned, balanced, distributed'
  "need not (have|own) => don't have, don't own"
  '(lets?|letting) the (bundled )?model (write|talk|speak) => generates text with the model'
  'nobody|somebody => no rank, no caller, the user'
  '(?<!std::)promis(e|es|ed|ing) => predicted, prediction; guarantee, contract'
  'token_?draws? => sampled token, SampleParams'
  'routing_?draws? => sampled routing'
  'turned(?! (in|into|on|off|out|over|away|down|back|up)\b) => transposed'
)

max_columns=120

is_document() { [[ $1 == *.md ]]; }

if (($#)); then
  files=("$@")
else
  # Without novels, test data and results.
  mapfile -t files < <(find README.md CONTRIBUTING.md CHANGELOG.md run.sh test.sh CMakeLists.txt .ci cmake src include tests bench \
    tools docs models \( -path tests/data -o -path tests/fuzz/seeds -o -path tests/architecture/fixture -o -path bench/results \
    -o -name __pycache__ \) -prune -o -type f \( -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' -o -name '*.md' \
    -o -name '*.sh' -o -name '*.py' -o -name '*.txt' -o -name '*.cmake' -o -name '*.in' -o -path '.ci/*' \) \
    ! -path 'models/*.txt' ! -path tools/check_words.sh -print | sort)
fi

failed=0
for entry in "${words[@]}"; do
  pattern=${entry%% => *} instead=${entry#* => }
  # Exit code 1 means no match; anything else is an error of the pattern or of a file.
  matches=$(grep -HniP "(?<![a-z])(?:$pattern)(?![a-z])" -- "${files[@]}" /dev/null) || (($? == 1))
  while IFS=: read -r file line text; do
    [[ -z $file || $text == *"check_words: allow"* ]] && continue
    printf '%s:%s: write "%s": %s\n' "$file" "$line" "$instead" "${text#"${text%%[! ]*}"}" >&2
    failed=1
  done <<<"$matches"
done

for file in "${files[@]}"; do
  is_document "$file" || continue
  number=0 in_code=0
  while IFS= read -r line || [[ -n $line ]]; do
    number=$((number + 1))
    if [[ $line == '```'* ]]; then in_code=$((1 - in_code)); fi
    # Tables and code cannot be wrapped.
    if ((in_code == 0 && ${#line} > max_columns)) && [[ $line != '|'* && $line != *"check_words: allow"* ]]; then
      printf '%s:%d: %d columns, at most %d\n' "$file" "$number" "${#line}" "$max_columns" >&2
      failed=1
    fi
  done <"$file"
done

if ((failed)); then
  echo "lines to reword or wrap above; the list of words is in tools/check_words.sh" >&2
  exit 1
fi
echo "wording: ${#files[@]} files are in order"
