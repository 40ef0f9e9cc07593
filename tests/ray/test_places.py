"""What a training holds is free when its process was ended from outside, and not before."""

from __future__ import annotations

import time

import pytest

pytestmark = pytest.mark.ray


def test_the_places_of_the_dead_are_free_and_those_of_the_living_are_not(ray_session):
    import ray
    from ray.util.placement_group import placement_group, placement_group_table, remove_placement_group

    from wsss_ray.runners.train import free_dead_groups

    @ray.remote(num_cpus=0)
    class Holder:
        def hold(self):
            self.group = placement_group([{"CPU": 0.01}])
            ray.get(self.group.ready())
            return self.group.id.hex()

    def state(group):
        return placement_group_table()[group]["state"]

    living, dying = Holder.remote(), Holder.remote()
    kept, left = ray.get([living.hold.remote(), dying.hold.remote()])
    own = placement_group([{"CPU": 0.01}])
    ray.get(own.ready())
    free_dead_groups()
    assert [state(group) for group in (kept, left, own.id.hex())] == ["CREATED"] * 3
    ray.kill(dying)
    deadline = time.monotonic() + 30
    while state(left) != "REMOVED":
        assert time.monotonic() < deadline
        free_dead_groups()
    assert (state(kept), state(own.id.hex())) == ("CREATED", "CREATED")
    remove_placement_group(own)
    ray.kill(living)
