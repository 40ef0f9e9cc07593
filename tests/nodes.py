"""Clusters as a test describes them: CPUs and GPUs of each machine, without a Ray."""

from __future__ import annotations

from typing import Any

from wsss_ray.config.resources import Node, Resources


def cluster(*cpus: float, gpus: tuple[int, ...] = (), **fields: Any) -> Resources:
    found = [Node(str(k), f"10.0.0.{k}", cpu, dict(enumerate(gpus)).get(k, 0)) for k, cpu in enumerate(cpus)]
    return Resources(nodes=tuple(found), **fields)
