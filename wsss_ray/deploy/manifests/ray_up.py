"""`ray up`: a cluster of virtual machines (AWS, Google Cloud) or of machines that are there, with this package installed by pip.

The token is made on the head, in `~/.ray/auth_token`, and goes from there to the workers over SSH (`cluster_synced_files`): it
is in no file of yours. The dashboard listens on the head's loopback. The head has no GPU: it reads shards and holds the driver.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsss_ray.deploy.manifests.machines import HEAD_CPUS, Machines
from wsss_ray.deploy.manifests.request import Request
from wsss_ray.deploy.manifests.text import as_yaml

_BIN = "~/wsss-ray/bin"
_TOKEN = "~/.ray/auth_token"
_JOB = "~/job.yaml"

# Machines by GPUs (A10G on AWS, L4 on Google Cloud) and CPUs, the smallest first.
_TYPES = {
    "aws": (
        *((0, cpus, f"m6i.{size}") for cpus, size in ((4, "xlarge"), (8, "2xlarge"), (16, "4xlarge"), (32, "8xlarge"))),
        *((1, cpus, f"g5.{size}") for cpus, size in ((4, "xlarge"), (8, "2xlarge"), (16, "4xlarge"), (32, "8xlarge"))),
        *((4, cpus, f"g5.{size}") for cpus, size in ((48, "12xlarge"), (96, "24xlarge"))),
        (8, 192, "g5.48xlarge"),
    ),
    "gcp": (
        *((0, cpus, f"n2-standard-{cpus}") for cpus in (4, 8, 16, 32)),
        *((1, cpus, f"g2-standard-{cpus}") for cpus in (4, 8, 12, 16, 32)),
        (2, 24, "g2-standard-24"),
        (4, 48, "g2-standard-48"),
        (8, 96, "g2-standard-96"),
    ),
}
EXTRAS = "coco,efficientnet,sprites,timm"

_APT = "python3-venv python3-dev g++"  # the last two for pydensecrf2, which is built on the machine
_HEAD_PACKAGES = {"aws": "'boto3>=1.34,<2'", "gcp": "'google-api-python-client>=2,<3' 'google-auth>=2,<3' 'cryptography'"}


@dataclass(frozen=True)
class Cloud:
    """Where the machines are: `aws:REGION`, `gcp:PROJECT/ZONE`, or `local:[USER@]HEAD,WORKER,...`."""

    kind: str
    where: str
    image: str | None = None

    @classmethod
    def of(cls, text: str, *, image: str | None) -> Cloud:
        """The cloud of `--cloud` and the machine image of `--vm-image`. Raises ValueError."""
        kind, _, where = text.partition(":")
        if kind not in ("aws", "gcp", "local") or not where or (kind == "gcp" and "/" not in where):
            raise ValueError(f"--cloud {text}: write aws:REGION, gcp:PROJECT/ZONE or local:USER@HEAD,WORKER,...")
        if kind != "local" and not image:
            raise ValueError(f"--cloud {text}: name the machine image (Ubuntu, with NVIDIA's driver for GPUs) by --vm-image")
        return cls(kind=kind, where=where, image=image)

    def machine(self, *, gpus: int, cpus: int) -> str:
        """The smallest machine type with so many GPUs and CPUs. Raises ValueError."""
        known = _TYPES[self.kind]
        found = [name for has_gpus, has_cpus, name in known if has_gpus == gpus and has_cpus >= cpus]
        if not found:
            counts = sorted({has_gpus for has_gpus, _, _ in known})
            most = max((has_cpus for has_gpus, has_cpus, _ in known if has_gpus == gpus), default=0)
            allowed = f"at most {most} CPUs with {gpus} GPUs" if most else f"GPUs: {', '.join(map(str, counts))}"
            raise ValueError(f"--gpus-per-node {gpus} --cpus-per-node {cpus}: no machine of {self.kind} is known; {allowed}")
        return found[0]

    @property
    def hosts(self) -> list[str]:
        """The machines of a local cluster, the head first."""
        return [host.strip() for host in self.where.rpartition("@")[2].split(",") if host.strip()]


def ray_up(request: Request, *, cloud: Cloud, package: str) -> str:
    """The cluster's YAML; `package` is what pip installs on each machine, a wheel here or a requirement. Raises ValueError."""
    wheel = package.endswith(".whl") and "://" not in package
    installed = f'"$HOME/{Path(package).name}[{EXTRAS}]"' if wheel else f"'{package}'"
    environment = f'export RAY_AUTH_MODE=token PATH="$HOME/{_BIN.removeprefix("~/")}:$PATH"'
    head_packages = _HEAD_PACKAGES.get(cloud.kind)
    ray = f"ulimit -n 65536; RAY_AUTH_MODE=token {_BIN}/ray start"
    config: dict[str, Any] = {
        "cluster_name": request.name,
        **_nodes(request.machines, cloud),
        "idle_timeout_minutes": 10,
        "file_mounts": {f"~/{Path(package).name}": package} if wheel else {},
        "cluster_synced_files": [_TOKEN],
        "setup_commands": [
            *([_apt()] if cloud.kind != "local" else []),
            f"test -x {_BIN}/pip || python3 -m venv {_BIN.removesuffix('/bin')}",
            f"{_BIN}/pip install --quiet {installed}",
            *([f"{_BIN}/pip install --quiet --no-deps arcade==3.3.3"] if request.job.data.kind() == "sprites" else []),
            f"grep -qs RAY_AUTH_MODE ~/.bashrc || echo '{environment}' >> ~/.bashrc",
        ],
        "head_setup_commands": [
            *([f"{_BIN}/pip install --quiet {head_packages}"] if head_packages else []),
            f"test -s {_TOKEN} || (umask 077; RAY_AUTH_MODE=token {_BIN}/ray get-auth-token --generate > /dev/null)",
            f"cat > {_JOB} <<'WSSS_RAY_JOB'\n{request.text}WSSS_RAY_JOB\n",
        ],
        "worker_setup_commands": [],
        "head_start_ray_commands": [
            f"{_BIN}/ray stop",
            f"{ray} --head --port=6379 --dashboard-host=127.0.0.1 --num-gpus=0 --autoscaling-config=~/ray_bootstrap_config.yaml",
        ],
        "worker_start_ray_commands": [
            f"{_BIN}/ray stop",
            f"{ray} --address=$RAY_HEAD_IP:6379",
        ],
    }
    comment = request.about("Ray cluster")
    folder = request.shared_folder()
    if folder:
        fields = ", ".join(field for field, _ in request.paths)
        comment += f"\nEvery machine needs {folder} mounted, for {fields}: add that to setup_commands."
    comment += f"\nThe job is started by: ray exec THIS_FILE '{request.submit(_JOB)}'"
    return as_yaml(config, comment=comment)


