"""A small world of a user's own data, and a table of what people get wrong in it: what is typed, and what must be said.

What takes more than a command has tests of its own: Ctrl-C (tests/ray/test_ray.py, test_jobs.py), full and read-only disks, lost
machines (tests/faults), memory that runs out (tests/unit/test_dry_run.py), several submits at once (tests/unit/test_claims.py,
test_loggers.py), code of one's own that fails (tests/contract/test_plugins.py).
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

JOB = """\
name: pets
method:
  name: ficklenet
  classifier:
    trunk: {kind: small_net, widths: [8, 16], strides: [2, 1]}
    kernel_size: 3
    epochs: null
    steps: 4
    batch_size: 4
    augment: {kind: random_crop, size: 24}
  localizer: {size: null, selections: 2}
  seed_rule: {background: {kind: cam_background, threshold: 0.3}, crf: {iterations: 1}}
  segmenter:
    trunk: {kind: small_net, widths: [8, 16], strides: [2, 1]}
    head: {kind: large_fov, dilation: 2, hidden: 8}
    steps: 2
    batch_size: 4
    augment: {kind: random_crop, size: 24}
    crf: {scale: 2, iterations: 1}
  relabel: {sizes: [24], crf: {iterations: 1}}
  retrain:
    trunk: {kind: small_net, widths: [8, 16], strides: [2, 1]}
    head: {kind: large_fov, dilation: 2, hidden: 8}
    steps: 2
    batch_size: 4
    augment: {kind: random_crop, size: 24}
  metric: {scales: [1.0], crf: null}
data:
  kind: folder
  root: images
  tags: tags.csv
  masks: masks
run: {store: runs, max_failures: 0}
"""


def make_world(root: Path) -> None:
    """Eight pictures of two classes, one in a subfolder, with masks and a table; the last two are to score on."""
    rng = np.random.default_rng(3)
    lines = ["image,tags,split"]
    for number in range(8):
        name = f"more/{number}" if number == 5 else str(number)
        mask = np.zeros((24, 28), np.uint8)
        mask[4:18, 3 + number : 15 + number] = 1 + number % 2
        pixels = rng.integers(90, 150, (24, 28, 3)).astype(np.uint8)
        pixels[mask > 0, number % 2] = 220
        for folder, picture in (("images", pixels), ("masks", mask)):
            file = root / folder / f"{name}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(file)
        lines.append(f"{name}.png,{['cat', 'dog'][number % 2]},{'val' if number > 5 else 'train'}")
    (root / "tags.csv").write_text("\n".join(lines) + "\n")
    (root / "job.yaml").write_text(JOB)


Change = Callable[[Path], object]


@dataclass(frozen=True)
class Mistake:
    """A mistake: what is changed in the world, what is typed there, what the message has, and the exit code."""

    name: str
    typed: str
    said: tuple[str, ...]
    change: Change | None = None
    code: int = 2


def table(job: str, tags: str = "tags.csv") -> Change:
    """Other text in a file of the world."""
    return lambda root: (root / tags).write_text(job)


def edit(old: str, new: str, name: str = "job.yaml") -> Change:
    """Text replaced in a file of the world."""

    def change(root: Path) -> None:
        text = (root / name).read_text()
        assert old in text
        (root / name).write_text(text.replace(old, new, 1))

    return change


def written(name: str, content: str | bytes) -> Change:
    """A file more, or another one."""

    def change(root: Path) -> None:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content.encode() if isinstance(content, str) else content)

    return change


def folder(name: str) -> Change:
    """An empty folder in the place of whatever there is."""

    def change(root: Path) -> None:
        if (root / name).is_dir():
            shutil.rmtree(root / name)
        (root / name).unlink(missing_ok=True)
        (root / name).mkdir(parents=True)

    return change


def masks(paint: Callable[[np.ndarray], np.ndarray]) -> Change:
    """Every mask drawn anew."""

    def change(root: Path) -> None:
        for file in (root / "masks").rglob("*.png"):
            Image.fromarray(paint(np.array(Image.open(file)))).save(file)

    return change


def cut_images(root: Path) -> None:
    """Half of every second image file."""
    for file in sorted((root / "images").glob("*.png"))[::2]:
        file.write_bytes(file.read_bytes()[:200])


def stage_folder(root: Path, name: str) -> Path:
    """The folder of the finished run's stage of that name."""
    for record in (root / "runs/stages").glob("*/record.json"):
        if re.search(rf'"name": "{name}"', record.read_text()):
            return record.parent
    raise AssertionError(f"no stage {name}")


