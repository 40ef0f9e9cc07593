"""Docker Compose: a head and workers on one machine. Only loopback ports, the token from a file of variables, one shared folder.

Without GPUs there is a worker container per machine that the job asks for; with GPUs one container has them all, as Compose
hands the same GPUs to every replica.
"""

from __future__ import annotations

from typing import Any

from wsss_ray.deploy.manifests.machines import HEAD_CPUS
from wsss_ray.deploy.manifests.request import JOB_PATH, Request
from wsss_ray.deploy.manifests.text import as_yaml

ENV_FILE = "wsss-ray.env"

_PORT = 6379
_DASHBOARD = 8265
_OBJECT_STORE = 2 * 1024**3


def compose(request: Request, *, image: str) -> str:
    """The Compose file. Raises ValueError if the job's folders cannot be one volume."""
    machines = request.machines
    comment = request.about("Compose file") + (
        f"\nRAY_AUTH_TOKEN, and the credentials that the job needs, are read from {ENV_FILE} beside this file."
        f"\nThe job is started by: docker compose exec head {request.submit(JOB_PATH)}"
    )
    folder = request.shared_folder()
    node: dict[str, Any] = {
        "image": image,
        "init": True,
        "restart": "unless-stopped",
        "env_file": [{"path": ENV_FILE, "required": True}],
        "environment": {"RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0"},
        "shm_size": "4gb",
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "networks": ["ray"],
    }
    if folder:
        node["volumes"] = [{"type": "bind", "source": folder, "target": folder, "bind": {"create_host_path": False}}]
    start = ["ray", "start", "--block", f"--object-store-memory={_OBJECT_STORE}"]
    # Inside its own network the dashboard listens for the published port; outside it is on loopback.
    head_start = [*start, "--head", f"--port={_PORT}", "--dashboard-host=0.0.0.0", f"--num-cpus={HEAD_CPUS}", "--num-gpus=0"]
    head = node | {
        "hostname": "head",
        "command": head_start,
        "ports": [f"127.0.0.1:{_DASHBOARD}:{_DASHBOARD}"],
        "configs": [{"source": "job", "target": JOB_PATH}],
        "healthcheck": {
            "test": ["CMD", "ray", "health-check", "--address", f"head:{_PORT}"],
            "interval": "5s",
            "timeout": "20s",
            "retries": 12,
        },
    }
    replicas = 1 if machines.gpus else machines.most
    gpus = machines.gpus * machines.most
    cpus = machines.cpus * (machines.most if machines.gpus else 1)
    deploy: dict[str, Any] = {"replicas": replicas}
    if gpus:
        device = {"driver": "nvidia", "count": gpus, "capabilities": ["gpu"]}
        deploy["resources"] = {"reservations": {"devices": [device]}}
    worker = node | {
        "command": [*start, f"--address=head:{_PORT}", f"--num-cpus={cpus}", f"--num-gpus={gpus}"],
        "depends_on": {"head": {"condition": "service_healthy"}},
        "deploy": deploy,
    }
    document = {
        "name": request.name,
        "services": {"head": head, "worker": worker},
        "networks": {"ray": {}},
        "configs": {"job": {"content": request.text.replace("$", "$$")}},  # Compose would fill in ${NAME} itself
    }
    return as_yaml(document, comment=comment)