def _apt() -> str:
    """Debian packages, if they are missing; another process may hold the lock just after boot."""
    install = f"sudo apt-get update -qq && sudo apt-get install -y -qq -o DPkg::Lock::Timeout=300 {_APT}"
    return f"dpkg -s {_APT} > /dev/null 2>&1 || ({install})"


def _nodes(machines: Machines, cloud: Cloud) -> dict[str, Any]:
    """Provider, login and kinds of machines."""
    if cloud.kind == "local":
        head, *workers = cloud.hosts
        if not workers:
            raise ValueError(f"--cloud local:{cloud.where}: the head trains nothing; name workers behind it, after a comma")
        user = cloud.where.partition("@")[0] if "@" in cloud.where else "ubuntu"
        return {
            "provider": {"type": "local", "head_ip": head, "worker_ips": workers},
            "auth": {"ssh_user": user},
            "min_workers": min(machines.fewest, len(workers)),
            "max_workers": len(workers),
        }
    worker = cloud.machine(gpus=machines.gpus, cpus=machines.cpus)
    project, _, zone = cloud.where.partition("/")
    provider: dict[str, Any] = (
        {"type": "aws", "region": cloud.where, "cache_stopped_nodes": False}
        if cloud.kind == "aws"
        else {"type": "gcp", "region": zone.rpartition("-")[0], "availability_zone": zone, "project_id": project}
    )
    return {
        "provider": provider,
        "auth": {"ssh_user": "ubuntu"},
        "max_workers": machines.most,
        "head_node_type": "head",
        "available_node_types": {
            "head": {
                "resources": {"CPU": HEAD_CPUS, "GPU": 0},
                "node_config": _vm(cloud, cloud.machine(gpus=0, cpus=HEAD_CPUS), gpus=0),
            },
            "worker": {
                "min_workers": machines.fewest,
                "max_workers": machines.most,
                "resources": {"CPU": machines.cpus, "GPU": machines.gpus},
                "node_config": _vm(cloud, worker, gpus=machines.gpus),
            },
        },
    }


def _vm(cloud: Cloud, machine: str, *, gpus: int) -> dict[str, Any]:
    """A virtual machine in its provider's words, with a disk of 200 GB."""
    if cloud.kind == "aws":
        disk = {"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": 200, "VolumeType": "gp3", "DeleteOnTermination": True}}
        return {"InstanceType": machine, "ImageId": cloud.image, "BlockDeviceMappings": [disk]}
    boot = {
        "boot": True,
        "autoDelete": True,
        "type": "PERSISTENT",
        "initializeParams": {"diskSizeGb": 200, "sourceImage": cloud.image},
    }
    stays = {"scheduling": [{"onHostMaintenance": "TERMINATE"}]} if gpus else {}  # a machine with GPUs cannot be moved
    return {"machineType": machine, "disks": [boot], **stays}