def linked(name: str) -> Change:
    """A link in the store to a folder outside of it."""

    def change(root: Path) -> None:
        (root / "elsewhere").mkdir()
        (root / name).symlink_to(root / "elsewhere")

    return change


def flipped_model(root: Path) -> None:
    """One bit of a trained network."""
    of_stage("retrain", "model.safetensors", lambda data: data[:-9] + bytes([data[-9] ^ 4]) + data[-8:])(root)


def of_stage(name: str, file: str, how: Callable[[bytes], bytes]) -> Change:
    """A file of a finished stage changed."""

    def change(root: Path) -> None:
        path = next(stage_folder(root, name).glob(file))
        path.write_bytes(how(path.read_bytes()))

    return change


def of_version_9(data: bytes) -> bytes:
    """A shard as a later version of the package may write it."""
    table = pq.read_table(pa.BufferReader(data))
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata({**table.schema.metadata, b"wsss_ray.version": b"9"}), sink)
    return sink.getvalue().to_pybytes()


def of_later_version(root: Path) -> None:
    """Shards of a later version, under a record without digests, which no later one would leave."""
    of_stage("miou", "shards/part-*", of_version_9)(root)
    of_stage("miou", "record.json", without_digests)(root)


def without_digests(data: bytes) -> bytes:
    """A record as an earlier version wrote it."""
    rest = ("files", "made_from", "digest")
    return json.dumps({name: value for name, value in json.loads(data).items() if name not in rest}, indent=2).encode()


def set_(text: str) -> str:
    """A plan with one field set."""
    return f"plan job.yaml --set '{text}'"


