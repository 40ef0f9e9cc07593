"""Job files and the command line: one clear line per mistake, exit code 2, no traceback, and no Ray where none is needed."""

from __future__ import annotations

import subprocess
import sys

import pytest
import yaml

from wsss_ray.config.document import JobError, parse_document, to_yaml
from wsss_ray.config.job import load_job

GOOD = """\
name: test
method:
  name: ficklenet
  classifier:
    batch_size: 4
  seed_rule: {background: {kind: cam_background}}
data:
  kind: folder
  root: images
  tags: tags.csv
run:
  workers: 1
"""


def write(tmp_path, text):
    path = tmp_path / "job.yaml"
    path.write_text(text)
    return path


def test_partial_blocks_keep_the_methods_defaults(tmp_path):
    job = load_job(write(tmp_path, GOOD))
    assert job.method.classifier.batch_size == 4
    assert job.method.classifier.kernel_size == 9
    assert job.method.segmenter.batch_size == 20


@pytest.mark.parametrize(
    ("replace", "by", "line", "parts"),
    [
        ("batch_size", "batchsize", 5, ["method.classifier.batchsize", "no such field", "batch_size"]),
        ("batch_size: 4", "batch_size: four", 5, ["method.classifier.batch_size", "integer", "'four'"]),
        ("batch_size: 4", "batch_size: 0", 5, ["method.classifier.batch_size", "greater than or equal to 1"]),
        ("ficklenet", "fickelnet", 3, ["method", "'fickelnet'", "allowed: ", "ficklenet"]),
        ("name: ficklenet", "kind: ficklenet", 2, ["method", "name is missing"]),
        ("kind: folder", "kind: foldr", 8, ["data", "'foldr'", "allowed: ", "folder", "voc"]),
        ("name: test", "name: a/b", 1, ["name", "'a/b' cannot name a run. Use at most 100 letters, digits, "]),
        ("workers: 1", "workers: -1", 12, ["run.workers"]),
        ("workers: 1", "wrkers: 1", 12, ["run.wrkers", "no such field", "workers"]),
        ("workers: 1", "\tworkers: 1", 12, ["tabs"]),
        ("workers: 1", "workers: 1\n  workers: 2", 13, ["run.workers", "twice"]),
        ("batch_size: 4", "kernel_size: 4", 5, ["method.classifier.kernel_size", "odd"]),
        ("batch_size: 4", "steps: 5", 4, ["method.classifier", "both are set. Give exactly one of epochs and steps"]),
        ("batch_size: 4", "trunk: {kind: vgg19}", 5, ["method.classifier.trunk", "'vgg19'", "vgg16"]),
        ("kind: folder", "kind: [folder]", 8, ["data", "['folder']", "allowed: ", "folder"]),
        ("  root: images", "  root: images\n  classes: dog", 10, ["data.classes", "write a list, such as [dog]"]),
        ("  root: images", "  root: images\n  extra:", 10, ["data.extra", "write a list, such as []"]),
        ("  root: images", "  root: images\n  extra: {'0': {a: b}}", 10, ["such as [{'a': 'b'}]"]),
        ("batch_size: 4", "epochs: -1", 5, ["method.classifier.epochs", "greater than 0"]),
        ("run:\n  workers: 1", "run: &x\n  store: *x", 11, ["refers to itself. Write a value in its place."]),
        (GOOD, GOOD.replace(GOOD[GOOD.index("method:") : GOOD.index("data:")], "method: ficklenet\n"), 2, ["{name: ficklenet}"]),
        ("root: images", "root: ${NO_SUCH_VARIABLE}", 9, ["data.root", "NO_SUCH_VARIABLE", "not set"]),
        (GOOD, "- a\n- b\n", 1, ["mapping"]),
        (GOOD, "name: [", 1, []),
    ],
)
def test_mistakes_name_line_field_and_mend(tmp_path, replace, by, line, parts):
    path = write(tmp_path, GOOD.replace(replace, by, 1))
    with pytest.raises(JobError) as caught:
        load_job(path)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert message.startswith(f"{path}:{line}: ")
    for part in parts:
        assert part in message


