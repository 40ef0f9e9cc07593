"""The part of KubeRay's RayJob (`ray.io/v1`) that we write, as a strict model: an unknown field or a wrong type is an error.

Fields are named as Kubernetes names them. The rules beside types are KubeRay's own: names that it can extend, replicas in order,
a time to live only with a shutdown.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from typing_extensions import Self


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Metadata(_Part):
    """Name and labels of an object, or labels of a pod."""

    name: str | None = Field(default=None, pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$", max_length=47)
    labels: dict[str, str] | None = None


class EnvVar(_Part):
    """An environment variable; a secret is never among them."""

    name: str
    value: str


class SecretRef(_Part):
    """A Secret whose entries become environment variables."""

    name: str
    optional: bool | None = None


class EnvFrom(_Part):
    """A source of environment variables."""

    secretRef: SecretRef


class VolumeMount(_Part):
    """Where a container sees a volume."""

    name: str
    mountPath: str = Field(pattern=r"^/")
    readOnly: bool | None = None


class ConfigMapVolume(_Part):
    """A ConfigMap as files."""

    name: str


class ClaimVolume(_Part):
    """A claim on shared storage."""

    claimName: str


class Volume(_Part):
    """A volume of a pod: exactly one source."""

    name: str
    configMap: ConfigMapVolume | None = None
    persistentVolumeClaim: ClaimVolume | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.configMap is None) == (self.persistentVolumeClaim is None):
            raise ValueError("a volume has exactly one of configMap and persistentVolumeClaim")
        return self


class Resources(_Part):
    """What a container asks for and may take, as Kubernetes quantities."""

    requests: dict[str, str]
    limits: dict[str, str]


class Capabilities(_Part):
    """Linux capabilities."""

    drop: list[str]


class ContainerSecurity(_Part):
    """What a container may not do."""

    allowPrivilegeEscalation: Literal[False]
    capabilities: Capabilities


class Seccomp(_Part):
    """System calls."""

    type: Literal["RuntimeDefault"]


class PodSecurity(_Part):
    """As whom a pod runs."""

    runAsNonRoot: Literal[True]
    runAsUser: int = Field(ge=1)
    fsGroup: int = Field(ge=1)
    seccompProfile: Seccomp


class Port(_Part):
    """A port of a container."""

    name: str
    containerPort: int = Field(ge=1, le=65535)


class Container(_Part):
    """The Ray container of a pod."""

    name: str
    image: str
    ports: list[Port] | None = None
    env: list[EnvVar] | None = None
    envFrom: list[EnvFrom] | None = None
    resources: Resources
    volumeMounts: list[VolumeMount] | None = None
    securityContext: ContainerSecurity


class PodSpec(_Part):
    """A pod."""

    automountServiceAccountToken: bool | None = None
    securityContext: PodSecurity
    containers: list[Container] = Field(min_length=1)
    volumes: list[Volume] | None = None


class PodTemplate(_Part):
    """How pods of a group are made."""

    metadata: Metadata
    spec: PodSpec


class HeadGroup(_Part):
    """The head."""

    serviceType: Literal["ClusterIP"]
    rayStartParams: dict[str, str]
    template: PodTemplate


class WorkerGroup(_Part):
    """Workers of one kind."""

    groupName: str
    replicas: int = Field(ge=0)
    minReplicas: int = Field(ge=0)
    maxReplicas: int = Field(ge=1)
    rayStartParams: dict[str, str]
    template: PodTemplate

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not self.minReplicas <= self.replicas <= self.maxReplicas:
            raise ValueError("minReplicas, replicas and maxReplicas must be in order")
        return self


class AutoscalerOptions(_Part):
    """Ray's autoscaler, a container of the head pod."""

    version: Literal["v2"]
    idleTimeoutSeconds: int = Field(ge=1)


class AuthOptions(_Part):
    """Token authentication: KubeRay makes the token and hands it to the pods as a Secret."""

    mode: Literal["token"]


class RayCluster(_Part):
    """The cluster of a job."""

    rayVersion: str = Field(pattern=r"^\d+\.\d+\.\d+$")
    authOptions: AuthOptions
    enableInTreeAutoscaling: bool
    autoscalerOptions: AutoscalerOptions
    headGroupSpec: HeadGroup
    workerGroupSpecs: list[WorkerGroup] = Field(min_length=1)


class RayJobSpec(_Part):
    """A job with its cluster."""

    entrypoint: str = Field(min_length=1)
    submissionMode: Literal["K8sJobMode"]
    backoffLimit: int = Field(ge=0)
    shutdownAfterJobFinishes: bool
    ttlSecondsAfterFinished: int = Field(ge=0)
    rayClusterSpec: RayCluster

    @model_validator(mode="after")
    def _shutdown(self) -> Self:
        if self.ttlSecondsAfterFinished and not self.shutdownAfterJobFinishes:
            raise ValueError("ttlSecondsAfterFinished needs shutdownAfterJobFinishes: true")
        return self


class RayJob(_Part):
    """A RayJob."""

    apiVersion: Literal["ray.io/v1"]
    kind: Literal["RayJob"]
    metadata: Metadata
    spec: RayJobSpec
