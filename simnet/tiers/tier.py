"""Which run a tier's name stands for."""

from peer.logs import configure_logs
from simnet.runner import Run
from simnet.scenario import Scenario
from simnet.tiers import trio_tier


def run_of(tier: str, scenario: Scenario) -> type[Run]:
    """ConfigError `config.tier` when the scenario is not for it. Daemons log errors alone."""
    trio_tier.check_fits(scenario)
    configure_logs("error", "auto")
    return trio_tier.TrioRun
