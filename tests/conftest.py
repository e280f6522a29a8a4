"""Hypothesis profiles: quick by default, `ci` and `deep` by HYPOTHESIS_PROFILE.

`ci` draws the same examples every time: a commit passes or it doesn't. The others explore.
"""

import os

from hypothesis import HealthCheck, settings

settings.register_profile("quick", max_examples=40, deadline=None)
settings.register_profile("ci", max_examples=200, deadline=None, derandomize=True)
settings.register_profile(
    "deep", max_examples=5_000, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))
