#!/bin/sh
# moderation:default: about an hour on two cores with bfloat16. Usage: default.sh OUT [options of truing train moderation]
set -e
out=$1; shift
truing train moderation --out "$out" \
  --base smollm2 --layers 24 --frozen 8 --lora 16 --form 16 --lr 3e-4 --response-tokens 150 \
  --folds 3 --held 1 --whole \
  --data "beavertails,weight=4" \
  --data "pku,weight=1" \
  --data "diasafety,weight=1.5,tenths=0-6" \
  --data "xstest,part=completions,weight=1.5" \
  --data "do-not-answer,weight=0.3" \
  --data "toxic-chat,weight=0.45" \
  --data "beavertails,part=evaluation,weight=2" \
  --data "xstest,weight=1" \
  "$@"
