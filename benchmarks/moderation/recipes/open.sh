#!/bin/sh
# moderation:open, from MIT, Apache-2.0 and CC BY sets and our own rows: about 25 minutes on two cores. Usage: open.sh OUT [options of truing train moderation]
# The first set is the one on which thresholds are chosen: our own rows hold answers, refusals and categories.
set -e
out=$1; shift
here=$(dirname "$0")
mkdir -p "$out"
[ -s "$out/own.jsonl" ] || python "$here/../answers.py" --out "$out/own.jsonl"
truing train moderation --out "$out/model" --form 64 --folds 3 \
  --data "file:$out/own.jsonl,licence=Apache-2.0,weight=1.5" \
  --data "diasafety,weight=1.5,tenths=7-9" \
  --data "diasafety,split=val,weight=1.5,tenths=7-9" \
  --data "hh,weight=0.35" \
  --data "dices,weight=1.5" \
  --data "openai-moderation,weight=2" \
  --data "ailuminate,weight=1.5" \
  --data "jailbreakbench,weight=2" \
  --data "harmbench,weight=2" \
  --data "builtin:safety,half=train,weight=2" \
  --data "toxigen,weight=0.35" \
  --data "convabuse,weight=0.35" \
  --data "refusal-direction,weight=0.15" \
  "$@"
