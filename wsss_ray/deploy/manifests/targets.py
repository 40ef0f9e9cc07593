"""Render a request for each target. The templates in `templates/` show what is written; here are the values that they name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from wsss_ray.deploy.manifests.clouds import Cloud
from wsss_ray.deploy.manifests.machines import HEAD
from wsss_ray.deploy.manifests.request import RAY_VERSION, Request
from wsss_ray.deploy.manifests.templating import render


def kuberay(request: Request, *, image: str) -> str:
    """Render the ConfigMap, the NetworkPolicy and the RayJob that `kubectl apply -f` needs.

    Args:
        request: The job and its machines.
        image: The container image of every pod.

    Returns:
        The manifest.

    Raises:
        ValueError: if the job's folders cannot be one volume.
    """
    return render(
        "kuberay.yaml.j2",
        request=request,
        head=HEAD,
        workers=request.machines,
        folder=request.shared_folder(),
        image=image,
        ray_version=RAY_VERSION,
    )


def slurm(request: Request, *, python: str = "python") -> str:
    """Render the batch script.

    Args:
        request: The job and its machines.
        python: The interpreter that has this package, on every node.

    Returns:
        The script.
    """
    return render("slurm.sbatch.j2", request=request, workers=request.machines, python=python)


def compose(request: Request, *, image: str) -> str:
    """Render the Compose file.

    Args:
        request: The job and its machines.
        image: The image of every container.

    Returns:
        The Compose file.

    Raises:
        ValueError: if the job's folders cannot be one volume.
    """
    worker = request.machines
    if worker.gpus:  # one container has all GPUs
        worker = replace(worker, gpus=worker.gpus * worker.most, cpus=worker.cpus * worker.most, fewest=1, most=1)
    return render("compose.yaml.j2", request=request, head=HEAD, worker=worker, folder=request.shared_folder(), image=image)


def ray_up(request: Request, *, cloud: Cloud, package: str) -> str:
    """Render the YAML of the cluster that `ray up` starts.

    Args:
        request: The job and its machines.
        cloud: The provider, or the machines that are there.
        package: What pip installs on each machine: a wheel here, or a requirement.

    Returns:
        The cluster's YAML.

    Raises:
        ValueError: if the cloud has no such machine, or the job's folders lie in none that can be mounted.
    """
    workers = request.machines
    if cloud.kind == "local":
        if len(cloud.hosts) < 2:
            raise ValueError(f"--cloud local:{cloud.where}: the head trains nothing; name workers behind it, after a comma")
        node_types = []
    else:
        roles = (("head", HEAD), ("worker", workers))
        node_types = [(role, machine, cloud.machine(gpus=machine.gpus, cpus=machine.cpus)) for role, machine in roles]
    return render(
        "ray_up.yaml.j2",
        request=request,
        workers=workers,
        cloud=cloud,
        node_types=node_types,
        folder=request.shared_folder(),
        package=package,
        wheel=Path(package).name if package.endswith(".whl") and "://" not in package else None,
        extras=request.extras,
    )