def test_all_mistakes_are_reported_at_once(tmp_path):
    path = write(tmp_path, GOOD.replace("batch_size", "batchsize").replace("workers: 1", "workers: x"))
    with pytest.raises(JobError) as caught:
        load_job(path)
    assert len(str(caught.value).splitlines()) == 2


def test_overrides(tmp_path):
    path = write(tmp_path, GOOD)
    job = load_job(path, ["method.localizer.selections=7", "run.workers=2", "method.relabel=null"])
    assert (job.method.localizer.selections, job.run.workers, job.method.relabel) == (7, 2, None)
    with pytest.raises(JobError, match=r"--set run.workers=x: run.workers: must be a whole number of at least 1, or a range"):
        load_job(path, ["run.workers=x"])
    with pytest.raises(JobError, match="write it as"):
        load_job(path, ["run.workers"])


def test_an_override_below_an_alias_is_for_that_place_alone(tmp_path):
    shared = GOOD.replace("classifier:", "segmenter: &net {optimizer: {lr: 0.5}}\n  retrain: *net\n  classifier:")
    job = load_job(write(tmp_path, shared), ["method.retrain.optimizer.lr=0.25"])
    assert (job.method.segmenter.optimizer.lr, job.method.retrain.optimizer.lr) == (0.5, 0.25)


def test_tags_that_all_images_share_are_a_mistake_only_where_they_are_learned(own_data, monkeypatch):
    from wsss_ray.config.job import plans_of

    monkeypatch.chdir(own_data)
    (own_data / "tags.csv").write_text("image,tags\na,cat\nb,cat\n")
    with pytest.raises(ValueError, match=r"all 2 images have the same tags \(cat\)"):
        plans_of([load_job("job.yaml")])
    plans_of([load_job("job.yaml", ["method.classifier.epochs=null", "method.classifier.steps=0"])])


def cli(*arguments, cwd=None):
    return subprocess.run(
        [sys.executable, "-m", "wsss_ray", *arguments], capture_output=True, text=True, timeout=60, cwd=cwd, check=False
    )


@pytest.fixture
def own_data(tmp_path):
    from PIL import Image

    (tmp_path / "images").mkdir()
    for name in ("a", "b", "c"):
        Image.new("RGB", (20, 20), (9, 99, 9)).save(tmp_path / "images" / f"{name}.png")
    (tmp_path / "tags.csv").write_text("image,tags\na.png,cat\nb.png,dog\nc.png,cat;dog\n")
    write(tmp_path, GOOD.replace("classifier:\n    batch_size: 4", "classifier: {trunk: {kind: vgg16, weights: none}}"))
    return tmp_path


def test_plan_shows_stages_and_starts_nothing(own_data):
    shown = cli("plan", "job.yaml", cwd=own_data)
    assert shown.returncode == 0, shown.stderr
    found, _, *stages = shown.stdout.splitlines()
    assert found == "images-weak: 3 images, 0 with masks; cat 2, dog 2"
    assert [line.split()[0] for line in stages] == [
        "images-weak",
        "classifier",
        "maps",
        "seeds",
        "segmenter",
        "relabel",
        "retrain",
    ]
    assert not (own_data / "runs").exists()


@pytest.mark.parametrize("command", [["--help"], ["plan", "job.yaml"], ["validate", "job.yaml"], ["methods"]])
def test_commands_that_look_import_neither_ray_nor_torch(own_data, command):
    code = f"import sys; sys.argv = ['wsss-ray', *{command!r}]\nfrom wsss_ray.cli import main\n"
    code += "try: main()\nexcept SystemExit as e: assert not e.code, e.code\nprint(sorted({'ray', 'torch'} & set(sys.modules)))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=own_data, check=False, timeout=60)
    assert shown.stdout.splitlines()[-1] == "[]", shown.stderr


