"""What `init`, `plan`, `check` and `validate` do beside reading data: names of runs, order of messages, own modules."""

from __future__ import annotations

import os

from tests.mistakes import JOB
from tests.photos import call, class_folders, init
from tests.zoo.sets import alternating, pictures
from wsss_ray.config.job import load_job


def test_folders_of_one_name_get_runs_of_two_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number, place in enumerate(("a", "b", "c/a")):
        class_folders(tmp_path / place / "pets", each=2)
        said = init(tmp_path / place / "pets", "--out", f"{number}.yaml")
        assert ("other data has a run or a job file named pets" in said) == (number > 0)
    assert [load_job(f"{number}.yaml").name for number in range(3)] == ["pets", "b-pets", "a-pets"]
    init(tmp_path / "a" / "pets", "--out", "0.yaml", "--force")
    assert load_job("0.yaml").name == "pets", "the same data keeps its name"
    os.makedirs("runs/runs/pets")
    os.rename("0.yaml", "runs/runs/pets/job.yaml")
    os.makedirs("jobs")
    init(tmp_path / "b" / "pets", "--out", "jobs/job.yaml")
    assert load_job("jobs/job.yaml").name == "b-pets", "the store has a run of that name"


def test_a_missing_folder_is_said_first(tmp_path):
    (tmp_path / "job.yaml").write_text("mine")
    said = init(tmp_path / "nowhere", "--out", tmp_path / "job.yaml", code=2)
    assert "nowhere: there is no such folder; give the folder of the images" in said


def test_commands_that_read_a_job_take_include(tmp_path):
    (tmp_path / "mine_of_the_zoo.py").write_text(
        "from pathlib import Path\n"
        "from wsss_ray.data.source import Item, Raw, Source\n"
        "class Blots(Source):\n"
        "    root: str\n"
        "    def class_names(self):\n        return ('cat', 'dog')\n"
        "    def splits(self):\n        return ('weak',)\n"
        "    def has_masks(self, split):\n        return False\n"
        "    def items(self, split):\n"
        "        paths = sorted(Path(self.root).glob('*.png'))\n"
        "        return [Item(one.stem, (place % 2,), str(one), None, one.stat().st_size) for place, one in enumerate(paths)]\n"
        "    def load(self, item):\n        return Raw(Path(item.path).read_bytes())\n"
    )
    pictures(tmp_path / "photos", alternating(4))
    method = JOB.partition("data:\n")[0]
    (tmp_path / "job.yaml").write_text(f"{method}data: {{kind: blots, root: {tmp_path}/photos}}\n")
    own = ("--include", tmp_path / "mine_of_the_zoo.py")
    assert "kind: blots" in call("validate", tmp_path / "job.yaml", *own)
    assert "images-weak: 4 images, 0 with masks; cat 2, dog 2" in call("plan", tmp_path / "job.yaml", *own)
    assert "images-weak" in call("check", tmp_path / "job.yaml", *own, "--until", "localize")
