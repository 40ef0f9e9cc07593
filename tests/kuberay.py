"""Check a rendered RayJob by KubeRay's schema, by Kubernetes' schema of pods, and by the rules that stand in neither."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import jsonschema
import kubernetes_validate
import yaml

REFUSALS = (ValueError, jsonschema.ValidationError, kubernetes_validate.ValidationError)

_SCHEMA = yaml.safe_load((Path(__file__).parent / "rayjob_crd.yaml").read_text())
_SOURCES = {"configMap", "persistentVolumeClaim"}
_FIELDS = {"automountServiceAccountToken", "securityContext", "containers", "volumes"}


def check_ray_job(job: dict) -> None:
    """Raises one of REFUSALS."""
    jsonschema.validate(job, _SCHEMA)
    cluster = job["spec"]["rayClusterSpec"]
    pods = [cluster["headGroupSpec"]["template"], *(group["template"] for group in cluster["workerGroupSpecs"])]
    for pod in pods:
        kubernetes_validate.validate({"apiVersion": "v1", "kind": "Pod", **pod}, "1.33", strict=True)
    rules = chain(_rules_of_kuberay(job), *map(_our_rules, pods))
    broken = [rule for rule, holds in rules if not holds]
    if broken:
        raise ValueError("; ".join(broken))


def _rules_of_kuberay(job: dict) -> Iterator[tuple[str, bool]]:
    """Rules that its operator checks (ray-operator/controllers/ray/utils/validation.go), and what we promise of every job."""
    spec, cluster = job["spec"], job["spec"]["rayClusterSpec"]
    name = job["metadata"]["name"]
    yield "is a RayJob of ray.io/v1", (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    yield "metadata.name is a label of at most 47 characters", bool(re.fullmatch(r"[a-z]([-a-z0-9]{0,45}[a-z0-9])?", name))
    yield "entrypoint is not empty", bool(spec["entrypoint"])
    yield "submissionMode is K8sJobMode", spec["submissionMode"] == "K8sJobMode"
    yield "backoffLimit is no negative number", spec["backoffLimit"] >= 0
    yield "ttlSecondsAfterFinished needs shutdownAfterJobFinishes", spec["shutdownAfterJobFinishes"] is True
    yield "ttlSecondsAfterFinished is no negative number", spec["ttlSecondsAfterFinished"] >= 0
    yield "rayVersion is three numbers", bool(re.fullmatch(r"\d+\.\d+\.\d+", cluster["rayVersion"]))
    yield "authOptions.mode is token", cluster["authOptions"]["mode"] == "token"
    yield "autoscalerOptions.version is v2", cluster["autoscalerOptions"]["version"] == "v2"
    yield "the head's Service is internal", cluster["headGroupSpec"]["serviceType"] == "ClusterIP"
    yield "there is a group of workers", bool(cluster["workerGroupSpecs"])
    for group in cluster["workerGroupSpecs"]:
        yield "replicas are in order", 0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        yield "maxReplicas is 1 or more", group["maxReplicas"] >= 1
        yield "workers get no token of Kubernetes", group["template"]["spec"]["automountServiceAccountToken"] is False


def _our_rules(pod: dict) -> Iterator[tuple[str, bool]]:
    """A container in every pod, volumes with one source, and no rights beyond those of a user."""
    spec = pod["spec"]
    security = spec["securityContext"]
    yield "a pod has only the fields that it needs", spec.keys() <= _FIELDS
    yield "a pod has one container", len(spec["containers"]) == 1
    yield "a pod runs as a user", security["runAsNonRoot"] is True and security["runAsUser"] >= 1 and security["fsGroup"] >= 1
    yield "a pod has the system calls of the runtime", security["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in spec["containers"]:
        limits, rights = container["resources"], container["securityContext"]
        yield "requests are limits", limits["requests"] == limits["limits"]
        yield "quantities are texts", all(isinstance(quantity, str) for quantity in limits["limits"].values())
        yield "a container has no rights", rights == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        yield "mounts are absolute", all(mount["mountPath"].startswith("/") for mount in container.get("volumeMounts", []))
    for volume in spec.get("volumes", []):
        sources = volume.keys() - {"name"}
        yield "a volume has exactly one of configMap and persistentVolumeClaim", len(sources) == 1 and sources <= _SOURCES
