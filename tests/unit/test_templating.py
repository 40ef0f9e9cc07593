"""What a template writes is read back as the value it was, whatever the value: by YAML, by a shell, in a comment."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jinja2 import UndefinedError

from tests.rendering import ROOT, render
from wsss_ray.deploy.manifests import templating

FOLDER = Path(templating.__file__).with_name("templates")
TEMPLATES = sorted(file.name for file in FOLDER.iterdir())

ODD = [
    "plain",
    "",
    " ",
    "it's",
    '"double"',
    "$(touch pwned)",
    "`touch pwned`",
    "; touch pwned #",
    "${HOME} $HOME",
    "back\\slash\\",
    "a: b",
    "key: &anchor [1, {x: y}] # no",
    "- item",
    "{{ 7 * 7 }} {% raw %} {# no #}",
    "two\nlines: x\n",
    " indented\nx\n",
    "ends\n\n",
    "\n",
    "x\n---\nkind: Secret\n",
    "\nWSSS_RAY_JOB\ntouch pwned\n",
    "tab\tand\x85next\u2028line\ufeff",
    "é 漢 😀",
    "<&>'\"",
    "%s @NAME@ %x",
    "no",
    "null",
    "~",
    "1e3",
    "0o17",
    "y",
    "2.60.0",
    "!tag x",
    "*alias",
    "x" * 300 + " " + "y" * 300,
]


def made(source: str, **values) -> str:
    return templating.environment().from_string(source).render(values)


# -- YAML --------------------------------------------------------------------------------------------------------------------


def odd_values(test):
    for value in ODD:
        test = example(value=value)(test)
    return settings(max_examples=200, deadline=None)(given(value=st.text(max_size=80))(test))


@odd_values
def test_yaml_reads_a_scalar_back_in_every_place(value):
    text = made("a:\n  b: {{ value | yaml }}\n  c:\n  - {{ value | yaml }}\n  - k: {{ value | yaml }}\nz: 1\n", value=value)
    assert yaml.safe_load(text) == {"a": {"b": value, "c": [value, {"k": value}]}, "z": 1}
    assert text.count("\n") == 6
    assert text.splitlines()[-1] == "z: 1"


@settings(max_examples=100, deadline=None)
@given(value=st.text(max_size=60))
def test_yaml_reads_a_key_back(value):
    assert yaml.safe_load(made("a:\n  {{ value | yaml }}: 1\nz: 1\n", value=value)) == {"a": {value: 1}, "z": 1}


@odd_values
def test_yaml_reads_a_block_back_in_every_place(value):
    text = made("a:\n  b: {{ value | block(4) }}\n  c: 1\nd:\n- {{ value | block(2) }}\n- 1\n", value=value)
    assert yaml.safe_load(text) == {"a": {"b": value, "c": 1}, "d": [value, 1]}


def test_a_job_is_a_block_that_people_can_read():
    assert made("a: {{ value | block(2) }}\n", value="x:\n  y: 1\n\nz: 2\n") == "a: |\n  x:\n    y: 1\n\n  z: 2\n"


@pytest.mark.parametrize("value", ["y", "N", "1e3", "-2E10", "1e-3", "0o17", "08", "1.5e3", "yes", "007"])
def test_what_go_takes_for_a_number_or_a_boolean_is_quoted(value):
    assert made("{{ value | yaml }}", value=value) in (f'"{value}"', f"'{value}'")


@pytest.mark.parametrize(
    "value", ["demo", "us-west-2", "2.60.0", "10.0.0.1", "/data/VOC2012", "s3://bucket/runs", "registry:5000/x:0.1"]
)
def test_what_needs_no_quotes_has_none(value):
    assert made("{{ value | yaml }}", value=value) == value


@odd_values
def test_a_comment_stays_on_its_line(value):
    text = made("# {{ value | comment }}.\na: 1\n", value=value)
    assert yaml.safe_load(text) == {"a": 1}
    assert len(text.splitlines()) == 2


# -- shells ------------------------------------------------------------------------------------------------------------------


def printed(script: str, folder: Path) -> list[str]:
    """What a script prints, split at NULs; it runs in an empty folder and leaves it empty."""
    folder.mkdir()
    environment = {"HOME": "/home/me", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(["bash", "-euc", script], cwd=folder, env=environment, capture_output=True, check=True)
    assert not list(folder.iterdir())
    return done.stdout.decode().split("\0")[:-1]


def test_a_shell_reads_words_back(tmp_path):
    words = [word for word in ODD if "\0" not in word]
    one_by_one = "".join(made("printf '%s\\0' {{ word | sh }}\n", word=word) for word in words)
    assert printed(one_by_one, tmp_path / "a") == words
    assert printed(made("printf '%s\\0' {{ words | sh }}", words=words), tmp_path / "b") == words
    at_home = "".join(made("printf '%s\\0' {{ word | sh_home }}\n", word=word) for word in words)
    assert printed(at_home, tmp_path / "c") == [f"/home/me/{word}" for word in words]


def test_a_shell_reads_a_text_back_and_expands_nothing(tmp_path):
    text = "".join(f"{word}\n" for word in ODD if "WSSS_RAY_JOB" not in word)
    assert printed(made("cat {{ text | heredoc }}\nprintf '\\0'\n", text=text), tmp_path / "a") == [text]
    assert printed(made("(cat {{ text | heredoc }}\n) && printf '\\0'", text="x\n WSSS_RAY_JOB\n"), tmp_path / "b")


def test_a_text_that_would_end_itself_is_refused():
    with pytest.raises(ValueError, match="job file: a line is WSSS_RAY_JOB"):
        made("cat {{ text | heredoc }}", text="x\nWSSS_RAY_JOB\ntouch pwned\n")


def test_a_command_in_yaml_is_quoted_twice(tmp_path):
    source = "{% set command %}printf '%s\\0' {{ word | sh }}{% endset %}\n- {{ command | yaml }}\n"
    commands = [yaml.safe_load(made(source, word=word))[0] for word in ODD]
    assert printed("\n".join(commands), tmp_path / "a") == ODD


# -- templates ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["text", True, None, 1.5, ["a"], {"a": 1}])
def test_a_value_without_a_filter_is_an_error(value):
    with pytest.raises(TypeError, match="is written without a filter"):
        made("a: {{ value }}", value=value)


def test_whole_numbers_need_no_filter():
    assert made("a: {{ 2 * value }}\n", value=3) == "a: 6\n"


@pytest.mark.parametrize("source", ["{{ missing }}", "{{ missing | yaml }}", "{{ missing | sh }}", "{% if missing %}{% endif %}"])
def test_a_value_that_is_not_given_is_an_error(source):
    with pytest.raises(UndefinedError, match="'missing' is undefined"):
        made(source)


def test_no_template_marks_a_value_as_safe():
    for name in TEMPLATES:
        assert not re.search(r"\|\s*safe\b|autoescape|Markup", (FOLDER / name).read_text()), name


def test_all_templates_are_used():
    sources = "".join(file.read_text() for file in [*FOLDER.parent.glob("*.py"), *FOLDER.iterdir()])
    assert [name for name in TEMPLATES if f'"{name}"' not in sources] == []


# -- whole manifests ---------------------------------------------------------------------------------------------------------

TEXT = """it's "a": b # $(touch pwned) `touch pwned` $HOME; {{ 7 * 7 }}\nkind: Secret\n- &x |\nWSSS_RAY_JOB\ntouch pwned\n-"""


