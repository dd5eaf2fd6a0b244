#!/bin/sh
# moderation:default: about 45 minutes on two cores with bfloat16. Usage: default.sh OUT [options of truing train moderation]
set -e
out=$1; shift
truing train moderation --out "$out" --form delta \
  --data "beavertails,weight=4" \
  --data "pku,weight=1.25" \
  --data "diasafety,weight=2,tenths=0-6" \
  --data "xstest,part=completions,weight=1.5" \
  --data "do-not-answer,weight=0.3" \
  --data "toxic-chat,weight=0.45" \
  --data "beavertails,part=evaluation,weight=2" \
  --data "xstest,weight=1" \
  "$@"