JOB_FILE = [
    Mistake("no job file", "validate none.yaml", ("none.yaml", "cannot be read")),
    Mistake("a folder for a job file", "validate images", ("images: cannot be read",)),
    Mistake("empty job file", "validate job.yaml", ("job.yaml:1: is no mapping. A job file has",), written("job.yaml", "")),
    Mistake(
        "a list for a job",
        "validate job.yaml",
        ("job.yaml:1: is no mapping. A job file has",),
        written("job.yaml", "- name: x\n"),
    ),
    Mistake("a picture for a job", "validate images/0.png", ("images/0.png: is not UTF-8 text. Give a job file",)),
    Mistake(
        "tabs",
        "validate job.yaml",
        ("job.yaml:4: invalid YAML: ", "Indent with spaces, not tabs."),
        edit("  classifier", "\tclassifier"),
    ),
    Mistake("a bracket left open", "validate job.yaml", ("job.yaml:20: invalid YAML: ",), edit("[24]", "[24")),
    Mistake(
        "a key twice",
        "validate job.yaml",
        ("job.yaml:2: name: is set twice. Remove one.",),
        edit("name: pets", "name: pets\nname: pets"),
    ),
    Mistake(
        "code in YAML",
        "validate job.yaml",
        ("job.yaml:1: invalid YAML: ", "constructor"),
        edit("name: pets", "name: !!python/name:os.system"),
    ),
    Mistake("misspelt block", "validate job.yaml", ("methd", "no such field", "method"), edit("method:", "methd:")),
    Mistake("misspelt field", "validate job.yaml", ("job.yaml:", "batchsize", "no such field"), edit("batch_size", "batchsize")),
    Mistake(
        "no data block", "validate job.yaml", ("data", "missing"), lambda root: written("job.yaml", JOB.split("data:")[0])(root)
    ),
    Mistake("a variable that is not set", "validate job.yaml", ("NOWHERE is not set",), edit("root: images", "root: ${NOWHERE}")),
    Mistake(
        "base that is not there", "validate job.yaml", ("above.yaml", "cannot be read"), edit("name: pets", "base: above.yaml")
    ),
    Mistake(
        "base of itself", "validate job.yaml", ("base: job.yaml leads back to this file",), edit("name: pets", "base: job.yaml")
    ),
    Mistake(
        "a run named with a slash", "plan job.yaml", ("name: 'my/pets' cannot name a run.",), edit("name: pets", "name: my/pets")
    ),
    Mistake("a run named upwards", "plan job.yaml", ("name: '../pets' cannot name a run.",), edit("name: pets", "name: ../pets")),
    Mistake(
        "a method in one word",
        "validate job.yaml",
        ("method: 'mdc' is no block. Write {name: mdc}",),
        lambda root: written("job.yaml", "name: x\nmethod: mdc\ndata: {kind: folder, root: images}\n")(root),
    ),
    Mistake("unknown method", "validate job.yaml", ("ficklenett", "allowed: ", "ficklenet"), edit("ficklenet", "ficklenett")),
    Mistake("unknown kind of data", set_("data.kind=imagenet"), ("data.kind=imagenet", "allowed: ", "folder")),
    Mistake("a part of another role", set_("method.localizer={kind: vgg16}"), ("method.localizer", "allowed")),
    Mistake("a number in words", set_("method.classifier.batch_size=many"), ("batch_size", "integer", "'many'")),
    Mistake("a negative batch", set_("method.classifier.batch_size=-4"), ("batch_size", "greater than")),
    Mistake(
        "an even window",
        set_("method.classifier.kernel_size=4"),
        ("kernel_size: must be odd", "a window has a centre, got 4. Use"),
    ),
    Mistake("a threshold above one", set_("method.seed_rule.theta=35"), ("method.seed_rule.theta", "less than")),
    Mistake("no workers", set_("run.workers=0"), ("run.workers: must be a whole number of at least 1", "got 0")),
    Mistake("a range backwards", set_("run.workers=[4,2]"), ("run.workers", "[min, max]")),
    Mistake("--set without a value", set_("run.workers"), ("--set run.workers: write it as field.field=value",)),
    Mistake("--set below a number", set_("run.seed.x=1"), ("--set run.seed.x=1", "run.seed")),
    Mistake("unknown weights", set_("method.classifier.trunk={kind: vgg16, weights: imagnet}"), ("weights", "imagnet")),
    Mistake(
        "weights that are not there",
        "check job.yaml --set 'method.classifier.trunk={kind: vgg16, weights: ./vgg.pth}'",
        ("vgg.pth",),
    ),
    Mistake("a last stage that is none", "submit job.yaml --until never", ("never",)),
    Mistake(
        "an empty sweep",
        "submit job.yaml",
        ("sweep: give either trials",),
        lambda root: written("job.yaml", JOB + "sweep: {}\n")(root),
    ),
    Mistake(
        "values of a sweep without their kind",
        "plan job.yaml",
        ("sweep.space.method.seed_rule.theta: must be a block of fields (grid, choice, uniform, loguniform)",),
        lambda root: written("job.yaml", JOB + "sweep: {space: {method.seed_rule.theta: [0.3, 0.4]}}\n")(root),
    ),
    Mistake(
        "a sweep whose values are misspelt",
        "plan job.yaml",
        ("sweep.space.method.seed_rule.theta.gird: there is no such field; allowed: grid, choice",),
        lambda root: written("job.yaml", JOB + "sweep: {space: {method.seed_rule.theta: {gird: [0.3, 0.4]}}}\n")(root),
    ),
    Mistake(
        "a sweep over no field",
        "plan job.yaml",
        ("method.seed_rule.thata: there is no such field",),
        lambda root: written("job.yaml", JOB + "sweep: {space: {method.seed_rule.thata: {grid: [0.3, 0.4]}}}\n")(root),
    ),
]

