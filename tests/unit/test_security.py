"""What SECURITY.md promises: job files are data, names stay in their folder, nothing is unpickled. More in test_bombs.py."""

from __future__ import annotations

import ast
import io
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import wsss_ray
from tests.local import job_of
from tests.shapes import Shapes, tiny_job
from wsss_ray.cli import app
from wsss_ray.config.document import JobError
from wsss_ray.config.job import load_job
from wsss_ray.core.errors import DamagedFile
from wsss_ray.data.cls_labels import read_cls_labels
from wsss_ray.data.folder import Folder
from wsss_ray.data.source import Item, describe
from wsss_ray.data.voc import Voc
from wsss_ray.engine.checkpoints import load_checkpoint
from wsss_ray.engine.networks import load_model
from wsss_ray.nets.weights import Weights, load_weights
from wsss_ray.storage.sealed import seal
from wsss_ray.storage.shards import read_shard, shard_path
from wsss_ray.storage.store import RunStore

PACKAGE = Path(wsss_ray.__file__).parent


class Evil:
    """What makes a file when it is unpickled."""

    def __init__(self, sign: Path) -> None:
        self.sign = sign

    def __reduce__(self):
        return os.mkdir, (str(self.sign),)


@pytest.fixture
def sign(tmp_path):
    """A folder that is there afterwards if something of the test's files was executed."""
    path = tmp_path / "executed"
    yield path
    assert not path.exists()


# -- job files are data ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ["!!python/object/apply:os.mkdir [{}]", "!!python/name:os.mkdir", "!!python/module:os", "!!python/object/new:os.mkdir [{}]"],
)
def test_a_job_file_runs_no_code(tmp_path, sign, text):
    job = tmp_path / "job.yaml"
    job.write_text("name: " + text.format(sign))
    with pytest.raises(JobError, match=r"job\.yaml:1: invalid YAML: could not determine a constructor"):
        load_job(job)
    job.write_text("name: x")
    with pytest.raises(JobError, match="the value is not YAML"):
        load_job(job, [f"name={text.format(sign)}"])


@pytest.mark.parametrize("merge", ["", "<<: "])
def test_a_job_file_whose_aliases_multiply_is_refused_at_once(tmp_path, merge):
    lines = ["a0: &a0 {x: 1}"] + [f"a{k}: &a{k} {{{merge or 'y: '}[{', '.join([f'*a{k - 1}'] * 9)}]}}" for k in range(1, 20)]
    (tmp_path / "job.yaml").write_text("\n".join(lines))
    with pytest.raises(JobError, match="multiply to more than 100000 values"):
        load_job(tmp_path / "job.yaml")


@pytest.mark.parametrize("depth", [3_000, 100_000])
def test_a_job_file_that_is_very_deep_is_refused(tmp_path, depth):
    (tmp_path / "job.yaml").write_text("a: " + "[" * depth + "]" * depth)
    with pytest.raises(JobError):
        load_job(tmp_path / "job.yaml")


# -- names and ids stay in their folder --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["../x", "a/b", "/tmp/x", "..", ".", ".hidden", "a\\b", "a\nb", "a\0b", "", "x" * 101, "a b", "ä"]
)
def test_a_run_is_not_named_out_of_its_folder(name):
    with pytest.raises(ValueError, match="name"):
        job_of(tiny_job(name=name))


@pytest.mark.parametrize("command", [["show"], ["export", "--format", "voc"]])
@pytest.mark.parametrize("run", ["../runs/tiny", "..", ".", "/etc", "tiny/../tiny"])
def test_a_run_is_not_looked_for_out_of_its_folder(tmp_path, capsys, command, run):
    (tmp_path / "runs/tiny").mkdir(parents=True)
    (tmp_path / "runs/tiny/run.json").write_text('{"name": "tiny", "stages": []}')
    with pytest.raises(SystemExit) as end:
        app([*command, run, "--store", str(tmp_path)], standalone_mode=False)
    assert end.value.code == 2
    assert f"no run {run!r}" in capsys.readouterr().err


