"""The commands of the pages, run one after the other in small worlds: photographs, a trained run, a VOC of six images.

Where a page submits, the stages are made in this process and without Ray, by networks that take a second; the trials of a sweep
are planned. What needs a cluster is only parsed, by test_docs.py.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from tests.contract.test_jobs import planned
from tests.local import job_of, run_plan, whole_run
from tests.pages import PAGES, ROOT, Command, blocks, commands, fenced, name_of, parse
from tests.photos import call, photo
from tests.pictures import unpack
from tests.shapes import tiny_job
from tests.voc_folder import NAMES, make_raw, make_voc, pack, thin
from wsss_ray.config.document import read_document
from wsss_ray.config.job import load_job, read_job
from wsss_ray.runners.execute import begin_run
from wsss_ray.storage.store import RunStore

OWN, PREDICT, VOC = "docs/own_data.md", "docs/predict.md", "docs/reproduce_voc.md"
CORRECT = "docs/correcting_labels.md"
DIGESTS = r"\b[0-9a-f]{32}\b"


def shown(page: str, *sections: str) -> list[Command]:
    """The commands of wsss-ray that a page, or sections of it, show for one machine."""
    kept = [block for block in blocks(page) if not sections or block.section in sections]
    found = [command for block in kept if block.language in ("", "sh") for command in commands(block)]
    return [command for command in found if command.words[0] == "wsss-ray" and "--address" not in command.words]


def code(page: str, *sections: str) -> str:
    """The Python that a page, or sections of it, show."""
    kept = [block for block in blocks(page) if not sections or block.section in sections]
    return "\n".join(block.text for block in kept if block.language == "python" or block.lines[0].startswith("import "))


@dataclass
class World:
    """A folder in which commands are given, what the pages call its places, and how a job becomes small enough for it."""

    folder: Path
    places: dict[str, str] = field(default_factory=dict)
    small: Callable[[dict], dict] = dict

    def run(self, command: Command) -> str:
        """What a command says."""
        words = list(command.words[1:])
        for name, place in self.places.items():
            words = [word.replace(name, place) for word in words]
        verb, values = parse(words)
        if verb not in ("check", "submit"):
            return call(*words)
        document = self.small(read_document(values["job_file"], values["override"] or ()).expanded())
        file = self.folder / "small.yaml"
        file.write_text(yaml.safe_dump(document))
        store = ["--store", values["store"]] if values["store"] else []
        if verb == "check" or "sweep" in document:
            return call("check" if verb == "check" else "plan", file, *store)
        job = job_of(document)
        plan, place = job.plan(), RunStore(values["store"] or job.run.store)
        begin_run(job, plan, place)
        run_plan(place, plan)
        return ""


# -- one's own images --------------------------------------------------------------------------------------------------------


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """A folder as the page has it: two photographs and a table beside it."""
    monkeypatch.chdir(tmp_path)
    (table,) = fenced(OWN, "csv")
    (tmp_path / "tags.csv").write_text(table)
    for number in (1, 2):
        photo(tmp_path / "photos" / "holiday" / f"00{number}.jpg", "dog", number)
    for name in ("ViT-B-16.safetensors", "sam_vit_b_01ec64.pth"):
        (tmp_path / name).write_bytes(b"weights, which init does not read")
    return World(tmp_path, small=lambda document: document | {"method": tiny_job()["method"]})


def test_a_folder_of_photographs(photos):
    said = {}
    for command in shown(OWN, "What `init` understands", "What `check` tries", "Then"):
        said[command.words[1]] = photos.run(command)
    assert list(said) == ["init", "plan", "check", "submit", "show", "export"]
    assert "2: person 2, dog 1" in said["init"]
    assert len(list(photos.folder.glob("photos-*-voc/**/*.png"))) == 2


def test_a_folder_the_short_way(photos):
    seen = []
    for command in shown(OWN, ""):
        photos.run(command)
        seen.append(command.words[1])
    assert seen[:3] == ["init", "check", "submit"]


def test_the_four_commands_of_the_first_page(photos):
    """Its table of tags lies beside the photographs, its masks in a folder of their own."""
    (photos.folder / "tags.csv").rename(photos.folder / "photos.csv")
    with Image.open("photos/holiday/001.jpg") as image:
        size = image.size
    (photos.folder / "masks/holiday").mkdir(parents=True)
    Image.new("L", size, 1).save(photos.folder / "masks/holiday/001.png")
    photo(photos.folder / "album/dog.jpg", "dog", 3)
    said = {command.words[1]: photos.run(command) for command in shown("README.md", "From tags to masks in four commands")}
    assert list(said) == ["init", "check", "submit", "predict"]
    shapes = [block.text for block in blocks("README.md") if block.section == "From tags to masks in four commands"]
    for heading in re.findall(r"^(\w+) {2,}", shapes[0], re.MULTILINE):
        assert re.search(rf"^{heading} ", said["init"], re.MULTILINE), heading
    assert (photos.folder / "labels/masks/dog.png").is_file()
    assert (photos.folder / "labels/overlays/dog.jpg").is_file()


# -- labels to tools and back ------------------------------------------------------------------------------------------------


def test_labels_to_other_tools_and_back(tmp_path, monkeypatch):
    """The tools themselves are not here: CVAT's part is a copy, Label Studio's makes annotations of the predictions."""
    whole_run(tmp_path / "runs", tiny_job(name="photos"))
    monkeypatch.chdir(tmp_path)
    world, seen = World(tmp_path), []
    for command in shown(CORRECT):
        if command.words[1] == "import-masks" and "import-masks" not in seen:
            shutil.copytree("labels", "from-cvat")
            tasks = json.loads(Path("labels-ls/tasks.json").read_text())
            Path("project.json").write_text(json.dumps([task | {"annotations": task["predictions"]} for task in tasks]))
        world.run(command)
        seen.append(command.words[1])
    assert seen == ["export"] * 3 + ["import-masks"] * 2
    exported = sorted(path.relative_to("labels/SegmentationClass") for path in Path("labels").rglob("*.png"))
    assert len(exported) == 24
    for path in exported:
        with Image.open("labels/SegmentationClass" / path) as ours, Image.open("corrected" / path) as theirs:
            assert ours.tobytes() == theirs.tobytes()
    assert 0 < len([*Path("corrected-ls").rglob("*.png")]) <= 24


# -- a trained model ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def album(trained_run, tmp_path, monkeypatch):
    """A folder with the run `photos` in `runs`, and pictures in `album`."""
    store, plan = trained_run
    shutil.copytree(store.uri, tmp_path / "runs")
    (tmp_path / "runs/runs/tiny").rename(tmp_path / "runs/runs/photos")
    folder = tmp_path / "runs/runs/photos"
    for about in (folder / "run.json", *folder.glob("attempts/*.json")):
        about.write_text(json.dumps(json.loads(about.read_text()) | {"name": "photos"}))
    first, second, *_ = unpack(store, plan, tmp_path / "packed").values()
    (tmp_path / "album/park").mkdir(parents=True)
    first.rename(tmp_path / "album/dog.jpg")
    second.rename(tmp_path / "album/park/bench.jpg")
    for folder in ("test", "masks"):
        (tmp_path / folder).mkdir()
    shutil.copy(tmp_path / "album/dog.jpg", tmp_path / "test/dog.jpg")
    Image.fromarray(np.ones((32, 32), np.uint8)).save(tmp_path / "masks/dog.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return World(tmp_path)


def test_a_trained_model(album, capsys):
    for command in shown(PREDICT):
        album.run(command)
    for name in ("labels/masks/park/bench.png", "some/overlays/dog.jpg", "table/shards/part-00000.parquet", "raw/masks/dog.png"):
        assert (album.folder / name).is_file(), name
    for name in ("safetensors/model.safetensors", "torch/model.pt2", "onnx/model.onnx"):
        assert (album.folder / "exported" / name).is_file(), name
    known = {"image_BCHW": torch.zeros(1, 3, 20, 24)}
    exec(compile(code(PREDICT), PREDICT, "exec"), known)
    said = capsys.readouterr().out
    assert "'image_id': 'dog', 'pixels': [" in said
    assert "('background', 'square', 'disc', 'bar')" in said
    assert known["logits_BLHW"].shape == (1, 4, 20, 24)
    (again,) = re.findall(r"`wsss-ray (predict exported/safetensors [^`]+)`", (ROOT / PREDICT).read_text())
    call(*again.split())
    assert (album.folder / "again/masks/dog.png").read_bytes() == (album.folder / "labels/masks/dog.png").read_bytes()


def test_the_python_of_the_first_page(album):
    known: dict = {}
    exec(code("README.md", "Python"), known)
    assert known["label_HW"].shape == (32, 32)


# -- Pascal VOC --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A folder with the archives that the page downloads, the weights, and the jobs of the clone."""
    made = tmp_path / "made"
    make_raw(made)
    pack(made)
    for archive in made.glob("*.t*"):
        archive.rename(tmp_path / archive.name)
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights/ilsvrc-cls_rna-a1_cls1000_ep-0001.params").write_bytes(b"planning only looks at its bytes")
    (tmp_path / "jobs").symlink_to(ROOT / "jobs")
    monkeypatch.chdir(tmp_path)
    return World(tmp_path, {"/data/": f"{tmp_path}/"}, thin)