def manifest(target: str, folder: Path, text: str) -> str:
    """A manifest with a text in the name of the job file, in a path of the job, and in the options."""
    options = {
        "kuberay": ["--image", text],
        "compose": ["--image", text],
        "slurm": ["--python", text],
        "ray-up": ["--cloud", f"gcp:{text}/{text}-a", "--vm-image", text, "--package", text],
    }
    file = folder / f"{text}.yaml"
    file.write_text(yaml.safe_dump({"base": str(ROOT / "jobs/demo.yaml"), "run": {"store": f"/data/{text}/runs"}}))
    return render(target, str(file), *options[target])


def shape(value):
    """A document with types instead of values, to see whether a text has become structure."""
    if isinstance(value, dict):
        return {key: shape(one) for key, one in value.items()}
    return [shape(one) for one in value] if isinstance(value, list) else type(value).__name__


@pytest.mark.parametrize("target", ["kuberay", "compose", "ray-up"])
def test_an_odd_text_changes_no_structure(target, tmp_path):
    odd, plain = (list(yaml.safe_load_all(manifest(target, tmp_path, text))) for text in (TEXT, "plain"))
    assert shape(odd) == shape(plain)


def test_an_odd_text_reaches_a_pod_as_it_is(tmp_path):
    config, _, job = yaml.safe_load_all(manifest("kuberay", tmp_path, TEXT))
    assert yaml.safe_load(config["data"]["job.yaml"])["run"]["store"] == f"/data/{TEXT}/runs"
    (worker,) = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    (container,) = worker["template"]["spec"]["containers"]
    assert (container["image"], container["volumeMounts"][0]["mountPath"]) == (TEXT, f"/data/{TEXT}/runs")