class Named(Shapes):
    """A source that names its images as it likes."""

    ids: tuple[str, ...] = ()

    def items(self, split: Any) -> list[Item]:
        return [Item(image_id=image_id, tags=(0,)) for image_id in self.ids]


@pytest.mark.parametrize("image_id", ["../x", "a/../../x", "/etc/x", "a\\..\\x", "a\0x", "a\nb", "", "a//b", "a/", ".."])
def test_an_image_id_leads_nowhere(image_id):
    with pytest.raises(ValueError, match="is not usable"):
        describe(Named(ids=("fine", image_id)), "weak")


def test_a_folder_reads_only_what_is_in_it(tmp_path):
    (tmp_path / "photos").mkdir()
    for place in ("photos/a.png", "secret.png"):
        Image.new("RGB", (4, 4)).save(tmp_path / place)
    (tmp_path / "tags.csv").write_text("image,tags\na.png,cat\n../secret.png,cat\n")
    with pytest.raises(ValueError, match=r"image '\.\./secret\.png' is not in"):
        Folder(root=str(tmp_path / "photos"), tags=str(tmp_path / "tags.csv")).items("weak")


def test_a_voc_list_names_no_id_outside(tmp_path):
    (tmp_path / "JPEGImages").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "x.jpg")
    (tmp_path / "list.txt").write_text("../x 0\n")
    with pytest.raises(ValueError, match=r"'\.\./x' is not usable"):
        describe(Voc(root=str(tmp_path), train="list.txt", val=None), "weak")


# -- no file is unpickled ----------------------------------------------------------------------------------------------------


def zipped(evil):
    """A pickle in torch's form since 1.6."""
    buffer = io.BytesIO()
    torch.save({"w": torch.zeros(1)}, buffer)
    changed = io.BytesIO()
    with zipfile.ZipFile(buffer) as old, zipfile.ZipFile(changed, "w") as new:
        for name in old.namelist():
            new.writestr(name, pickle.dumps(evil, protocol=2) if name.endswith("data.pkl") else old.read(name))
    return changed.getvalue()


def npy(evil):
    header = b"{'descr': '|O', 'fortran_order': False, 'shape': (), }"
    header = header.ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + pickle.dumps(evil)


FORMS = {"plain": lambda evil: pickle.dumps(evil, protocol=2), "zipped": zipped, "npy": npy}


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors", ".params"])
@pytest.mark.parametrize("form", FORMS)
def test_weights_are_not_unpickled(tmp_path, sign, suffix, form):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(FORMS[form](Evil(sign)))
    with pytest.raises(ValueError, match="is not a readable"):
        load_weights(Weights(source=str(path)))


@pytest.mark.parametrize("form", FORMS)
def test_tag_files_are_not_unpickled(sign, form):
    with pytest.raises(ValueError, match=r"refused|not a \.npy file"):
        read_cls_labels(FORMS[form](Evil(sign)))


@pytest.mark.parametrize("form", FORMS)
def test_checkpoints_and_models_of_a_store_are_not_unpickled(tmp_path, sign, form):
    store = RunStore(str(tmp_path / "store"))
    classifier = next(stage for stage in job_of(tiny_job()).plan() if stage.kind == "train")
    data = FORMS[form](Evil(sign))
    sealed = io.BytesIO(data)
    if form == "zipped":  # others are refused before torch reads them
        seal(sealed)
    store.write(store.stage_path(classifier, "checkpoints", "step-00000004.pt"), sealed.getvalue())
    store.write(store.stage_path(classifier, "model.safetensors"), data)
    with pytest.raises(DamagedFile, match=r"(?i)weights only load failed" if form == "zipped" else "no checkpoint"):
        load_checkpoint(store, classifier, 4, "cpu")
    with pytest.raises(DamagedFile, match=r"(?i)header|deserializ"):
        load_model(store, classifier, "cpu")


