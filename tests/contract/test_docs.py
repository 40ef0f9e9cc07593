"""What the pages tell people to type: every command is known, every block is what it looks like, every link leads somewhere.

The pages whose commands are run, in small worlds of their own, are in test_pages.py.
"""

from __future__ import annotations

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest

from tests.pages import GROUP, PAGES, ROOT, blocks, commands, fenced, inner, name_of, options, parse, spans
from wsss_ray.config.job import read_job

ELSEWHERE = {
    **dict.fromkeys(("docker", "sudo"), "needs a container engine"),
    **dict.fromkeys(("helm", "kubectl"), "needs Kubernetes"),
    **dict.fromkeys(("ray", "sbatch"), "needs a cluster"),
    **dict.fromkeys(("tensorboard", "wandb"), "looks at what is tested without it"),
    **dict.fromkeys(("curl", "tar", "md5sum"), "for downloads; their digests are in test_pages.py"),
    **dict.fromkeys(("git", "python3", ".", "cd", "export", "(umask", "mkdir", "cp", "mv", "diff", "echo", "tail"), "shell"),
}
WRITTEN = {"job.yaml": "by init, and by render for a cluster", "photos.yaml": "by init on docs/own_data.md"}
NO_COMMANDS = {
    "docs/architecture.md": r"job YAML -> |STORE/stages/",
    "docs/artifacts.md": r"STORE/stages/",
    "docs/cluster.md": r"error: stage ",
    "docs/scaling.md": r"GPU hours of the maps +=",
    "docs/reproduce_voc.md": r"GPU hours +=|/data/VOC2012/",
    "benchmarks/stamps/README.md": r"[0-9a-f]{64}$",
}
OTHERS = {
    **dict.fromkeys(("--no-deps", "--no-build-isolation"), "pip"),
    **dict.fromkeys(("--time", "--partition", "--account", "--exclusive"), "Slurm"),
    **dict.fromkeys(("--full", "--only"), "benchmarks"),
    **dict.fromkeys(("--fetch", "--stamps", "--backgrounds", "--train", "--test", "--size", "--seed"), "benchmarks/stamps"),
    **dict.fromkeys(("--object-store-memory", "--temp-dir"), "ray start"),
}
NAMES = [name_of(page) for page in PAGES]
PROJECT = (ROOT / "pyproject.toml").read_text()
EXTRAS = re.findall(r"^(\w+) = \[", PROJECT.partition("[project.optional-dependencies]")[2], re.MULTILINE)


def is_python(text):
    try:
        ast.parse(text)
    except SyntaxError:
        return False
    return True


def check_ours(arguments):
    """A command of wsss-ray: its options, and the job file with what is set in it."""
    if len(arguments) == 1:
        alone = ("--version", "--help", "--install-completion", "--show-completion")
        assert arguments[0] in (*GROUP.commands, *alone), f"there is no command {arguments[0]}"
        return
    place = {"TARGET": "slurm", "JOB": "jobs/demo.yaml"}
    _, values = parse([place.get(word, word) for word in arguments])
    job = values.get("job_file")
    if job is None or job.name in WRITTEN:
        return
    assert (ROOT / job).is_file(), f"there is no {job}"
    read_job(ROOT / job, [text.replace("=...", "=none") for text in values["override"] or () if text != "..."]).trials()


def check_python(words):
    """A module or script of this repository: it is there, and has the options."""
    target = words[2] if words[1] == "-m" else words[1]
    if target in ("pytest", "venv", "build", "twine", "pip"):
        assert all((ROOT / word).exists() for word in words[3:] if word.startswith("tests/"))
        return
    file = ROOT / (target if words[1] != "-m" else target.replace(".", "/") + ".py")
    file = file if file.is_file() else file.with_suffix("") / "__main__.py"
    text = file.read_text()
    assert all(f'"{word}"' in text for word in words if word.startswith("--")), words


