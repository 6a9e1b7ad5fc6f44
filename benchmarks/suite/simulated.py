"""Whole scenarios: what the model says, which must not move unless the model does, and how fast."""

import tempfile
from dataclasses import replace
from pathlib import Path

import kmbench

from . import ALLOCATORS, STRATEGIES, some

WORKLOADS = Path(__file__).parents[2] / "workloads"
_GENERATED = {
    "spread": kmbench.Scenario(
        "spread", "spread", parameters={"groups": 100, "objects": 5, "freed": 0.5},
        sample_every="100 us",
    ),
    "slab_pairs": kmbench.Scenario(
        "slab_pairs", "slab_pairs", parameters={"pairs": 20_000, "tasks": 8, "groups": 4},
        sample_every="1 ms",
    ),
}  # fmt: skip
_RECORDED = {
    path.stem: kmbench.load_scenario(path) for path in sorted(WORKLOADS.glob("recorded/*.toml"))
}
_ALL = _GENERATED | _RECORDED
SCENARIOS = some(_ALL, "KMBENCH_ASV_SCENARIOS")


class Simulated:
    """One number of a run: scenario x strategy x allocator, seed 0."""

    params = (SCENARIOS, STRATEGIES, ALLOCATORS)
    param_names = ("scenario", "strategy", "allocator")

    def setup_cache(self):
        """Run everything once; the metrics by scenario, strategy and allocator."""
        found = {}
        with tempfile.TemporaryDirectory() as out:
            for name in SCENARIOS:
                for allocator in ALLOCATORS:
                    scenario = replace(_ALL[name], allocator=allocator)
                    results = kmbench.run(scenario, STRATEGIES, out=f"{out}/{name}-{allocator}")
                    timing = results.timing.select("run_id", "events_per_s")
                    rows = results.runs.join(timing, on="run_id").collect()
                    for row in rows.iter_rows(named=True):
                        found[name, row["strategy"], allocator] = row
        return found

    def track_slab_bytes(self, found, scenario, strategy, allocator):
        """Peak of the memory held by slabs."""
        return found[scenario, strategy, allocator]["slab_bytes_peak"]

    def track_charge_error(self, found, scenario, strategy, allocator):
        """Median error of what groups were charged, as a share of what they used."""
        error = found[scenario, strategy, allocator]["charge_error_median"]
        return float("nan") if error is None else error  # nothing lives at any sample

    def track_ops_per_alloc(self, found, scenario, strategy, allocator):
        """Operations of all kinds per allocation."""
        return found[scenario, strategy, allocator]["ops_per_alloc"]

    def track_events_per_second(self, found, scenario, strategy, allocator):
        """Speed of the engine, one run; the only one of these that depends on the machine."""
        return found[scenario, strategy, allocator]["events_per_s"]

    track_slab_bytes.unit = "bytes"
    track_charge_error.unit = "1"
    track_ops_per_alloc.unit = "ops"
    track_events_per_second.unit = "events/s"