UNPICKLING = """
import sys
import ray.data
import pyarrow as pa, pyarrow.parquet as pq
from types import SimpleNamespace
from ray.data.extensions import ArrowPythonObjectArray
from tests.unit.test_security import Evil
from wsss_ray.data.folder import Folder
from wsss_ray.storage.shards import read_shard, shard_path
from wsss_ray.storage.store import RunStore
sign, folder = sys.argv[1:]
column = ArrowPythonObjectArray.from_objects([Evil(sign)])
table = pa.table({"image_id": ["a"], "image": ["a"], "tags": column, "seed": column})
table = table.replace_schema_metadata({"wsss_ray.schema": "seeds", "wsss_ray.version": "1"})
stage, store = SimpleNamespace(id="seed-0123456789abcdef"), RunStore(folder)
store.write(shard_path(store, stage, 0), b"")
for path in (shard_path(store, stage, 0), f"{folder}/tags.parquet"):
    pq.write_table(table, path)
source = Folder(root=folder, tags=f"{folder}/tags.parquet")
for read in (lambda: read_shard(store, stage, 0, "seeds"), lambda: source.items("weak")):
    try:
        read()
    except ValueError as error:
        print(error)
"""


def test_parquet_is_not_unpickled_where_ray_has_registered_its_types(tmp_path, sign):
    """Reading a value of Ray's type of Python objects unpickles it: tables with such a column are refused."""
    command = [sys.executable, "-c", UNPICKLING, str(sign), str(tmp_path)]
    root = str(PACKAGE.parent)
    done = subprocess.run(command, cwd=root, env=os.environ | {"PYTHONPATH": root}, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    shard, tags = done.stdout.splitlines()
    assert "part-00000.parquet: column 'tags' is of an extension type" in shard
    assert "tags.parquet: column 'tags' is of an extension type" in tags


@pytest.mark.parametrize("nested", [False, True])
def test_parquet_with_an_extension_type_is_refused_without_ray_too(tmp_path, sign, nested):
    marks = {
        "ARROW:extension:name": "ray.data.arrow_tensor",
        "ARROW:extension:metadata": pickle.dumps(Evil(sign), protocol=0).decode(),
    }
    seed = pa.field("seed", pa.binary(), metadata=marks)
    if nested:
        seed = pa.field("seed", pa.struct([seed]))
    value = {"seed": b"x"} if nested else b"x"
    schema = pa.schema([pa.field("image_id", pa.string()), seed], {"wsss_ray.schema": "seeds", "wsss_ray.version": "1"})
    store, stage = RunStore(str(tmp_path)), SimpleNamespace(id="seed-0123456789abcdef")
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([{"image_id": "a", "seed": value}], schema=schema), buffer)
    store.write(shard_path(store, stage, 0), buffer.getvalue())
    said = r"column 'seed' is of an extension type|no Parquet file of plain columns"
    with pytest.raises((ValueError, DamagedFile), match=said):
        read_shard(store, stage, 0, "seeds")  # the latter where another test has imported Ray's types


def calls(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), {word.arg: ast.unparse(word.value) for word in node.keywords}


def test_nothing_in_the_package_can_execute_a_file():
    """No unpickling, no eval, no shell; torch.load with weights_only alone; Ray's switches for pickled columns stay off."""
    banned = {
        "eval",
        "exec",
        "compile",
        "__import__",
        "yaml.load",
        "yaml.unsafe_load",
        "yaml.full_load",
        "yaml.load_all",
        "os.system",
    }
    banned |= {
        "os.popen",
        "np.load",
        "numpy.load",
        "np.fromfile",
        "pd.read_pickle",
        "joblib.load",
        "shelve.open",
        "marshal.loads",
    }
    banned |= {f"{module}.{name}" for module in ("pickle", "cloudpickle", "dill") for name in ("load", "loads", "Unpickler")}
    seen = 0
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert "RAY_DATA_AUTOLOAD" not in text, path
        for name, words in calls(ast.parse(text)):
            assert name not in banned, f"{path}: {name}"
            assert words.get("shell", "False") == "False", f"{path}: {name} with a shell"
            if name == "torch.load":
                seen += 1
                assert words["weights_only"] == "True", path
    assert seen == 2, "weights and checkpoints"


def test_arrays_of_pickles_are_not_allowed_by_numpy_either(tmp_path, sign):
    """What `numpy.load` would say; the package never calls it."""
    path = tmp_path / "x.npy"
    path.write_bytes(npy(Evil(sign)))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        np.load(path)
