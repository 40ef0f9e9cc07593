"""Rendered YAML by the schemas of those who read it: Ray's own, KubeRay's, Kubernetes'."""

from __future__ import annotations

import re
import subprocess

import pytest
import yaml

from tests.kuberay import REFUSALS, check_ray_job
from tests.rendering import ROOT, examples, rendered
from wsss_ray.deploy.manifests.request import RAY_VERSION

# -- ray up ------------------------------------------------------------------------------------------------------------------

CLOUDS = {
    "aws": ["--cloud", "aws:eu-central-1"],
    "gcp": ["--cloud", "gcp:my-project/us-central1-a"],
    "local": ["--cloud", "local:me@10.0.0.1,10.0.0.2,10.0.0.3", "--package", "wsss-ray==0.1.0"],
}


@pytest.mark.parametrize("cloud", CLOUDS)
def test_ray_accepts_its_yaml(cloud):
    pytest.importorskip("jsonschema")
    util = pytest.importorskip("ray.autoscaler._private.util")
    args = ["--store", "s3://bucket/runs", "--set", "run.workers=[1,4]", *CLOUDS[cloud]]
    config = yaml.safe_load(rendered("ray-up", str(ROOT / "jobs/demo.yaml"), *args))
    if cloud != "local":  # Ray itself writes the node types of a local cluster
        util.validate_config(config)
    prepared = util.prepare_config(config)
    util.validate_config(prepared)
    kinds = prepared["available_node_types"]
    kind = kinds["local.cluster.node" if cloud == "local" else "worker"]
    assert (kind["min_workers"], kind["max_workers"]) == ((1, 2) if cloud == "local" else (1, 4))
    if cloud != "local":
        assert kinds["head"]["resources"]["GPU"] == 0
        assert kinds["head"]["resources"]["CPU"] > 1
        assert kinds["head"].get("max_workers", 0) == 0


def test_ray_catches_mistakes_in_its_yaml():
    jsonschema = pytest.importorskip("jsonschema")
    util = pytest.importorskip("ray.autoscaler._private.util")
    config = yaml.safe_load(examples("ray-up")[0].read_text())
    with pytest.raises(jsonschema.ValidationError, match="idle_timeout_minuts"):
        util.validate_config({**config, "idle_timeout_minuts": 5})


def test_the_heads_commands_start_ray_with_the_token_and_on_loopback(tmp_path):
    config = yaml.safe_load(examples("ray-up")[0].read_text())
    for command in (config["head_start_ray_commands"][-1], config["worker_start_ray_commands"][-1]):
        assert "RAY_AUTH_MODE=token" in command
    assert "--dashboard-host=127.0.0.1" in config["head_start_ray_commands"][-1]
    assert config["cluster_synced_files"] == ["~/.ray/auth_token"]
    assert list(config["file_mounts"].values()) == ["dist/wsss_ray-0.1.0-py3-none-any.whl"]
    write_job = config["head_setup_commands"][-1]  # Ray runs a command in parentheses, behind others
    subprocess.run(["bash", "-c", f"true && ({write_job})"], env={"HOME": str(tmp_path), "PATH": "/bin:/usr/bin"}, check=True)
    assert yaml.safe_load((tmp_path / "job.yaml").read_text())["name"] == "demo"


# -- Kubernetes --------------------------------------------------------------------------------------------------------------


def ray_job() -> dict:
    *_, job = yaml.safe_load_all(examples("kuberay")[0].read_text())
    return job


