#!/bin/sh
# The free judge, moderation:default and moderation:fast, from sets under MIT, Apache-2.0 and CC BY 4.0 and from our own rows.
# About half an hour of answers by the two small models and half an hour of training, on one core with bfloat16 (AMX).
# Usage: free.sh OUT QWEN [options of truing train moderation]; QWEN is a folder with Qwen2.5-Coder-0.5B-Instruct.
# Thresholds are chosen and the card is measured on the rows made by construction, the first set.
set -e
out=$1; qwen=$2; shift 2
here=$(dirname "$0")
mkdir -p "$out"
[ -s "$out/smollm2.jsonl" ] || python "$here/../model_answers.py" --model smollm2 --tokens 56 --out "$out/smollm2.jsonl"
[ -s "$out/qwen.jsonl" ] || python "$here/../model_answers.py" --model "$qwen" --tokens 44 --out "$out/qwen.jsonl"
[ -s "$out/rows/constructed.jsonl" ] || python "$here/../free_rows.py" --answers "$out/smollm2.jsonl" "$out/qwen.jsonl" --out "$out/rows"
truing train moderation --out "$out/model" --form 64 --folds 3 --held 1 --whole --false-alarms 0.04 \
  --data "file:$out/rows/constructed.jsonl,licence=MIT; Apache-2.0; CC BY 4.0,weight=1.2" \
  --data "diasafety,weight=1" \
  --data "file:$out/rows/toxicity.jsonl,licence=Apache-2.0,weight=0.6" \
  --data "hh,weight=0.25" \
  --data "dices,weight=1" \
  --data "openai-moderation,weight=1.5" \
  --data "ailuminate,weight=1.5" \
  --data "harmbench,weight=1.5" \
  --data "builtin:safety,half=train,weight=2" \
  --data "toxigen,weight=0.4" \
  --data "convabuse,weight=0.2" \
  --data "safetext,weight=1.2" \
  --data "refusal-direction,half=train,weight=0.15" \
  "$@"