DATA = [
    Mistake("no image folder", set_("data.root=nowhere"), ("data.root", "nowhere is not a folder")),
    Mistake(
        "an empty image folder",
        "plan job.yaml",
        ("image '0.png' is not in", "add it or remove the row"),
        folder("images"),
    ),
    Mistake("no table", set_("data.tags=none.csv"), ("data.tags: cannot read", "none.csv")),
    Mistake("a table with no row", "plan job.yaml", ("tags.csv holds no images; list at least one",), table("image,tags\n")),
    Mistake(
        "a table of another encoding",
        "plan job.yaml",
        ("tags.csv", "UTF-8"),
        written("tags.csv", "image,tags\n0,kätzchen\n".encode("latin-1")),
    ),
    Mistake("other column names", "plan job.yaml", ("the column must be called 'image'",), table("file,label\n0,cat\n")),
    Mistake(
        "tags of an image that is not there",
        "plan job.yaml",
        ("tags.csv:3: image 'gone.png'",),
        table("image,tags\n0,cat\ngone.png,dog\n"),
    ),
    Mistake("an image without tags", "plan job.yaml", ("tags.csv:3",), table("image,tags\n0,cat\n1\n")),
    Mistake("no class anywhere", "plan job.yaml", ("no class is named; name at least one",), table("image,tags\n0,\n1,\n")),
    Mistake("an id twice", "plan job.yaml", ("is listed twice",), table("image,tags\n0,cat\n0.png,dog\n")),
    Mistake("an id with ..", "plan job.yaml", ("'../job.yaml'",), table("image,tags\n0,cat\n../job.yaml,dog\n")),
    Mistake("an id from the root", "plan job.yaml", ("'/etc/passwd'",), table("image,tags\n0,cat\n/etc/passwd,dog\n")),
    Mistake(
        "an id with a slash too many",
        "plan job.yaml",
        ("'images/0.png'", "did you mean '0.png'?"),
        table("image,tags\nimages/0.png,cat\n"),
    ),
    Mistake("a split misspelt", "plan job.yaml", ("tags.csv:2: split is 'tarin'",), table("image,tags,split\n0,cat,tarin\n")),
    Mistake("a class that is not listed", set_("data.classes=[cat]"), ("tags.csv:", "unknown class 'dog'; allowed: cat")),
    Mistake("background as a class", "plan job.yaml", ("background is label 0",), table("image,tags\n0,background\n")),
    Mistake(
        "all images in one class",
        "submit job.yaml",
        ("all 5 images have the same tags (cat)", "Add images of other classes"),
        table("image,tags\n" + "".join(f"{k},cat\n" for k in (0, 1, 2, 3, 4))),
    ),
    Mistake("no mask folder", set_("data.masks=nowhere"), ("data.masks", "nowhere is not a folder")),
    Mistake("masks under other names", set_("data.masks=others"), ("mask", "is missing; every"), folder("others")),
    Mistake(
        "a table in Excel's format",
        set_("data.tags=tags.xlsx"),
        ("tags.xlsx has an unknown format; save it as one of .csv",),
        written("tags.xlsx", "PK"),
    ),
    Mistake(
        "images in no class folder",
        set_("data={kind: folder, root: images}"),
        ("0.png is not in a class folder; move it into one",),
    ),
    Mistake("a folder for VOC that is none", set_("data={kind: voc, root: images}"), ("images",)),
    Mistake(
        "tags that would run code",
        set_("data={kind: voc, root: voc, tags: voc/cls_labels.npy}"),
        ("voc",),
        written("voc/cls_labels.npy", b"\x80\x04cos\nsystem\n."),
    ),
    Mistake("COCO's JSON cut off", "init coco --out other.yaml", ("coco",), written("coco/annotations.json", '{"images": [')),
]

STORE = [
    Mistake("a file for a store", "plan job.yaml --store tags.csv", ("store tags.csv: is a file",)),
    Mistake("a store below a file", "submit job.yaml --store tags.csv/runs", ("tags.csv/runs: cannot be read or written",)),
    Mistake("a scheme nobody knows", "plan job.yaml --store ftp://host/x", ("store ftp://host/x",)),
    Mistake("no bucket", "plan job.yaml --store s3://", ("store s3://",)),
    Mistake("a password in a URI", "plan job.yaml --store s3://me:secret@bucket/x", ("credentials",)),
    Mistake("no store", "status --store nowhere", ("store nowhere: there is no store there",)),
    Mistake("no such run", "show dogs", ("no run 'dogs' in", "wsss-ray status")),
    Mistake("a run to resume that is none", "resume dogs", ("no run 'dogs' in",)),
    Mistake("nothing may be written", "submit job.yaml --store /proc/runs", ("store /proc/runs: cannot be read or written",)),
    Mistake(
        "a record cut off",
        "export pets --format voc --out labels",
        ("record.json: is damaged (not JSON). Submit the job again",),
        of_stage("miou", "record.json", lambda data: data[:40]),
    ),
    Mistake(
        "a shard cut off",
        "export pets --format voc --split val --out labels",
        ("shards/part-", "has 60 bytes, not", "Submit the job again"),
        of_stage("miou", "shards/part-*", lambda data: data[:60]),
    ),
    Mistake(
        "shards of a newer version",
        "export pets --format voc --split val --out labels",
        ("part-", "has schema version 9, but this wsss-ray reads version"),
        of_later_version,
    ),
    Mistake(
        "a bit of a shard changed",
        "export pets --format voc --split val --out labels",
        ("shards/part-", "is damaged (other bytes than were written)", "verify RUN --repair"),
        of_stage("miou", "shards/part-*", lambda data: data[:300] + bytes([data[300] ^ 1]) + data[301:]),
    ),
    Mistake(
        "a run in a linked folder",
        "submit job.yaml --set name=linked",
        ("runs/linked: is a link, and a store follows none",),
        linked("runs/runs/linked"),
    ),
    Mistake(
        "a job that was changed in the store",
        "resume pets",
        ("runs/pets/job.yaml: is not the job that was submitted", "Submit the job's own file"),
        lambda root: (root / "runs/runs/pets/job.yaml").write_text(JOB),
    ),
    Mistake("a bit of a model changed", "verify pets", ("1 of its files or stages are damaged", "--repair"), flipped_model),
    Mistake(
        "a checkpoint cut off",
        "predict pets images --out labels",
        ("model.safetensors",),
        of_stage("retrain", "model.safetensors", lambda data: data[:100]),
    ),
]

