"""KubeRay: a ConfigMap with the job, a NetworkPolicy, and a RayJob that makes the cluster, runs the job and ends the cluster.

KubeRay's operator starts and follows jobs through the dashboard, which therefore cannot listen on loopback only, but on the head
pod's address: it asks for the token that KubeRay makes for each cluster, its Service is internal, and the NetworkPolicy lets in
the cluster's own pods, the pod that submits, and the operator. Needs KubeRay 1.5.1, the first with `authOptions`.
"""

from __future__ import annotations

from typing import Any

from wsss_ray.deploy.manifests import rayjob
from wsss_ray.deploy.manifests.machines import HEAD_CPUS
from wsss_ray.deploy.manifests.request import JOB_PATH, RAY_VERSION, Request
from wsss_ray.deploy.manifests.text import as_yaml

CLAIM = "wsss-ray"
SECRET = "wsss-ray-env"
USER = 1000

_LABEL = "wsss-ray/run"
_DASHBOARD = 8265


def kuberay(request: Request, *, image: str) -> str:
    """All that `kubectl apply -f` needs. Raises ValueError if the job's folders cannot be one volume."""
    folder = request.shared_folder()
    comment = request.about("RayJob")
    if folder:
        fields = ", ".join(field for field, _ in request.paths)
        comment += f"\nThe claim {CLAIM} (ReadWriteMany) is mounted at {folder}, for {fields}."
    comment += f"\nCredentials, where the job needs any, are the entries of the Secret {SECRET}."
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": request.name, "labels": {_LABEL: request.name}},
        "data": {"job.yaml": request.text},
    }
    job = ray_job(request, image=image, folder=folder).model_dump(mode="json", exclude_none=True)
    return as_yaml(config, _network_policy(request.name), job, comment=comment)


def ray_job(request: Request, *, image: str, folder: str | None) -> rayjob.RayJob:
    """The RayJob; `folder` is where the shared claim is mounted."""
    machines = request.machines
    head = {"cpu": str(HEAD_CPUS), "memory": f"{4 * HEAD_CPUS}Gi"}
    worker = {"cpu": str(machines.cpus), "memory": f"{machines.memory_gib}Gi"}
    if machines.gpus:
        worker["nvidia.com/gpu"] = str(machines.gpus)
    cluster = rayjob.RayCluster(
        rayVersion=RAY_VERSION,
        authOptions=rayjob.AuthOptions(mode="token"),
        enableInTreeAutoscaling=True,
        autoscalerOptions=rayjob.AutoscalerOptions(version="v2", idleTimeoutSeconds=300),
        headGroupSpec=rayjob.HeadGroup(
            serviceType="ClusterIP",
            rayStartParams={"num-cpus": str(HEAD_CPUS), "num-gpus": "0"},
            template=_pods(request, "ray-head", image=image, resources=head, folder=folder),
        ),
        workerGroupSpecs=[
            rayjob.WorkerGroup(
                groupName="gpu" if machines.gpus else "cpu",
                replicas=machines.fewest,
                minReplicas=machines.fewest,
                maxReplicas=machines.most,
                rayStartParams={"num-cpus": str(machines.cpus), "num-gpus": str(machines.gpus)},
                template=_pods(request, "ray-worker", image=image, resources=worker, folder=folder),
            )
        ],
    )
    return rayjob.RayJob(
        apiVersion="ray.io/v1",
        kind="RayJob",
        metadata=rayjob.Metadata(name=request.name, labels={_LABEL: request.name}),
        spec=rayjob.RayJobSpec(
            entrypoint=request.submit(JOB_PATH),
            submissionMode="K8sJobMode",
            backoffLimit=2,  # each on a new cluster, and a submit goes on where the last one ended
            shutdownAfterJobFinishes=True,
            ttlSecondsAfterFinished=300,
            rayClusterSpec=cluster,
        ),
    )


def _pods(request: Request, name: str, *, image: str, resources: dict[str, str], folder: str | None) -> rayjob.PodTemplate:
    """The pods of a group. The driver runs on the head, so that only the head reads the job file and talks to Kubernetes."""
    is_head = name == "ray-head"
    mounts, volumes, ports = [], [], []
    if is_head:
        mounts.append(rayjob.VolumeMount(name="job", mountPath=JOB_PATH.rpartition("/")[0], readOnly=True))
        volumes.append(rayjob.Volume(name="job", configMap=rayjob.ConfigMapVolume(name=request.name)))
        ports = [
            rayjob.Port(name="gcs-server", containerPort=6379),
            rayjob.Port(name="dashboard", containerPort=_DASHBOARD),
            rayjob.Port(name="client", containerPort=10001),
        ]
    if folder:
        mounts.append(rayjob.VolumeMount(name="shared", mountPath=folder))
        volumes.append(rayjob.Volume(name="shared", persistentVolumeClaim=rayjob.ClaimVolume(claimName=CLAIM)))
    container = rayjob.Container(
        name=name,
        image=image,
        ports=ports or None,
        env=[rayjob.EnvVar(name="RAY_USAGE_STATS_ENABLED", value="0")],
        envFrom=[rayjob.EnvFrom(secretRef=rayjob.SecretRef(name=SECRET, optional=True))],
        resources=rayjob.Resources(requests=resources, limits=resources),
        volumeMounts=mounts or None,
        securityContext=rayjob.ContainerSecurity(
            allowPrivilegeEscalation=False, capabilities=rayjob.Capabilities(drop=["ALL"])
        ),
    )
    security = rayjob.PodSecurity(
        runAsNonRoot=True, runAsUser=USER, fsGroup=USER, seccompProfile=rayjob.Seccomp(type="RuntimeDefault")
    )
    spec = rayjob.PodSpec(
        automountServiceAccountToken=None if is_head else False,
        securityContext=security,
        containers=[container],
        volumes=volumes or None,
    )
    return rayjob.PodTemplate(metadata=rayjob.Metadata(labels={_LABEL: request.name}), spec=spec)


def _network_policy(name: str) -> dict[str, Any]:
    """Who may talk to the cluster's pods."""
    submitter = {"podSelector": {"matchLabels": {"batch.kubernetes.io/job-name": name}}}  # its Job has the name of the RayJob
    operator = {
        "namespaceSelector": {},
        "podSelector": {"matchLabels": {"app.kubernetes.io/component": "kuberay-operator"}},
    }
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "labels": {_LABEL: name}},
        "spec": {
            "podSelector": {"matchLabels": {_LABEL: name}},
            "policyTypes": ["Ingress"],
            "ingress": [
                {"from": [{"podSelector": {"matchLabels": {_LABEL: name}}}]},
                {"from": [submitter, operator], "ports": [{"protocol": "TCP", "port": _DASHBOARD}]},
            ],
        },
    }
