"""Job files and `--set` are data of bounded size and depth: a mistake is one line with its place, and takes no time."""

from __future__ import annotations

import time

import pytest

from tests.unit.test_job import GOOD
from wsss_ray.config.document import JobError, parse_document, read_document
from wsss_ray.config.job import load_job
from wsss_ray.config.plain_yaml import MOST_BYTES, MOST_LEVELS, parse_yaml

BOMB = "\n".join(["a0: &a0 [x, x]", *(f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]" for k in range(1, 20))])
FLAT_BOMB = "{" + ", ".join(["a0: &a0 [x]", *(f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]" for k in range(1, 20))]) + "}"
MANY = ", ".join(["1"] * 50_000)

IN_A_FILE = {
    "a date that is none": ("x: 2001-99-99", "13: x: there is no such field"),
    "a date": ("x: 2001-01-01", "13: x: there is no such field"),
    "5,000 digits": ("x: " + "9" * 5_000, "13: 999999999999999999999999999999...: a whole number has at most 18 digits."),
    "19 digits": ("run: {seed: -1000000000000000000}", "13: -1000000000000000000: a whole number has at most 18 digits."),
    "a long number to the base of 60": ("x: " + ":".join(["59"] * 5_000), "a whole number has at most 18 digits."),
    "3,000 levels": ("x: " + "[" * 3_000 + "]" * 3_000, f"13: is nested more than {MOST_LEVELS} levels deep. Use fewer levels."),
    "levels that are never closed": ("x: " + "[" * 500_000, f"13: is nested more than {MOST_LEVELS} levels deep."),
    "3,000 blocks": ("\n".join(" " * k + f"k{k}:" for k in range(1_000)), f"nested more than {MOST_LEVELS} levels deep."),
    "levels behind aliases": (
        "\n".join(["a0: &a0 [x]", *(f"a{k}: &a{k} [*a{k - 1}]" for k in range(1, 60))]),
        "is nested more than",
    ),
    "an alias bomb": (BOMB, "its aliases (*name) multiply to more than 100000 values. Use fewer aliases."),
    "an alias of itself": ("x: &a [*a]", "13: an alias (*name) refers to itself. Write a value in its place."),
    "an alias of itself as a key": ("? &a [*a]\n: 1", "a block or list: is no name of a field."),
    "many values": (f"x: [{MANY}]", "13: holds more than 20000 values. Make it shorter."),
    "a megabyte": ("x: " + "y" * MOST_BYTES, f"has more than {MOST_BYTES} bytes."),
    "NUL": ("x: \0", "13: invalid YAML: the character '\\x00' is not allowed. Remove it."),
    "NUL in base": ('base: "a\\0b"', "13: base: must be the path of another job file"),
    "a line break in base": ('base: "a\\nb"', "a\\nb: cannot be read: No such file or directory"),
    "endless base": ("base: /dev/zero", f"/dev/zero: has more than {MOST_BYTES} bytes."),
    "half a surrogate pair": ('x: "\\ud800"', "13: \\ud800: half of a surrogate pair is no text. Remove it."),
    "bytes": ("x: !!binary aGk=", "13: invalid YAML: could not determine a constructor for the tag"),
    "a set": ("x: !!set {a, b}", "13: invalid YAML: could not determine a constructor for the tag"),
    "a tag that does not fit": ("x: !!int many", "13: invalid YAML: 'many' is no int. Correct it."),
    "an empty whole number": ('x: !!int ""', "13: invalid YAML: '' is no int. Correct it."),
    "a truth that is none": ("x: !!bool maybe", "13: invalid YAML: 'maybe' is no bool. Correct it."),
    "a number for a name": ("1: x", "13: 1: is no name of a field. Write a name; quote it if it is a number, a date, yes or no."),
    "yes for a name": ("yes: x", "13: yes: is no name of a field."),
    "a list for a name": ("? [a]\n: x", "13: a block or list: is no name of a field."),
    "a line break in a name": ('"a\\nb": x', "13: a\\nb: is no name of a field. Use up to 200 printable characters."),
    "a name twice in a list": ("x: [{a: 1, a: 2}]", "13: x.0.a: is set twice. Remove one."),
    "a value of a megabyte": (f"run: {{store: {'y' * 400_000}, seed: {'y' * 1000}}}", "got 'yyyyyyyyyy"),
    "a sweep without end": (
        "sweep: {samples: 1000000000000, space: {run.workers: {uniform: [1, 2]}}}",
        "13: sweep: 1000000000000 trials, more than 10000. Lower samples, or give fewer values or seeds.",
    ),
    "grids that multiply": (
        "sweep: {space: {" + ", ".join(f"a.b{k}: {{grid: [{', '.join(map(str, range(10)))}]}}" for k in range(12)) + "}}",
        "13: sweep: 1000000000000 trials, more than 10000.",
    ),
}

SET = {
    "brackets": ("a=" + "[" * 5_000, f"is nested more than {MOST_LEVELS} levels deep. Use fewer levels."),
    "an alias bomb": ("a=" + FLAT_BOMB, "its aliases (*name) multiply to more than 100000 values. Use fewer aliases."),
    "an alias of itself": ("a=&x [*x]", "an alias (*name) refers to itself."),
    "5,000 digits": ("run.seed=" + "9" * 5_000, "a whole number has at most 18 digits."),
    "a date that is none": ("run.seed=2001-99-99", "run.seed: input should be a valid integer"),
    "NUL": ("a=\0", "the character '\\x00' is not allowed."),
    "many dots": (".".join(["a"] * 5_000) + "=1", "write the field as field.field"),
    "a line break in the name": ("a\nb=1", "write the field as field.field"),
    "a position in digits of another kind": ("data.classes.²=1", "² is no position in a list of 2. Positions count from 0."),
    "a position of 5,000 digits": (f"data.classes.{'9' * 5_000}=1", "is no position in a list of 2."),
    "nothing": ("", "write it as field.field=value"),
    "a value of 100 kB": ("run.seed.x=" + "y" * 100_000, "run.seed is 3, which has no fields."),
}


@pytest.fixture(scope="module", autouse=True)
def imported(tmp_path_factory):
    """All methods and data sources, whose import takes longer than to read a job."""
    job = tmp_path_factory.mktemp("good") / "job.yaml"
    job.write_text(GOOD)
    load_job(job)


def refused(call):
    """The one line of a JobError, which comes within three seconds of computing."""
    began = time.process_time()
    with pytest.raises(JobError) as caught:
        call()
    assert time.process_time() - began < 3
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 3_000
    return message


@pytest.mark.parametrize("name", IN_A_FILE)
def test_a_mistake_in_a_file(tmp_path, name):
    text, said = IN_A_FILE[name]
    good = GOOD.replace("run:\n  workers: 1\n", "#\n#\n") if text.startswith("run:") else GOOD
    (tmp_path / "job.yaml").write_text(good + text + "\n")
    message = refused(lambda: load_job(tmp_path / "job.yaml"))
    assert said in message
    assert message.startswith((f"{tmp_path}/job.yaml", "/dev/zero", f"{tmp_path}/a"))


@pytest.mark.parametrize("name", SET)
def test_a_mistake_in_an_option(tmp_path, name):
    text, said = SET[name]
    job = tmp_path / "job.yaml"
    job.write_text(GOOD.replace("  tags: tags.csv", "  tags: tags.csv\n  classes: [a, b]") + "  seed: 3\n")
    message = refused(lambda: load_job(job, [text]))
    assert said in message
    assert message.startswith("--set ")


def test_deep_blocks_of_two_sources_do_not_add_up_to_an_error(tmp_path):
    job = tmp_path / "job.yaml"
    job.write_text(GOOD)
    deep = "[" * (MOST_LEVELS - 1) + "]" * (MOST_LEVELS - 1)
    path = ".".join(["x"] * (MOST_LEVELS - 1))
    assert "x: there is no such field" in refused(lambda: load_job(job, [f"{path}={deep}"]))


def test_files_in_a_row_are_not_endless(tmp_path):
    for number in range(30):
        (tmp_path / f"{number}.yaml").write_text(f"base: {number + 1}.yaml\n")
    assert "20.yaml:1: base: more than 20 files lie under this job." in refused(lambda: read_document(tmp_path / "0.yaml"))


def test_dates_are_text():
    assert parse_yaml("a: 2001-01-01\nb: =\nc: 1_000\nd: 0x1F\ne: 1.5\nf: ~").values == {
        "a": "2001-01-01",
        "b": "=",
        "c": 1000,
        "d": 31,
        "e": 1.5,
        "f": None,
    }


def test_merge_keys_and_aliases_still_work():
    document = parse_document(b"a: &a {x: 1, y: [2]}\nb: {<<: *a, z: 3}\nc: *a\n", "job.yaml")
    assert document.values == {"a": {"x": 1, "y": [2]}, "b": {"x": 1, "y": [2], "z": 3}, "c": {"x": 1, "y": [2]}}
    assert document.sources["b", "z"] == "job.yaml:2"
    changed = document.with_value("c.y.0", 5, where="test")
    assert (changed.values["a"]["y"], changed.values["c"]["y"]) == ([2], [5])