def check(words):
    """Raise if a command cannot be what is meant."""
    words = words[next((place for place, word in enumerate(words) if not re.match(r"[A-Z]+=\S*$", word)), 0) :]
    ours = inner(words)
    if ours is not None:
        check_ours(ours)
    elif words[0] == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert set(words[1:]) <= set(targets), words
    elif words[0] == "pip":
        named = re.findall(r"(?:wsss-ray|^\.)\[([\w,]+)\]", "\n".join(words), re.MULTILINE)
        assert {extra for found in named for extra in found.split(",")} <= set(EXTRAS), words
    elif words[0] == "python":
        check_python(words)
    elif words[0].startswith("--"):
        used = {word for word in words if word.startswith("--")}
        assert used <= options() | OTHERS.keys(), f"no command has {used}"
    else:
        assert words[0] in ELSEWHERE, f"{words[0]}: is run by no test; say in ELSEWHERE why"


@pytest.mark.parametrize("page", NAMES)
def test_every_block_is_commands_python_or_what_it_says(page):
    for block in blocks(page):
        if block.language in ("sh", "") and not re.match(NO_COMMANDS.get(page, "$^"), block.text):
            if block.language == "sh" or not is_python(block.text):
                for command in commands(block):
                    try:
                        check(command.words)
                    except (Exception, SystemExit) as error:
                        raise AssertionError(f"{command}: {error}") from error
        elif block.language == "python":
            assert is_python(block.text), block


@pytest.mark.parametrize("page", NAMES)
def test_every_command_in_the_text_is_one(page):
    for span in spans(page):
        words = tuple(span.split())
        try:
            if words and words[0] in ("wsss-ray", "make", "python", "pip") and len(words) > 1:
                check(tuple(re.sub("['\"]", "", word) for word in words))
            elif re.match(r"--[a-z]", span):
                check(words)
        except (Exception, SystemExit) as error:
            raise AssertionError(f"{page}: `{span}`: {error}") from error


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("wsss-ray submit jobs/demo.yaml --stor runs", "No such option"),
        ("wsss-ray sumbit jobs/demo.yaml", "no command sumbit"),
        ("wsss-ray plan jobs/demon.yaml", "there is no jobs/demon.yaml"),
        ("wsss-ray plan jobs/demo.yaml --set method.seed_rule.tetha=0.4", "no such field"),
        ("wsss-ray predict photos", "Missing"),
        ("docker compose exec head wsss-ray shw demo", "no command shw"),
        ("ray exec cluster.yaml 'python -m wsss_ray submit job.yaml --adress auto'", "No such option"),
        ("make demoo", "demoo"),
        ("pip install 'wsss-ray[onyx]'", "onyx"),
        ("python -m benchmarks --fulll", "fulll"),
        ("rm -rf runs", "is run by no test"),
    ],
)
def test_a_mistake_in_a_page_is_found(text, why):
    with pytest.raises((Exception, SystemExit), match=why):
        check(tuple(shlex.split(text)))


def test_the_walk_through_passes_the_contract_tests(tmp_path):
    """A copy of the package with one new file and one new job, nothing else touched."""
    for part in ("wsss_ray", "tests", "jobs", "benchmarks", "cluster", "docs", "README.md", "pyproject.toml"):
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, tmp_path / part)
    (code,) = fenced("docs/adding_a_method.md", "python")
    (job,) = fenced("docs/adding_a_method.md", "yaml")
    (tmp_path / "wsss_ray/methods/otsu.py").write_text(code)
    (tmp_path / "jobs/otsu.yaml").write_text(job)
    only = ["tests/contract/test_methods.py", "tests/contract/test_jobs.py", "-k", "otsu or small_versions or every_method"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *only]
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 12
    assert "skipped" not in done.stdout


@pytest.mark.parametrize("text", fenced("docs/sweeps.md", "yaml"), ids=["trials", "space"])
def test_the_sweeps_of_the_page_are_jobs(tmp_path, text):
    (tmp_path / "job.yaml").write_text(f"base: {ROOT / 'jobs/demo.yaml'}\nname: page\n{text}")
    trials = read_job(tmp_path / "job.yaml").trials()
    assert len({one.job.name for one in trials}) == len(trials) > 2


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_and_paths_exist(page):
    text = page.read_text()
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", text):
        assert (page.parent / target).exists(), target
    for path in re.findall(r"`((?:wsss_ray|tests|benchmarks|jobs|docs|cluster)/[\w/.]*\w)`", text):
        if path not in ("wsss_ray/methods/otsu.py", "jobs/otsu.yaml"):
            assert (ROOT / path).exists(), path
