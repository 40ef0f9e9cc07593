"""Render what a cluster needs to run a job, as text. Nothing here imports Ray or starts it."""

from __future__ import annotations

from wsss_ray.deploy.manifests.clouds import Cloud
from wsss_ray.deploy.manifests.machines import Machines
from wsss_ray.deploy.manifests.request import Request, request_of
from wsss_ray.deploy.manifests.targets import compose, kuberay, ray_up, slurm

__all__ = ["Cloud", "Machines", "Request", "compose", "kuberay", "ray_up", "request_of", "slurm"]
