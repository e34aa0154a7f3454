#!/usr/bin/env bash
# Trains models/austen-qwen3 on one GPU in a given time: three runs at once with different regularisation, of which the
# best by held-out loss is kept.
#
#   train_demo_runs.sh TEXT TOKENIZER OUT SECONDS [OPTION…]
#
# TEXT as austen_text.py writes it, TOKENIZER a folder with tokenizer.json and tokenizer_config.json. SECONDS is all the
# time there is, the start of Python and the compiler included; the schedules are cut to it. OPTIONs go to every run of
# train_demo_model.py. OUT receives the model, its training_log.json and the output of the runs, train.log.
set -euo pipefail
begin=$(date +%s)
tools=$(cd "$(dirname "$0")" && pwd)
[ $# -ge 4 ] || { sed -n '2,9s/^# \?//p' "$0" >&2; exit 2; }
text=$1 tokenizer=$2 out=$3 seconds=$4
shift 4
python=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$out"

# One run is not compiled: whatever the compiler does, a model comes out. The end of a run (one evaluation in float32, files written) takes a few seconds.
reserve=15

train() {
    local name=$1
    shift
    PYTHONUNBUFFERED=1 "$python" "$tools/train_demo_model.py" --family qwen3_moe --text "$text" \
        --tokenizer "$tokenizer/tokenizer.json" --out "$work/$name" --steps 1000000 \
        --finish-by $((begin + seconds - reserve)) "$@" 2>&1 | sed -u "s/^/$name: /" || true
}

{
    train run1 --seed 1 --dropout 0.25 --weight-decay 0.3 "$@" &
    train run2 --seed 2 --dropout 0.20 --weight-decay 0.5 --learning-rate 1.5e-3 --compile "$@" &
    train run3 --seed 3 --dropout 0.30 --weight-decay 0.3 --learning-rate 1e-3 --compile "$@" &
    wait
} | tee "$out/train.log"
"$python" "$tools/collect_demo_runs.py" --out "$out" --tokenizer "$tokenizer" "$work"/run? | tee -a "$out/train.log"
echo "train_demo_runs: $(($(date +%s) - begin)) s of $seconds"
