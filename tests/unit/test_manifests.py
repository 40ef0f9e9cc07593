"""Manifests: the checked-in ones are what their commands render, they carry the job and no secret, and ask for what it needs."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.rendering import ROOT, TARGETS, commands, examples, render, rendered
from wsss_ray.config.job import load_job
from wsss_ray.config.run import Execution
from wsss_ray.deploy.manifests import Cloud, Machines


@pytest.mark.parametrize("command", commands(), ids=lambda command: command[1])
def test_the_checked_in_examples_are_what_their_commands_render(command, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    place = command.index("--out") + 1
    render(*command[1:place], str(tmp_path / "made"), *command[place + 1 :])
    assert (tmp_path / "made").read_bytes() == Path(command[place]).read_bytes(), "run cluster/render.sh"


def test_every_target_has_an_example_and_a_readme():
    assert {command[1] for command in commands()} == set(TARGETS)
    for target in TARGETS:
        assert (ROOT / "cluster" / target / "README.md").is_file()


def embedded(target: str, text: str) -> str:
    """The job file that a manifest carries, as the cluster gets it."""
    if target == "kuberay":
        return next(yaml.safe_load_all(text))["data"]["job.yaml"]
    if target == "compose":
        return yaml.safe_load(text)["configs"]["job"]["content"].replace("$$", "$")
    if target == "ray-up":
        text = yaml.safe_load(text)["head_setup_commands"][-1]
    return re.search(r"<<'WSSS_RAY_JOB'\n(.*?)^WSSS_RAY_JOB$", text, re.MULTILINE | re.DOTALL)[1]


@pytest.mark.parametrize("target", TARGETS)
def test_a_manifest_carries_the_job_with_its_base_and_overrides(target, tmp_path):
    (tmp_path / "job.yaml").write_text(f"base: {ROOT}/jobs/demo.yaml\nname: other\nrun: {{store: /data/runs}}\n")
    overrides = ["--set", "method.seed_rule.theta=0.123"]
    text = rendered(target, str(tmp_path / "job.yaml"), *overrides, "--until", "seed", "--gpus-per-node", "0")
    (tmp_path / "found.yaml").write_text(embedded(target, text))
    expected = load_job(tmp_path / "job.yaml", ["method.seed_rule.theta=0.123"])
    assert load_job(tmp_path / "found.yaml").spec() == expected.spec()
    assert "--address auto --until seed" in text


@pytest.mark.parametrize("target", TARGETS)
def test_values_of_environment_variables_are_not_written_down(target, tmp_path, monkeypatch):
    monkeypatch.setenv("BUCKET_KEY", "hunter2")
    (tmp_path / "job.yaml").write_text(f"base: {ROOT}/jobs/demo.yaml\nrun: {{store: 's3://${{BUCKET_KEY}}/runs'}}\n")
    text = rendered(target, str(tmp_path / "job.yaml"))
    assert "hunter2" not in text
    assert "${BUCKET_KEY}" in embedded(target, text)
    assert "needs in its environment: BUCKET_KEY" in text


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    ("job", "overrides", "parts"),
    [
        ("demo", {}, ["run.store", "'runs' is relative", "s3://bucket/runs"]),
        ("ficklenet", {"run.store": "/data/runs"}, ["data.root", "'data/VOC2012' is relative", "absolute path"]),
        ("folder", {"run.store": "/data/runs", "data.root": "/data/photos"}, ["data.tags", "'tags.csv'"]),
        (
            "ficklenet",
            {"run.store": "/data/runs", "data.root": "/data/VOC2012", "method.classifier.trunk.weights": "vgg.pth"},
            ["method.classifier.trunk.weights", "'vgg.pth' is relative"],
        ),
        ("demo", {"run.store": "/data/runs", "run.gpu": "false", "GPUS": "2"}, ["run.gpu is false", "--gpus-per-node is 2"]),
        ("demo", {"run.store": "/data/runs", "run.gpu": "true", "GPUS": "0"}, ["run.gpu is true", "--gpus-per-node is 0"]),
    ],
)
def test_what_cannot_run_is_refused_in_one_line(target, job, overrides, parts):
    args = [part for name, value in overrides.items() if name != "GPUS" for part in ("--set", f"{name}={value}")]
    args += ["--gpus-per-node", overrides["GPUS"]] if "GPUS" in overrides else []
    message = render(target, str(ROOT / f"jobs/{job}.yaml"), *args, code=2).strip()
    assert "\n" not in message
    assert all(part in message for part in parts), message


@pytest.mark.parametrize("target", ["kuberay", "compose"])
def test_paths_that_share_no_folder_cannot_be_mounted(target):
    args = ["--set", "run.store=/runs", "--set", "data.root=/voc"]
    message = render(target, str(ROOT / "jobs/ficklenet.yaml"), *args, code=2)
    assert "run.store (/runs) and data.root (/voc) cannot be mounted as one folder" in message


@pytest.mark.parametrize(
    ("run", "options", "expected"),
    [
        ({}, {}, (1, 4, 1, 1)),
        ({"gpu": False}, {}, (0, 4, 1, 1)),
        ({"workers": 8, "loader_workers": 4}, {"gpus_per_node": 4}, (4, 21, 2, 2)),
        ({"workers": (2, 6)}, {"gpus_per_node": 4}, (4, 5, 1, 2)),
        ({"workers": 3, "label_workers": 8}, {"gpus_per_node": 0}, (0, 10, 3, 3)),
        ({"workers": 2, "cpus_per_worker": 7.5}, {}, (1, 9, 2, 2)),
        ({"workers": 1, "image_workers": 8, "gpus_per_image_worker": 0.5}, {}, (1, 4, 1, 4)),
        ({"workers": 1, "image_workers": (1, 8)}, {"gpus_per_node": 0}, (0, 4, 1, 1)),
        ({}, {"cpus_per_node": 32}, (1, 32, 1, 1)),
    ],
)
def test_machines_of_a_run_block(run, options, expected):
    machines = Machines.of(Execution.model_validate(run), **options)
    assert (machines.gpus, machines.cpus, machines.fewest, machines.most) == expected


def test_too_few_cpus_are_refused():
    with pytest.raises(ValueError, match=r"--cpus-per-node 4 is less than the 21 that 4 training workers need; give at least 21"):
        Machines.of(Execution(workers=4, loader_workers=4), gpus_per_node=4, cpus_per_node=4)


@pytest.mark.parametrize(
    ("text", "image", "message"),
    [("azure:x", "i", "write aws:REGION"), ("gcp:project", "i", "write aws:REGION"), ("aws:us-west-2", None, "--vm-image")],
)
def test_clouds_that_are_not_there(text, image, message):
    with pytest.raises(ValueError, match=message):
        Cloud.of(text, image=image)


def test_a_machine_that_no_cloud_has():
    with pytest.raises(ValueError, match=r"no machine of aws is known; GPUs: 0, 1, 4, 8"):
        Cloud.of("aws:us-west-2", image="i").machine(gpus=3, cpus=4)


# -- Slurm and containers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("script", [*examples("slurm"), ROOT / "cluster/render.sh"], ids=lambda script: script.name)
@pytest.mark.parametrize("checker", [["bash", "-n"], ["shellcheck"]], ids=lambda checker: checker[0])
def test_scripts_are_sound(script, checker):
    if not shutil.which(checker[0]):
        pytest.skip(f"needs {checker[0]}: apt-get install {checker[0]}")
    done = subprocess.run([*checker, str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_batch_script_asks_for_what_the_job_needs():
    text = examples("slurm")[0].read_text()
    options = re.findall(r"^#SBATCH --(\S+)", text, re.MULTILINE)
    for option in ("nodes=2", "gpus-per-node=4", "exclusive", "requeue", "signal=B:USR1@120"):
        assert option in options
    assert "--dashboard-host=127.0.0.1" in text
    assert "RAY_AUTH_MODE=token" in text


def test_a_range_of_workers_is_a_range_of_nodes():
    args = ["--store", "s3://b/r", "--set", "run.workers=[2,6]", "--gpus-per-node", "2"]
    assert "#SBATCH --nodes=1-3\n" in rendered("slurm", str(ROOT / "jobs/demo.yaml"), *args)


def test_containers_are_reached_from_this_machine_only_and_with_the_token():
    document = yaml.safe_load(examples("compose")[0].read_text())
    for service in document["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        assert service["env_file"] == [{"path": "wsss-ray.env", "required": True}]
        assert service["environment"]["RAY_AUTH_MODE"] == "token"
        assert not any("TOKEN" in name or "SECRET" in name for name in service["environment"])
        assert service["shm_size"]
    assert document["services"]["worker"]["deploy"]["replicas"] == 2
    assert "wsss-ray.env" in (ROOT / "cluster/compose/.gitignore").read_text().split()


def test_one_container_has_all_gpus_of_a_machine():
    args = ["--store", "/data/runs", "--set", "run.workers=[2,4]"]
    worker = yaml.safe_load(rendered("compose", str(ROOT / "jobs/demo.yaml"), *args))["services"]["worker"]
    (device,) = worker["deploy"]["resources"]["reservations"]["devices"]
    assert (worker["deploy"]["replicas"], device["count"], "--num-gpus=4" in worker["command"]) == (1, 4, True)


def setup_of(*options: str, job: str = "demo") -> str:
    args = ["--store", "s3://b/r", "--vm-image", "ami-0", *options]
    return "\n".join(yaml.safe_load(render("ray-up", str(ROOT / f"jobs/{job}.yaml"), *args))["setup_commands"])


def test_machines_have_open_clip_only_for_a_job_with_clip():
    options = ("--gpus-per-node", "0", "--set", "data.root=/data/VOC2012")
    assert "[coco,efficientnet,sprites,timm,clip]==" in setup_of(*options, job="clip_es")
    assert "clip" not in setup_of(*options, job="mctformer")


def test_machines_have_a_compiler_only_if_they_need_one():
    pydensecrf = ("--set", "method.metric.crf={backend: pydensecrf}")
    without, on_gpus, built = setup_of("--gpus-per-node", "0"), setup_of(), setup_of("--gpus-per-node", "0", *pydensecrf)
    assert "g++" not in without
    assert "python3-dev" not in without
    assert "python3-venv" in without
    assert "python3-venv python3-dev g++" in on_gpus, "Triton's kernels"
    assert "python3-venv python3-dev g++" in built
    assert "[coco,efficientnet,sprites,timm]==" in without
    assert "[coco,efficientnet,sprites,timm,crf]==" in built
    wheel = setup_of("--gpus-per-node", "0", "--package", "dist/wsss_ray-1-py3-none-any.whl", *pydensecrf)
    assert "wsss_ray-1-py3-none-any.whl[coco,efficientnet,sprites,timm,crf]" in wheel


def test_the_image_has_the_torch_that_the_package_asks_for():
    project, image = (ROOT / "pyproject.toml").read_text(), (ROOT / "cluster/Dockerfile").read_text()
    for name in ("torch", "torchvision"):
        (needed,) = re.findall(rf'^    "({name}>=.*)",$', project, re.MULTILINE)
        assert f"'{needed}'" in image


def test_the_image_runs_as_a_user_from_named_versions():
    text = (ROOT / "cluster/Dockerfile").read_text()
    assert re.findall(r"^USER (\S+)$", text, re.MULTILINE)[-1] == "1000"
    assert ":latest" not in text
    bases = re.findall(r"\bBASE=(\S+)", text)
    assert len(bases) == 2
    assert all(re.search(r":\d", base) for base in bases)
