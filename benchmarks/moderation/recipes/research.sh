#!/bin/sh
# moderation:research: a language model's first layers and a small encoder, blended. About two hours on two cores with bfloat16.
# Usage: research.sh OUT [reader|encoder|blend]...  (without names all three, one after another)
set -e
out=$1; shift
parts=${*:-reader encoder blend}

learn() {  # the sets and their passes: the same for both, but for two
  folder=$1; pku=$2; dialogues=$3; shift 3
  truing train moderation --out "$folder" --folds 3 --held 1 --whole --allow-measurement-prompts \
    --data "beavertails,weight=4" \
    --data "pku,weight=$pku" \
    --data "diasafety,weight=$dialogues,tenths=0-6" \
    --data "xstest,part=completions,weight=1.5" \
    --data "do-not-answer,weight=0.3" \
    --data "toxic-chat,weight=0.45" \
    --data "beavertails,part=evaluation,weight=2" \
    --data "xstest,weight=1" \
    "$@"
}

for part in $parts; do
  case $part in
    reader) learn "$out/reader" 1 1.5 --base smollm2 --layers 24 --frozen 8 --lora 16 --form 16 --lr 3e-4 --response-tokens 150 ;;
    encoder) learn "$out/encoder" 1.25 2 --base minilm --form 64 ;;
    blend) truing train moderation --blend "$out/reader" "$out/encoder" --out "$out/default" ;;
  esac
done
