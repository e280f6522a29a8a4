"""Hypothesis profiles: quick by default, `ci` and `deep` by HYPOTHESIS_PROFILE.

`ci` draws the same examples every time, as long as the same modules are imported, and does not
look for the smallest that fails: run it with `quick` for that. The others explore, `deep`
in shards if need be: DEEP_EXAMPLES is how many, and each `--hypothesis-seed` draws others.
"""

import os

from hypothesis import HealthCheck, Phase, settings

DEEP_EXAMPLES = int(os.environ.get("DEEP_EXAMPLES", "20000"))

settings.register_profile("quick", max_examples=40, deadline=None, stateful_step_count=30)
settings.register_profile(
    "ci",
    settings.get_profile("quick"),
    max_examples=200,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
)
settings.register_profile(
    "deep",
    max_examples=DEEP_EXAMPLES,
    deadline=None,
    stateful_step_count=80,
    suppress_health_check=[HealthCheck.too_slow],
)
# For broken code: that it fails is enough, the smallest example takes minutes.
settings.register_profile(
    "mutants",
    settings.get_profile("ci"),
    phases=[Phase.generate],
    database=None,
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))
