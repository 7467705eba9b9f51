"""Hypothesis runs the same examples everywhere; failures are replayable."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "edge4d", derandomize=True, deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("edge4d")