def test_the_ray_job_runs_the_job_on_the_machines_it_asks_for():
    job = ray_job()
    check_ray_job(job)
    assert job["spec"]["entrypoint"] == "python -m wsss_ray submit /etc/wsss-ray/job.yaml --address auto"
    cluster = job["spec"]["rayClusterSpec"]
    assert (cluster["authOptions"]["mode"], cluster["autoscalerOptions"]["version"]) == ("token", "v2")
    (workers,) = cluster["workerGroupSpecs"]
    assert (workers["minReplicas"], workers["replicas"], workers["maxReplicas"]) == (2, 2, 4)
    head = cluster["headGroupSpec"]
    assert workers["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert "nvidia.com/gpu" not in head["template"]["spec"]["containers"][0]["resources"]["limits"]


@pytest.mark.parametrize("gpus", ["0", "1", "8"])
@pytest.mark.parametrize("store", ["s3://bucket/runs", "/data/runs"])
def test_every_ray_job_is_one_by_kuberays_schema(gpus, store):
    args = ["--store", store, "--set", "run.workers=[3,16]", "--set", "name=" + "x" * 80, "--gpus-per-node", gpus]
    *_, job = yaml.safe_load_all(rendered("kuberay", str(ROOT / "jobs/demo.yaml"), *args, "--until", "train"))
    check_ray_job(job)
    assert job["spec"]["entrypoint"].endswith(" --until train")
    mounted = [mount["mountPath"] for mount in pod(job, "headGroupSpec")["containers"][0]["volumeMounts"]]
    assert mounted == ["/etc/wsss-ray", *(["/data/runs"] if store.startswith("/") else [])]


def pod(job: dict, group: str) -> dict:
    return job["spec"]["rayClusterSpec"][group]["template"]["spec"]


WORKERS = "spec.rayClusterSpec.workerGroupSpecs.0"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("spec.shutdownAfterJobFinish", True, "Additional properties are not allowed"),
        ("spec.submissionMode", "K8sMode", "submissionMode is K8sJobMode"),
        ("spec.shutdownAfterJobFinishes", False, "ttlSecondsAfterFinished needs"),
        ("spec.rayClusterSpec.authOptions.mode", "disabled", "authOptions.mode is token"),
        ("spec.rayClusterSpec.rayVersion", "latest", "rayVersion is three numbers"),
        (f"{WORKERS}.replicas", "two", "'two' is not of type 'integer'"),
        (f"{WORKERS}.replicas", "2", "'2' is not of type 'integer'"),
        (f"{WORKERS}.minReplicas", 3, "replicas are in order"),
        (f"{WORKERS}.template.spec.containers", [], "a pod has one container"),
        (f"{WORKERS}.template.spec.volumes.0.configMap", {"name": "x"}, "exactly one of configMap"),
        (f"{WORKERS}.template.spec.hostNetwrk", True, "Additional properties are not allowed"),
        (f"{WORKERS}.template.spec.containers.0.securityContext.allowPrivilegeEscalation", True, "a container has no rights"),
        (f"{WORKERS}.template.spec.hostNetwork", True, "only the fields that it needs"),
        (f"{WORKERS}.template.spec.automountServiceAccountToken", True, "no token of Kubernetes"),
        (f"{WORKERS}.template.spec.securityContext.runAsUser", 0, "a pod runs as a user"),
        (f"{WORKERS}.template.spec.containers.0.resources.limits.cpu", "7", "requests are limits"),
        ("spec.rayClusterSpec.headGroupSpec.serviceType", "LoadBalancer", "Service is internal"),
        ("metadata.name", "Demo_1", "metadata.name is a label"),
        ("kind", "RayCluster", "is a RayJob"),
    ],
)
def test_mistakes_in_a_ray_job_are_caught(path, value, message):
    job = ray_job()
    *parents, last = path.split(".")
    block = job
    for part in parents:
        block = block[int(part)] if part.isdigit() else block[part]
    block[last] = value
    with pytest.raises(REFUSALS, match=message):
        check_ray_job(job)


def test_kubernetes_accepts_the_other_kinds():
    validator = pytest.importorskip("kubernetes_validate")
    *others, _ = yaml.safe_load_all(examples("kuberay")[0].read_text())
    assert [one["kind"] for one in others] == ["ConfigMap", "NetworkPolicy"]
    for one in others:
        validator.validate(one, "1.33", strict=True)
    with pytest.raises(validator.ValidationError):
        validator.validate({**others[0], "dta": {}}, "1.33", strict=True)


def test_names_that_kubernetes_does_not_take_are_mended():
    text = rendered("kuberay", str(ROOT / "jobs/demo.yaml"), "--store", "s3://b/r", "--set", "name=3_Runs.of-" + "x" * 80)
    *_, job = yaml.safe_load_all(text)
    assert job["metadata"]["name"] == ("job-3-runs-of-" + "x" * 80)[:47]


def test_the_version_of_ray_is_the_one_that_the_package_needs():
    low, high = re.search(r'"ray\[[\w,]+\]>=([\d.]+),<([\d.]+)"', (ROOT / "pyproject.toml").read_text()).groups()
    numbers = [tuple(map(int, version.split("."))) for version in (low, RAY_VERSION, high)]
    assert numbers == sorted(numbers)