def test_compose_fills_nothing_into_an_odd_path(tmp_path):
    document = yaml.safe_load(manifest("compose", tmp_path, TEXT))
    for service in document["services"].values():
        (volume,) = service["volumes"]
        assert volume["source"] == volume["target"] == f"/data/{TEXT}/runs".replace("$", "$$")
    content = document["configs"]["job"]["content"].replace("$$", "$")
    assert yaml.safe_load(content)["run"]["store"] == f"/data/{TEXT}/runs"


@pytest.mark.parametrize("package", [TEXT, "wsss-ray==0.1.0", "wsss-ray @ https://example.com/x.whl", f"dist/{TEXT}.whl"])
def test_an_odd_package_is_one_word_to_pip(package, tmp_path):
    args = ["--store", "s3://b/r", "--cloud", "local:me@a,b", "--package", package]
    config = yaml.safe_load(render("ray-up", str(ROOT / "jobs/demo.yaml"), *args))
    (command,) = [command for command in config["setup_commands"] if "install --quiet" in command and "arcade" not in command]
    said = printed(command.replace("~/wsss-ray/bin/pip", "printf '%s\\0'", 1), tmp_path / "a")
    wheel = f"{TEXT}.whl"
    is_wheel = package.startswith("dist/")
    assert said == ["install", "--quiet", f"/home/me/{wheel}[coco,efficientnet,sprites,timm]" if is_wheel else package]
    assert config["file_mounts"] == ({f"~/{wheel}": package} if is_wheel else {})


def test_the_head_writes_an_odd_job_as_it_is(tmp_path):
    config = yaml.safe_load(manifest("ray-up", tmp_path, TEXT))
    command = config["head_setup_commands"][-1].replace("> ~/job.yaml", "", 1)
    (text,) = printed(f"true && ({command}); printf '\\0'", tmp_path / "a")
    assert yaml.safe_load(text)["run"]["store"] == f"/data/{TEXT}/runs"


def test_a_batch_script_with_an_odd_text_runs_nothing_of_it(tmp_path):
    script = manifest("slurm", tmp_path, TEXT)
    begin, _, rest = script.partition('PATH="$(dirname')
    assert printed(begin + "\nprintf '%s\\0' \"$python\"", tmp_path / "a") == [TEXT]
    written = rest.partition('cat > "$RAY_TMPDIR/job.yaml" ')[2].partition("\n# This script")[0]
    (text,) = printed(f"cat {written}printf '\\0'", tmp_path / "b")
    assert yaml.safe_load(text)["run"]["store"] == f"/data/{TEXT}/runs"
    options = [line for line in script.splitlines() if line.startswith("#SBATCH")]
    assert options == [line for line in manifest("slurm", tmp_path, "plain").splitlines() if line.startswith("#SBATCH")]
