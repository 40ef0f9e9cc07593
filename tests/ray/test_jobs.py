"""Submission to a cluster from outside: a real head with token authentication, and the command line as a user calls it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import threading
import time

import pytest
import yaml

from tests.deaf import DEAF
from tests.head import GATED, ROOT, TOKEN, Relay, free_ports, running_head, wait_for
from tests.terminal import OnTerminal
from wsss_ray.deploy.address import Access
from wsss_ray.runners.jobs import JobServer, LogTail

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def head():
    with running_head() as there:
        yield there


@pytest.fixture
def job(tmp_path):
    """A job on the gated data, and the arguments that go with it."""
    (tmp_path / "gated.py").write_text(GATED)
    trunk = {"kind": "small_net", "widths": [4, 8], "strides": [2, 1]}
    classifier = {"trunk": trunk, "kernel_size": 5, "epochs": None, "steps": 4, "batch_size": 8}
    method = {
        "name": "ficklenet",
        "classifier": classifier | {"augment": {"kind": "random_crop", "size": 32}},
        "localizer": {"size": None, "selections": 2},
        "seed_rule": {"background": {"kind": "cam_background", "threshold": 0.3}},
    }
    name = re.sub(r"\W+", "-", tmp_path.name)
    document = {"name": name, "method": method, "data": {"kind": "gated", "folder": str(tmp_path)}, "run": {"cpus_per_worker": 1}}
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump(document))
    return name, [file, "--store", tmp_path / "runs", "--until", "seed", "--include", tmp_path / "gated.py"]


def attempts(head, run):
    return {one.id: one.state for one in head.server().attempts() if one.run == run}


def test_a_run_from_submission_over_stop_and_resume_to_its_end(head, job, tmp_path):
    run, arguments = job
    at = ("--address", head.url)
    sent = head.call("submit", *arguments, *at, "--detach")
    assert sent.returncode == 0, sent.stderr
    first, *commands = sent.stdout.splitlines()
    attempt = first.removeprefix("submitted ")
    assert re.fullmatch(rf"{re.escape(run)}-\d{{8}}T\d{{6}}-[0-9a-f]{{4}}", attempt)
    assert [line.split()[1] for line in commands] == ["logs", "status", "stop"]
    wait_for(lambda: "images-weak: 16 images" in head.server().log(attempt))

    again = head.call("submit", *arguments, *at)
    assert again.returncode == 2
    assert attempt in again.stderr
    assert f"wsss-ray stop {attempt}" in again.stderr

    def row():
        listed = head.call("ps", RAY_API_SERVER_ADDRESS=head.url, RAY_ADDRESS="127.0.0.1:1")
        return next(line.split() for line in listed.stdout.splitlines() if line.startswith(attempt))

    found = wait_for(lambda: "shards" in (found := row()) and found)  # at first nobody has begun
    assert found[1:] == [run, "RUNNING", "0/5", "images-weak", "0/2", "shards", "-", "-", *found[9:]]

    stopped = head.call("stop", attempt, *at)
    assert (stopped.returncode, "STOPPED" in stopped.stdout) == (0, True), stopped.stderr
    assert "had already ended: STOPPED" in head.call("stop", run, *at).stdout
    assert not (tmp_path / "imported").exists(), "it was stopped before its first image"

    (tmp_path / "open").touch()
    options = ("--store", tmp_path / "runs", "--until", "seed", "--include", tmp_path / "gated.py")
    resumed = head.call("resume", run, *options, *at)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert "Traceback" not in resumed.stdout
    assert head.call("logs", run, *at).stdout in resumed.stdout, "the latest attempt's log, each line once"
    assert len(re.findall(r"^seeds +seed-\S+ +16 images", resumed.stdout, re.MULTILINE)) == 1
    assert sorted(attempts(head, run).values()) == ["STOPPED", "SUCCEEDED"]

    imported = (tmp_path / "imported").read_text()
    assert "working_dir_files" in imported, "workers import the package that was shipped"
    assert not imported.startswith(str(ROOT))
    about = json.loads((tmp_path / "runs" / "runs" / run / "run.json").read_text())
    assert attempts(head, run)[about["attempt"]] == "SUCCEEDED"
    assert {stage["kind"] for stage in about["stages"]} >= {"ingest", "train", "localize", "seed"}
    for stage in about["stages"]:
        assert (tmp_path / "runs" / "stages" / stage["id"] / "record.json").exists()
    status = head.call("status", "--store", tmp_path / "runs")
    assert {run, "5/5"} <= set(status.stdout.splitlines()[1].split())


def test_a_failure_is_streamed_and_named(head, job, tmp_path):
    run, arguments = job
    (tmp_path / "open").touch()
    failed = head.call("submit", *arguments, "--address", head.url, "--set", "data.broken=true")
    assert failed.returncode == 2
    assert "Traceback" not in failed.stdout + failed.stderr
    assert "16 of 16 images failed" in failed.stdout.splitlines()[-2] + failed.stdout.splitlines()[-1]
    assert failed.stderr.splitlines()[-1].endswith(f"--address {head.url}`")
    assert f"wsss-ray resume {run} --store {tmp_path / 'runs'} --until seed --include" in failed.stderr
    row = next(line for line in head.call("ps", "--address", head.url).stdout.splitlines() if line.startswith(run))
    assert " FAILED " in row
    assert "16 of 16 images failed" in row


@pytest.mark.parametrize(("answer", "code", "state"), [("d", 0, "RUNNING"), ("s", 130, "STOPPED")])
def test_ctrl_c_on_a_terminal_asks(head, job, answer, code, state):
    run, arguments = job
    terminal = OnTerminal(head.command("submit", *arguments, "--address", head.url), head.environment)
    attempt = terminal.read_until(r"submitted (\S+)")[1]
    terminal.read_until("images-weak: 16 images")
    terminal.type("\x03")
    terminal.read_until(r"\[c\]ontinue\? ")
    terminal.type("c\n")
    time_to_read_on = time.monotonic() + 3
    wait_for(lambda: time.monotonic() > time_to_read_on)
    terminal.type("\x03")
    terminal.read_until(r"\[c\]ontinue\? ")
    terminal.type(f"{answer}\n")
    assert terminal.end() == code
    assert "images-weak" not in terminal.seen, "what was shown is not shown again"
    assert attempts(head, run) == {attempt: state}
    if state == "RUNNING":
        assert f"wsss-ray logs {attempt} --follow" in terminal.seen
        assert head.server().stop(attempt).state == "STOPPED"
    else:
        assert f"wsss-ray resume {run}" in terminal.seen.replace("\r\n", " ")


def test_an_interrupt_without_a_terminal_detaches(head, job):
    run, arguments = job
    process = subprocess.Popen(
        [*DEAF, *head.command("submit", *arguments, "--address", head.url)],
        env=head.environment | {"PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    attempt = process.stdout.readline().split()[1]
    for line in process.stdout:
        if line.startswith("images-weak"):
            break
    process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=60)[0]
    assert process.returncode == 130, rest
    assert rest.startswith(f"detached; {attempt} is still running")
    assert attempts(head, run) == {attempt: "RUNNING"}
    head.server().stop(attempt)


def test_a_lost_connection_is_taken_up_again(head, job, tmp_path):
    _, arguments = job
    sent = head.call("submit", *arguments, "--address", head.url, "--detach", "--set", "data.broken=true")
    attempt = sent.stdout.split()[1]
    relay = Relay(int(head.url.rpartition(":")[2]))
    shown: list[str] = []
    tail = LogTail(JobServer(Access(f"http://127.0.0.1:{relay.port}", TOKEN)), attempt, write=shown.append, note=shown.append)
    ends: list[object] = []
    thread = threading.Thread(target=lambda: ends.append(tail.follow(pause=0.2)), daemon=True)
    thread.start()
    wait_for(lambda: "images-weak: 16 images" in "".join(shown))
    with relay.cut():
        (tmp_path / "open").touch()
        wait_for(lambda: head.server().attempt(attempt).is_over)
        assert "failed" not in "".join(shown)
    thread.join(60)
    assert [end.state for end in ends] == ["FAILED"]
    assert "".join(shown) == head.server().log(attempt)


def test_what_cannot_be_used_is_refused_in_one_line(head, job, tmp_path):
    _, arguments = job
    wrong = tmp_path / "wrong"
    wrong.write_text("not-the-token")
    [closed] = free_ports(1)
    cases = [
        (("ps", "--address", head.url), {"RAY_AUTH_TOKEN_PATH": str(wrong)}, "rejects the token. Give this cluster's token by"),
        (("ps", "--address", head.url), {"RAY_AUTH_MODE": "disabled"}, "asks for a token"),
        (("ps", "--address", f"http://127.0.0.1:{closed}"), {}, "no job server answers there"),
        (("ps",), {}, "RAY_API_SERVER_ADDRESS"),
        (("logs", "nobody", "--address", head.url), {}, "knows no attempt and no run 'nobody'"),
        (("submit", *arguments, "--address", f"127.0.0.1:{closed}"), {}, "nothing answers there"),
        (("submit", *arguments, "--address", "http://192.0.2.1:8265"), {"RAY_AUTH_MODE": "disabled"}, "refused without a token"),
        (("submit", *arguments, "--address", "ray://head:10001"), {}, "Ray Client"),
        (("submit", *arguments, "--detach"), {}, "--detach: goes with"),
        (("submit", *arguments, "--address", head.url, "--store", "here"), {}, "run.store: here is relative"),
        (("resume", "tiny", "--address", head.url), {}, "--store runs: is relative"),
    ]
    for command, environment, message in cases:
        done = head.call(*command, **environment)
        assert done.returncode == 2, command
        assert message in done.stderr
        assert done.stderr.count("\n") == 1, done.stderr
        assert TOKEN not in done.stdout + done.stderr
        assert "not-the-token" not in done.stdout + done.stderr
    assert head.server().attempts() == head.server().attempts(all_jobs=True), "nothing was submitted beside ours"