def test_a_submit_imports_ray_and_torch_only_when_something_is_to_be_made():
    code = "import sys, wsss_ray.runners.submit, wsss_ray.runners.execute; print(sorted({'ray', 'torch'} & set(sys.modules)))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert shown.stdout.strip() == "[]", "the submit of a finished job waits for it"


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["plan", "none.yaml"], ["none.yaml", "cannot be read"]),
        (["plan", "job.yaml", "--set", "data.root=nowhere"], ["nowhere"]),
        (["plan", "job.yaml", "--set", "data.tags=nothing.csv"], ["nothing.csv"]),
        (["plan", "job.yaml", "--store", "ftp://x/y"], ["store ftp://x/y"]),
        (["plan", "job.yaml", "--store", "s3://"], ["store s3://"]),
        (["plan", "job.yaml", "--store", "tags.csv"], ["store tags.csv", "is a file"]),
        (["submit", "job.yaml", "--store", "tags.csv/runs"], ["store ", "tags.csv/runs", "directory"]),
        (["status", "--store", "nostore"], ["store nostore", "no store there"]),
        (["plan", "job.yaml", "--set", "method.seedrule.theta=0.4"], ["--set method.seedrule.theta=0.4", "no such field"]),
        (["plan", "job.yaml", "--set", "method.name=x"], ["--set method.name=x", "allowed: ", "ficklenet"]),
        (["show", "nothing"], ["store runs", "no store there"]),
        (["show", "nothing", "--store", "."], ["no run 'nothing'"]),
        (["submit", "job.yaml", "--until", "never"], ["never"]),
    ],
)
def test_mistakes_exit_with_2_and_no_traceback(own_data, arguments, parts):
    shown = cli(*arguments, cwd=own_data)
    assert shown.returncode == 2
    assert "Traceback" not in shown.stderr
    for part in parts:
        assert part in shown.stderr


def test_validate_prints_the_whole_job(own_data):
    printed = yaml.safe_load(cli("validate", "job.yaml", cwd=own_data).stdout)
    assert printed["method"]["seed_rule"]["theta"] == 0.35


def test_an_empty_run_block_is_the_defaults(tmp_path):
    assert load_job(write(tmp_path, GOOD.replace("run:\n  workers: 1", "run:"))).run.workers == 1


def test_a_precision_for_all_trainings_is_part_of_their_ids_and_of_no_others(tmp_path):
    """It changes numbers, so it must not hide in the `run` block. What was trained before there was one keeps its id."""
    from tests.local import job_of
    from tests.shapes import tiny_job

    def ids(**run):
        return {stage.name: stage.id for stage in job_of(tiny_job(run=run)).plan()}

    plain, faster = ids(), ids(precision="bfloat16")
    assert ids(precision="float32") == plain
    assert {name for name in plain if plain[name] == faster[name]} == {"images-weak", "images-val"}
    job = tiny_job()
    for learner in ("classifier", "segmenter", "retrain"):
        job["method"][learner]["precision"] = "bfloat16"
    assert {stage.name: stage.id for stage in job_of(job).plan()} == faster, "as if every block said so"
    job["run"] = {"precision": "float32"}
    assert {stage.name: stage.id for stage in job_of(job).plan()} == plain
    with pytest.raises(JobError, match=r"run.precision: input should be 'float32' or 'bfloat16', got 'half'"):
        load_job(write(tmp_path, GOOD), ["run.precision=half"])


def test_a_field_that_came_later_changes_no_id_at_its_default():
    from typing import Annotated

    from wsss_ray.core.component import Component, SinceThen

    class Early(Component):
        size: int = 1

        @classmethod
        def kind(cls):
            return "same_kind_for_this_test"

    class Late(Component):
        size: int = 1
        later: Annotated[int, SinceThen()] = 0

        @classmethod
        def kind(cls):
            return "same_kind_for_this_test"

    assert Late().identity() == Early().identity()
    assert Late(later=1).identity() == Early().identity() | {"later": 1}
    assert Late(later=1).everywhere(Late, later=0) == Late()


def test_a_composed_job_reads_back_in_its_order_and_letters():
    values = {"name": "b", "about": "Hunde und Käfer" + " und Vögel" * 20, "a": {"z": [1, 2.5, None], "y": True}}
    text = to_yaml(values)
    assert text.startswith("name: b\nabout: Hunde und Käfer")
    assert len(to_yaml(values, width=120).splitlines()) < len(text.splitlines()), "long text is folded"
    for width in (80, 120):
        assert list(parse_document(to_yaml(values, width=width).encode(), "job.yaml").values.items()) == list(values.items())
