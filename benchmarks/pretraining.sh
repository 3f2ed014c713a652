#!/usr/bin/env bash
# Does IDMM's pretraining help, and which of its parts? Recipe idmm at scale cpu-long, three seeds, seven arms:
#   benchmarks/pretraining.sh FLOWERS [SEED ...]
# FLOWERS has Flowers-102's folders train, val and test. Finished stages are skipped, so the command can be said again.
# Then: python benchmarks/pretraining.py output
set -euo pipefail
data=$1
shift
[ $# -gt 0 ] || set -- 0 1 2
run() {
    python train_smalldata.py "$data" --train-split train+val --val-fraction 0 --recipe idmm --scale cpu-long "${@:2}" \
        --seed "$seed" --experiment "$1-$seed"
}
for seed in "$@"; do
    run idmm --skip-stage high                                                           # all four aids
    run none --skip-stage pretrain high                                                  # equal fine-tuning
    run low --skip-stage high \
        --pretrain.no-idmm-multicrop --pretrain.no-idmm-cutmix --pretrain.idmm-smoothing 0
    run multicrop --skip-stage high --pretrain.no-idmm-cutmix --pretrain.idmm-smoothing 0
    run plain --skip-stage high --pretrain.img-size 64 \
        --pretrain.no-idmm-multicrop --pretrain.no-idmm-cutmix --pretrain.idmm-smoothing 0
    # equal minutes: what pretraining and fine-tuning of arm idmm took, in epochs of arm none
    epochs=$(python benchmarks/pretraining.py output --equal-minutes "$seed")
    run long --skip-stage pretrain high --finetune.epochs "$epochs"
    # and as many epochs from the pretrained model
    run both --skip-stage pretrain high --finetune.epochs "$epochs" \
        --finetune.initial-checkpoint "output/idmm-$seed/1-pretrain/model"
done
