"""What the model says: metrics of small scenarios.  They must not move unless the model does."""

import tempfile
from pathlib import Path

import kmbench

STRATEGIES = sorted(kmbench.load_plugins().strategies)
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
_RECORDED = {path.stem: path for path in sorted(WORKLOADS.glob("recorded/*.toml"))}
SCENARIOS = {**_GENERATED, **_RECORDED}


class Simulated:
    """One number of a run: scenario x strategy, seed 0."""

    params = (list(SCENARIOS), STRATEGIES)
    param_names = ("scenario", "strategy")

    def setup_cache(self):
        """Run everything once; the metrics by scenario and strategy."""
        found = {}
        with tempfile.TemporaryDirectory() as out:
            for name, scenario in SCENARIOS.items():
                results = kmbench.run(scenario, STRATEGIES, out=f"{out}/{name}")
                for row in results.runs.collect().iter_rows(named=True):
                    found[name, row["strategy"]] = row
        return found

    def track_slab_bytes(self, found, scenario, strategy):
        """Peak of the memory held by slabs."""
        return found[scenario, strategy]["slab_bytes_peak"]

    def track_charge_error(self, found, scenario, strategy):
        """Median error of what groups were charged, as a share of what they used."""
        error = found[scenario, strategy]["charge_error_median"]
        return float("nan") if error is None else error  # nothing lives at any sample

    def track_ops_per_alloc(self, found, scenario, strategy):
        """Operations of all kinds per allocation."""
        return found[scenario, strategy]["ops_per_alloc"]

    track_slab_bytes.unit = "bytes"
    track_charge_error.unit = "1"
    track_ops_per_alloc.unit = "ops"
