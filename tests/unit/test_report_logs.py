"""The logs in the report: by stage, the newest first, in words."""

from __future__ import annotations

import os
from pathlib import Path

from tests.unit.test_report import HOSTILE, JOB, Page, make_plan
from wsss_ray.reporting import report
from wsss_ray.reporting.report.logs import log_groups
from wsss_ray.storage.store import RunStore

JOB_ID = "01000000"


def test_logs_are_grouped_by_stage_the_newest_first(tmp_path: Path) -> None:
    store, (plan, named) = RunStore(str(tmp_path)), make_plan()
    folder = Path(store.run_path("r", "logs"))
    folder.mkdir(parents=True)

    def write(name: str, text: str, written: int) -> None:
        (folder / name).write_text(text)
        os.utime(folder / name, (written, written))

    top = f":job_id:{JOB_ID}\n:actor_name:MapWorker(Map(ShardOperator))\n"
    maps, classifier = named["maps"].id, named["classifier"].id
    write(f"worker-aa-{JOB_ID}-11.err", f"{top}makes {maps} (maps) {named['seeds 0'].id} (seeds 0)\nslow\n", 1_000)
    write(f"worker-aa-{JOB_ID}-11.out", top, 1_000)
    write(f"worker-bb-{JOB_ID}-12.err", f"{top}makes {maps} (maps)\nagain\n", 2_000)
    write(f"worker-bb-{JOB_ID}-12.out", f"{top}printed\n", 2_001)
    write("ray-train-app-controller-cc.log", f'{{"run_name": "{classifier}-17"}}\n', 1_500)
    write(f"worker-cc-{JOB_ID}-13.err", f"{top}Started training\n", 1_400)
    write(f"ray-data-{maps}+{named['seeds 1'].id}_03_0.log", "x\n", 900)
    write("ray-data.log", f"{maps}\n", 900)
    write(f"worker-dd-{JOB_ID}-14.err", f"{top}makes seed-{'0' * 16} (of another job)\n", 900)
    write(f"{HOSTILE.replace('/', '_')}.log", "x\n", 800)
    groups = {group.stage: [log.name for log in group.logs] for group in log_groups(store, plan, "r")}
    data = f"ray-data-{maps}+{named['seeds 1'].id}_03_0.log"
    assert groups.pop("classifier") == ["ray-train-app-controller-cc.log", f"worker-cc-{JOB_ID}-13.err"]
    assert groups.pop("maps") == [f"worker-bb-{JOB_ID}-12.out", f"worker-bb-{JOB_ID}-12.err", f"worker-aa-{JOB_ID}-11.err", data]
    assert groups.pop("seeds 0") == [f"worker-aa-{JOB_ID}-11.err"]
    assert groups.pop("seeds 1") == [data]
    assert sorted(groups.pop("")) == sorted(["ray-data.log", f"worker-dd-{JOB_ID}-14.err", f"{HOSTILE.replace('/', '_')}.log"]), (
        "files of no stage of this plan"
    )
    assert groups == {}
    page = Page(report.build(store, "r", plan, JOB).decode())
    folds = [text for text in page.texts if text in ("Localization maps ", "Classifier ")]
    assert folds == ["Classifier ", "Localization maps "]
    assert page.texts.count("worker 12: output") == 1
    assert page.text.index("worker 12: output") < page.text.index("worker 11: messages and errors")
    assert "1970-01-01 00:33:21, 0.1 kB" in page.texts
    assert f"worker-aa-{JOB_ID}-11.out" not in page.values("title"), "nobody wrote anything into it"


def test_few_logs_are_read_and_listed(tmp_path: Path) -> None:
    store, (plan, named) = RunStore(str(tmp_path)), make_plan()
    for place in range(450):
        path = store.run_path("r", "logs", f"worker-{place:03x}-{JOB_ID}-{place}.err")
        store.write(path, f"makes {named['maps'].id}\n".encode())
    first, rest = log_groups(store, plan, "r")
    assert (first.stage, len(first.logs), first.total) == ("maps", 40, 400)
    assert (rest.stage, rest.total) == ("", 50)
    assert "The list shows the first 40 of 400." in Page(report.build(store, "r", plan, JOB).decode()).text
