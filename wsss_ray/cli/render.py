"""Write manifests for clusters: the command render."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from wsss_ray.cli.console import JobFile, Override, StoreUri, Until, fail

Target = Annotated[Literal["ray-up", "kuberay", "slurm", "compose"], typer.Argument(help="Kind of cluster.")]
Out = Annotated[Path | None, typer.Option(metavar="FILE", help="File to write. Default: print to the terminal.")]
Image = Annotated[
    str | None,
    typer.Option(help="Container image (kuberay, compose), see cluster/Dockerfile. Default: wsss-ray:VERSION or VERSION-gpu."),
]
Python = Annotated[str, typer.Option(metavar="PATH", help="Python interpreter that has wsss-ray, on every node (slurm).")]
Where = Annotated[str, typer.Option(help="Machines: aws:REGION, gcp:PROJECT/ZONE or local:USER@HEAD,WORKER,... (ray-up).")]
VmImage = Annotated[str | None, typer.Option(help="Image of the machines: Ubuntu, with NVIDIA's driver for GPUs (ray-up).")]
Package = Annotated[
    str | None, typer.Option(help="Wheel or requirement that pip installs on the machines (ray-up). Default: this version.")
]
Gpus = Annotated[
    int | None,
    typer.Option(min=0, help="GPUs of each worker machine; a training worker takes one. Default: 1, or 0 if run.gpu is false."),
]
Cpus = Annotated[int | None, typer.Option(min=1, help="CPUs of each worker machine. Default: what the job's processes need.")]


def render(
    target: Target,
    job_file: JobFile,
    override: Override = None,
    store: StoreUri = None,
    until: Until = None,
    out: Out = None,
    gpus_per_node: Gpus = None,
    cpus_per_node: Cpus = None,
    image: Image = None,
    python: Python = "python",
    cloud: Where = "aws:us-west-2",
    vm_image: VmImage = None,
    package: Package = None,
) -> None:
    """Write the manifest with which a cluster runs a job.

    ray-up: a YAML for `ray up`. kuberay: a RayJob. slurm: a batch script. compose: a Compose file. Starts nothing.
    """
    from wsss_ray.config.document import JobError, read_document
    from wsss_ray.core.version import __version__
    from wsss_ray.deploy import manifests

    try:
        document = read_document(job_file, override or ())
        if store is not None:
            document = document.with_value("run.store", store, where="--store")
        request = manifests.request_of(document, gpus_per_node=gpus_per_node, cpus_per_node=cpus_per_node, until=until)
        image = image or f"wsss-ray:{__version__}{'-gpu' if request.machines.gpus else ''}"
        if target == "ray-up":
            where = manifests.Cloud.of(cloud, image=vm_image)
            text = manifests.ray_up(request, cloud=where, package=package or f"wsss-ray[{request.extras}]=={__version__}")
        elif target == "kuberay":
            text = manifests.kuberay(request, image=image)
        elif target == "slurm":
            text = manifests.slurm(request, python=python)
        else:
            text = manifests.compose(request, image=image)
    except JobError as error:
        fail(str(error))
    except ValueError as error:
        fail(f"{job_file}: {error}")
    if out is None:
        typer.echo(text, nl=False)
        return
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        fail(f"--out {out}: cannot be written: {error.strerror}")
