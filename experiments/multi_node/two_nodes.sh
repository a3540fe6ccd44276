#!/usr/bin/env bash
# One run on two nodes of two processes each, all of it on this machine: the nodes are the addresses 127.0.0.1 and
# 127.0.0.2, which every Linux has. Arguments are handed on: two_nodes.sh trainer.max_steps=50 run=shorter
set -euo pipefail

export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
export GLOO_SOCKET_IFNAME=${GLOO_SOCKET_IFNAME:-lo} # else gloo takes the interface that the machine's name points to

# What is typed on node NUMBER of a cluster, where an address of the first node stands in place of 127.0.0.1.
node() { # NUMBER [ARGUMENT ...]
  exec "${PYTHON:-python}" -m torch.distributed.run \
    --nnodes=2 --node-rank="$1" --nproc-per-node=2 \
    --master-addr=127.0.0.1 --master-port="${PORT:-29533}" --local-addr="127.0.0.$(($1 + 1))" \
    -m dllm_lightning.train \
    experiment=quickstart run=two_nodes trainer.max_steps=300 trainer.val_check_interval=150 \
    trainer=ddp trainer.accelerator=cpu trainer.num_nodes=2 trainer.devices=2 data.batch_size=16 \
    "${@:2}"
}

# Both nodes, and once: asked again, torchrun no longer waits until its processes have saved.
stop() {
  [ -n "${stopping:-}" ] && return
  stopping=yes
  kill -TERM $(jobs -pr) 2>/dev/null || true
}

node 0 "$@" &
node 1 "$@" &
trap 'asked=130; stop' INT
trap 'asked=143; stop' TERM
code=0
while [ -n "$(jobs -p)" ]; do
  wait -n || code=$((code ? code : $?))
  [ "$code" = 0 ] || stop # a node without the other one would wait for it
done
exit "${asked:-$code}"
