"""Rendered YAML by the schemas of those who read it: Ray's own, a strict model of the RayJob, Kubernetes'."""

from __future__ import annotations

import re
import subprocess

import pytest
import yaml
from pydantic import ValidationError

from tests.rendering import ROOT, examples, rendered
from wsss_ray.deploy.manifests.rayjob import RayJob
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


def test_the_ray_job_is_one_by_the_strict_model():
    job = RayJob.model_validate(ray_job())
    assert job.spec.entrypoint == "python -m wsss_ray submit /etc/wsss-ray/job.yaml --address auto"
    cluster = job.spec.rayClusterSpec
    assert (cluster.authOptions.mode, cluster.autoscalerOptions.version) == ("token", "v2")
    (workers,) = cluster.workerGroupSpecs
    assert (workers.minReplicas, workers.replicas, workers.maxReplicas) == (2, 2, 4)
    assert workers.template.spec.containers[0].resources.limits["nvidia.com/gpu"] == "1"
    assert "nvidia.com/gpu" not in cluster.headGroupSpec.template.spec.containers[0].resources.limits


WORKERS = "spec.rayClusterSpec.workerGroupSpecs.0"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("spec.shutdownAfterJobFinish", True, "Extra inputs are not permitted"),
        ("spec.submissionMode", "K8sMode", "Input should be 'K8sJobMode'"),
        ("spec.shutdownAfterJobFinishes", False, "ttlSecondsAfterFinished needs"),
        ("spec.rayClusterSpec.authOptions.mode", "disabled", "Input should be 'token'"),
        ("spec.rayClusterSpec.rayVersion", "latest", "should match pattern"),
        (f"{WORKERS}.replicas", "two", "valid integer"),
        (f"{WORKERS}.replicas", "2", "valid integer"),
        (f"{WORKERS}.minReplicas", 3, "must be in order"),
        (f"{WORKERS}.template.spec.containers", [], "at least 1 item"),
        (f"{WORKERS}.template.spec.volumes.0.configMap", {"name": "x"}, "exactly one of configMap"),
        ("metadata.name", "Demo_1", "should match pattern"),
        ("kind", "RayCluster", "Input should be 'RayJob'"),
    ],
)
def test_mistakes_in_a_ray_job_are_caught(path, value, message):
    job = ray_job()
    *parents, last = path.split(".")
    block = job
    for part in parents:
        block = block[int(part)] if part.isdigit() else block[part]
    block[last] = value
    with pytest.raises(ValidationError, match=message):
        RayJob.model_validate(job)


def test_kubernetes_accepts_the_other_kinds_and_the_pods():
    validator = pytest.importorskip("kubernetes_validate")
    *others, job = yaml.safe_load_all(examples("kuberay")[0].read_text())
    assert [one["kind"] for one in others] == ["ConfigMap", "NetworkPolicy"]
    cluster = job["spec"]["rayClusterSpec"]
    templates = [cluster["headGroupSpec"]["template"], *(group["template"] for group in cluster["workerGroupSpecs"])]
    for one in (*others, *({"apiVersion": "v1", "kind": "Pod", **template} for template in templates)):
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