def test_a_table_of_voc(data):
    said = {}
    for block in blocks(VOC):
        for command in commands(block) if block.language == "sh" else ():
            if command.words[0] in ("tar", "mv"):
                subprocess.run(command.words, check=True)
            if command.words[0] == "wsss-ray":
                said[" ".join(command.words[1:3])] = data.run(command)
    assert "4 images, 2 of them VOC's own; 2 to score on" in said["augment-voc /data/VOC2012"]
    assert (data.folder / "VOC2012/ImageSets/SegmentationAug/train_aug.txt").read_text().split() == NAMES[:4]
    assert "DSRG" in said["plan jobs/tables/ficklenet_table1.yaml"]
    assert "classifier" in said["check jobs/ficklenet.yaml"]
    assert re.search(r"miou +2 ", said["show ficklenet-voc"])
    assert len(list((data.folder / "seeds/SegmentationClass").glob("2007*.png"))) == 4
    assert re.search(r"FickleNet +0 +13/13 ", said["submit jobs/tables/ficklenet_table1.yaml"]), "the row is found done"
    assert "ficklenet-voc" in said["status --store"]
    assert re.search(r"RRM, joint loss +0 +\d/7 ", said["plan jobs/tables/rrm_table2.yaml"])


def test_the_digests_are_torchvisions():
    torchvision = Path(find_spec("torchvision").origin).parent
    files = ("datasets/voc.py", "datasets/sbd.py", "models/vgg.py", "models/resnet.py")
    known = "".join((torchvision / name).read_text() for name in files)
    page = (ROOT / VOC).read_text()
    downloads = fenced(VOC, "sh")[0]
    assert len(re.findall(DIGESTS, downloads)) == 2
    for fact in (*re.findall(DIGESTS, downloads), *re.findall(r"https://\S+", downloads), *re.findall(r"\w+-\w{8}\.pth", page)):
        assert fact in known, fact


