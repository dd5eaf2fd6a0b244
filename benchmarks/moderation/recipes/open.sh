#!/bin/sh
# moderation:open, from MIT, Apache-2.0 and CC BY sets and our own rows: about 25 minutes on two cores. Usage: open.sh OUT [options of truing train moderation]
# What ships also learned from RealToxicityPrompts (Perspective's toxicity of the continuation as a soft label for harm).
# The first set is the one on which thresholds are chosen. `answers.py --refusals` makes the refusals: no model is asked.
set -e
out=$1; shift
here=$(dirname "$0")
mkdir -p "$out"
[ -s "$out/own.jsonl" ] || python "$here/../answers.py" --refusals --out "$out/own.jsonl"
truing train moderation --out "$out/model" --form 64 \
  --data "diasafety,weight=1.5,tenths=7-9" \
  --data "file:$out/own.jsonl,licence=Apache-2.0,weight=0.8" \
  --data "diasafety,split=val,weight=1.5,tenths=7-9" \
  --data "hh,weight=0.35" \
  --data "dices,weight=2" \
  --data "openai-moderation,weight=2" \
  --data "ailuminate,weight=1.5" \
  --data "jailbreakbench,weight=2" \
  --data "harmbench,weight=2" \
  --data "builtin:safety,half=train,weight=2" \
  --data "toxigen,weight=0.4" \
  --data "convabuse,weight=0.3" \
  --data "safetext,weight=1.5" \
  --data "refusal-direction,weight=0.1" \
  "$@"
