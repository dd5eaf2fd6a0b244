#!/bin/sh
# A third stage of the free judge, with prompts and longer answers; measured, and not shipped (../README.md says why).
# Usage: third_stage.sh OUT, after free.sh OUT QWEN. Its answers and 129 training steps take about five minutes of one core.
set -e
out=$1
here=$(cd "$(dirname "$0")/.." && pwd)
cd "$out"
[ -s smollm2-long.jsonl ] || python "$here/model_answers.py" --model smollm2 --tokens 110 \
  --list smollm2-long --out smollm2-long.jsonl
[ -s added/constructed.jsonl ] || python "$here/free_rows.py" --answers smollm2-long.jsonl \
  --kinds model complied harmless topics plain --out added
truing train moderation --out third --start default --lr 8e-5 --form 64 --folds 3 --held 1 --whole --ngram-bits 0 \
  --false-alarms 0.05 --calibrate sets \
  --data "file:rows/constructed.jsonl,licence=MIT; Apache-2.0; CC BY 4.0,weight=0.12" \
  --data "file:added/constructed.jsonl,licence=MIT; Apache-2.0; CC BY 4.0,weight=0.55" \
  --data "file:rows/hh.jsonl,licence=MIT,weight=0.1" \
  --data "diasafety,weight=0.05" \
  --data "file:rows/toxicity.jsonl,licence=Apache-2.0,weight=0.06" \
  --data "hh,weight=0.01" \
  --data "dices,weight=0.06" \
  --data "openai-moderation,weight=0.2" \
  --data "ailuminate,weight=0.15" \
  --data "harmbench,weight=0.2" \
  --data "builtin:safety,half=train,weight=0.4" \
  --data "toxigen,weight=0.04" \
  --data "convabuse,weight=0.03" \
  --data "safetext,weight=0.1" \
  --data "refusal-direction,half=train,weight=0.02"
