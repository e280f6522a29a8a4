"""Which run a tier's name stands for."""

from simnet.runs.runner import Run
from simnet.scenario import Scenario
from simnet.tiers import live_tier, trio_tier


def run_of(tier: str, scenario: Scenario) -> type[Run]:
    """ConfigError `config.tier` when the scenario is not for it."""
    module = live_tier if tier == "live" else trio_tier
    module.check_fits(scenario)
    return live_tier.LiveRun if tier == "live" else trio_tier.TrioRun
