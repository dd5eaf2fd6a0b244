#!/bin/sh
# The free judge, moderation:default and moderation:fast, from sets under MIT, Apache-2.0 and CC BY 4.0 and from our own rows.
# About half an hour of answers by the two small models and 25 minutes of training for each stage, on one core with AMX bf16.
# Usage: free.sh OUT QWEN; QWEN is a folder with Qwen2.5-Coder-0.5B-Instruct.
# The first stage labels rows of HH-RLHF for the second, which is the judge. Thresholds are chosen and the card is measured on the rows made by construction, the first set. Seed 0.
# free.md has the hashes and what of it was run.
set -e
out=$1; qwen=$2
here=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$out"; cd "$out"
[ -s smollm2.jsonl ] || python "$here/model_answers.py" --model smollm2 --tokens 56 --out smollm2.jsonl
[ -s qwen.jsonl ] || python "$here/model_answers.py" --model "$qwen" --tokens 44 --out qwen.jsonl

learn() {
  folder=$1; rows=$2; shift 2
  truing train moderation --out "$folder" --form 64 --folds 3 --held 1 --whole --ngram-bits 0 --false-alarms 0.1 \
    --data "file:$rows/constructed.jsonl,licence=MIT; Apache-2.0; CC BY 4.0,weight=1.2" \
    "$@" \
    --data "diasafety,weight=0.9" \
    --data "file:$rows/toxicity.jsonl,licence=Apache-2.0,weight=0.5" \
    --data "hh,weight=0.2" \
    --data "dices,weight=1" \
    --data "openai-moderation,weight=1.5" \
    --data "ailuminate,weight=1.5" \
    --data "harmbench,weight=1.5" \
    --data "builtin:safety,half=train,weight=2" \
    --data "toxigen,weight=0.4" \
    --data "convabuse,weight=0.2" \
    --data "safetext,weight=1.2" \
    --data "refusal-direction,half=train,weight=0.15"
}

[ -s first-rows/constructed.jsonl ] || python "$here/free_rows.py" --answers smollm2.jsonl qwen.jsonl --out first-rows
[ -s first/card.json ] || learn first first-rows
[ -s rows/hh.jsonl ] || python "$here/free_rows.py" --answers smollm2.jsonl qwen.jsonl --teacher "moderation:$PWD/first" --out rows
learn default rows --data "file:rows/hh.jsonl,licence=MIT,weight=1"
