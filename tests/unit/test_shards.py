"""How per-image stages are laid on actors."""

from __future__ import annotations

from tests.local import job_of
from tests.shapes import tiny_job
from wsss_ray.runners.execute import pending
from wsss_ray.runners.shards import operators_of
from wsss_ray.storage.store import RunStore


def test_stages_share_their_actors(tmp_path):
    """Twelve estimates are three localizers and six seeds of each network; an operator each would want a GPU and a pool each."""
    job = tiny_job()
    classifier = {"kind": "stochastic_classifier"} | job["method"]["classifier"]
    rule = {"kind": "threshold_seeds"} | job["method"]["seed_rule"]
    job["method"] = {
        "name": "multi_estimations",
        "classifiers": [classifier],
        "localizers": [{"kind": "stochastic_grad_cam", "selections": count} for count in (2, 3)],
        "seed_rules": [rule, rule | {"theta": 0.6}],
    }
    plan, store = job_of(job).plan(), RunStore(str(tmp_path))
    group = max(pending(plan, store), key=len)
    names = [stage.name for stage in group]
    assert names.index("maps-1.2") > names.index("seeds-1.1.1")
    on_gpus = operators_of(group, on_gpus=True)
    kinds = [(part.on_gpu, {stage.kind for stage in part.stages}) for part in on_gpus]
    assert kinds == [(True, {"localize"}), (False, {"seed", "evaluate"})]
    (alone,) = operators_of(group, on_gpus=False)
    assert list(alone.stages) == group
    assert not alone.on_gpu