def test_the_tables_figures_are_those_of_the_jobs():
    row = r"^\| `(jobs/tables/\w+\.yaml)` \| (.*?) \| (\d+) \| ([SR ]*?) ?\| ([\d,]+) \|$"
    rows = re.findall(row, (ROOT / VOC).read_text(), re.MULTILINE)
    published = {path: load_job(ROOT / path).sweep for path in map(name_of, (ROOT / "jobs/tables").glob("*.yaml"))}
    assert {row[0] for row in rows} == {path for path, sweep in published.items() if any(one.published for one in sweep.trials)}
    for path, figures, count, needs, images in rows:
        jobs = [one.job for one in read_job(ROOT / path).trials()]
        assert int(count) == len(jobs)
        assert {float(figure) for figure in re.findall(r"\d+\.\d", figures)} <= {one.published for one in published[path].trials}
        stages = {stage.id: stage for job in jobs for stage in planned(job)}.values()
        passed = sum(one.component.total_steps(10582) * one.component.batch_size for one in stages if one.kind == "train")
        assert int(images.replace(",", "")) == round(passed / 1000), path
        assert ("S" in needs) == any(stage.name == "saliency" for stage in stages), path
        assert ("R" in needs) == any(part.kind() == "resnet38" for one in stages for part in one.component.parts()), path


# -- everything else ---------------------------------------------------------------------------------------------------------


def everywhere(*verbs: str) -> list[Command]:
    """The commands of all pages with these verbs on a job file of the clone."""
    found = [command for page in PAGES for block in blocks(name_of(page)) if not block.language for command in commands(block)]
    return [one for one in found if one.words[0] == "wsss-ray" and one.words[1] in verbs and "jobs/" in " ".join(one.words)]


PLANNED = [one for one in everywhere("plan", "submit") if "jobs/seeds.yaml" not in one.words]  # whose weights must be there


@pytest.mark.parametrize("command", PLANNED, ids=lambda one: f"{one.page}:{one.line}")
def test_a_job_that_is_submitted_plans(command, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    places = {"/data/VOC2012": str(make_voc(tmp_path / "VOC2012")), "=...": "=none"}
    for name in ("ilsvrc-cls_rna-a1_cls1000_ep-0001.params", "res38_cls.pth", "ViT-B-16.safetensors"):
        weights = tmp_path / name
        weights.write_bytes(b"planning only looks at its bytes")
        places[f"={name}"] = f"={weights}"
    words = list(command.words[1:])
    for name, place in places.items():
        words = [word.replace(name, place) for word in words]
    _, values = parse(words)
    changes = [part for text in values["override"] or () if text != "..." for part in ("--set", text)]
    assert "images-weak: " in call("plan", values["job_file"], *changes, "--store", tmp_path / "runs")


@pytest.mark.parametrize("command", everywhere("render"), ids=lambda one: f"{one.page}:{one.line}")
def test_a_manifest_is_rendered(command, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    words = list(command.words[1:])
    words[words.index("--out") + 1] = str(tmp_path / "made")
    call(*[word.replace("$SCRATCH", "/scratch").replace("$PWD", "/home/me") for word in words])
    assert (tmp_path / "made").stat().st_size > 1000