CLUSTER = [
    Mistake("an address that is none", "submit job.yaml --address the-cluster", ("address 'the-cluster': give auto",)),
    Mistake("nobody at the address", "submit job.yaml --address 127.0.0.1:1", ("nothing answers there",)),
    Mistake("nobody at the job server", "ps --address http://127.0.0.1:1", ("127.0.0.1:1",)),
    Mistake("another machine without a token", "ps --address http://example.org:8265", ("token",)),
    Mistake("a password in an address", "ps --address http://me:secret@head:8265", ("password",)),
    Mistake("attempts of no cluster", "ps", ("--address http://HEAD:8265",)),
    Mistake("--detach from nothing", "submit job.yaml --detach", ("--detach: goes with --address http://",)),
    Mistake("a store that the machines do not share", "submit job.yaml --address http://127.0.0.1:1", ("runs",)),
    Mistake("a module that is not there", "submit job.yaml --include mine.py", ("mine.py",)),
    Mistake("a module that does not parse", "submit job.yaml --include mine.py", ("mine.py",), written("mine.py", "def x(:\n")),
    Mistake("manifests of no kind", "render nomad job.yaml", ("nomad",)),
]

MODEL = [
    Mistake("a misspelt command", "sumbit job.yaml", ("sumbit",)),
    Mistake("a misspelt option", "plan job.yaml --stor runs", ("--stor",)),
    Mistake("no job given", "submit", ("JOB",)),
    Mistake("an image that is not there", "predict pets none.jpg --out labels", ("none.jpg: there is no such file",)),
    Mistake(
        "a model that is none",
        "predict pets images --out labels --model maps",
        ("--model maps: is not one of the trained segmenters",),
    ),
    Mistake("labels over a file", "predict pets images --out tags.csv", ("--out tags.csv: is a file; give a folder",)),
    Mistake("labels over the images", "predict pets images --out images", ("--out images, where the labels would be written",)),
    Mistake("a form that is none", "export pets --format jpeg --out labels", ("jpeg",)),
    Mistake(
        "what the run has not", "export pets --format voc --out labels --stage dogs", ("stage 'dogs': the run has no such stage",)
    ),
    Mistake("an export over a file", "export pets --format voc --out tags.csv", ("--out tags.csv: is a file; give a folder",)),
    Mistake("a folder that is not there", "init nowhere --out other.yaml", ("nowhere",)),
    Mistake("a folder without images", "init empty --out other.yaml", ("empty", "no image"), folder("empty")),
    Mistake("a job that is there already", "init images --tags tags.csv --out job.yaml", ("job.yaml",)),
]

RUNNING = [
    Mistake(
        "damaged images",
        "submit job.yaml --store new --until seed",
        ("images-weak", "of 6 images failed", "max_bad_fraction"),
        cut_images,
    ),
    Mistake(
        "masks of another size",
        "submit job.yaml --store new --until seed",
        ("images-weak", "mask", "cannot be used"),
        masks(lambda mask: mask[:-3]),
    ),
    Mistake(
        "a label above the classes",
        "submit job.yaml --store new --until seed",
        ("images-weak", "label", "cannot be used"),
        masks(lambda mask: np.where(mask == 2, 7, mask).astype(np.uint8)),
    ),
    Mistake(
        "a loss that is not finite",
        "submit job.yaml --store new --set 'method.classifier.optimizer={kind: adam, lr: 1.0e+30}'",
        ("classifier", "loss is not finite", "lower optimizer.lr"),
    ),
    Mistake(
        "a network larger than its crop", "submit job.yaml --store new --set method.classifier.augment.size=2", ("classifier",)
    ),
    Mistake(
        "more workers than there are CPUs", "submit job.yaml --store new --set run.seed=1 --set run.workers=4000", ("workers",)
    ),
    Mistake("a GPU that is not there", "submit job.yaml --store new --set run.seed=1 --set run.gpu=true", ("GPU",)),
]

BEFORE = [*JOB_FILE, *DATA, *STORE, *CLUSTER, *MODEL]
