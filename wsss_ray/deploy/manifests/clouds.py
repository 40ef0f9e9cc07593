"""Name the virtual machines of AWS and Google Cloud, or the machines that are there, on which `ray up` starts a cluster."""

from __future__ import annotations

from dataclasses import dataclass

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


@dataclass(frozen=True)
class Cloud:
    """Name the machines: `aws:REGION`, `gcp:PROJECT/ZONE`, or `local:[USER@]HEAD,WORKER,...`."""

    kind: str
    where: str
    image: str | None = None

    @classmethod
    def of(cls, text: str, *, image: str | None) -> Cloud:
        """Read the option `--cloud`.

        Args:
            text: The option.
            image: The machine image of `--vm-image`; a local cluster needs none.

        Returns:
            The cloud.

        Raises:
            ValueError: if the text names no cloud, or the image is missing.
        """
        kind, _, where = text.partition(":")
        if kind not in ("aws", "gcp", "local") or not where or (kind == "gcp" and "/" not in where):
            raise ValueError(f"--cloud {text}: write aws:REGION, gcp:PROJECT/ZONE or local:USER@HEAD,WORKER,...")
        if kind != "local" and not image:
            raise ValueError(f"--cloud {text}: name the machine image (Ubuntu, with NVIDIA's driver for GPUs) by --vm-image")
        return cls(kind=kind, where=where, image=image)

    def machine(self, *, gpus: int, cpus: int) -> str:
        """Choose a machine type of AWS or Google Cloud.

        Args:
            gpus: GPUs of the machine, exactly.
            cpus: CPUs of the machine, at least.

        Returns:
            The smallest type that has them.

        Raises:
            ValueError: if no type has them.
        """
        known = _TYPES[self.kind]
        found = [name for has_gpus, has_cpus, name in known if has_gpus == gpus and has_cpus >= cpus]
        if not found:
            counts = sorted({has_gpus for has_gpus, _, _ in known})
            most = max((has_cpus for has_gpus, has_cpus, _ in known if has_gpus == gpus), default=0)
            allowed = f"at most {most} CPUs with {gpus} GPUs" if most else f"GPUs: {', '.join(map(str, counts))}"
            raise ValueError(f"--gpus-per-node {gpus} --cpus-per-node {cpus}: no machine of {self.kind} is known; {allowed}")
        return found[0]

    @property
    def project(self) -> str:
        """Name the project at Google Cloud."""
        return self.where.partition("/")[0]

    @property
    def zone(self) -> str:
        """Name the zone at Google Cloud."""
        return self.where.partition("/")[2]

    @property
    def region(self) -> str:
        """Name the region: that of the zone at Google Cloud."""
        return self.zone.rpartition("-")[0] if self.kind == "gcp" else self.where

    @property
    def user(self) -> str:
        """Name the user who logs in over SSH."""
        return self.where.partition("@")[0] if self.kind == "local" and "@" in self.where else "ubuntu"

    @property
    def hosts(self) -> list[str]:
        """List the machines of a local cluster, the head first."""
        return [host.strip() for host in self.where.rpartition("@")[2].split(",") if host.strip()]
