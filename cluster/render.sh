#!/usr/bin/env bash
# Renders the checked-in examples again; tests/unit/test_manifests.py holds the files to these commands.
set -euo pipefail
cd "$(dirname "$0")/.."

wsss-ray render ray-up jobs/demo.yaml --store s3://bucket/runs --set 'run.workers=[1,4]' \
  --cloud aws:us-west-2 --vm-image ami-0123456789abcdef0 --package dist/wsss_ray-0.1.0-py3-none-any.whl \
  --out cluster/ray-up/demo-aws.yaml

wsss-ray render kuberay jobs/ficklenet.yaml --store /data/runs --set data.root=/data/VOC2012 --set 'run.workers=[2,4]' \
  --image registry.example.com/wsss-ray:0.1.0-gpu --out cluster/kuberay/ficklenet.yaml

wsss-ray render slurm jobs/ficklenet.yaml --store /scratch/runs --set data.root=/scratch/VOC2012 --set run.workers=8 \
  --gpus-per-node 4 --python /opt/wsss-ray/bin/python --out cluster/slurm/ficklenet.sbatch

wsss-ray render compose jobs/demo.yaml --store /data/runs --set run.workers=2 --gpus-per-node 0 \
  --image wsss-ray:0.1.0 --out cluster/compose/demo.yaml
