"""Manifests: what a cluster needs to run a job, as text. Pure functions of the job; nothing here imports Ray or starts it."""

from __future__ import annotations

from wsss_ray.deploy.manifests.compose import compose
from wsss_ray.deploy.manifests.kuberay import kuberay
from wsss_ray.deploy.manifests.machines import Machines
from wsss_ray.deploy.manifests.ray_up import EXTRAS, Cloud, ray_up
from wsss_ray.deploy.manifests.request import Request, request_of
from wsss_ray.deploy.manifests.slurm import slurm

__all__ = ["EXTRAS", "Cloud", "Machines", "Request", "compose", "kuberay", "ray_up", "request_of", "slurm"]
