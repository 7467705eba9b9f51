"""Hypothesis runs the same examples everywhere; failures are replayable. Nothing that stays is looked at twice."""

import gc
import sys

from hypothesis import HealthCheck, settings

settings.register_profile(
    "edge4d", derandomize=True, deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("edge4d")


def pytest_collection_finish(session):
    """What the imports made stays to the end: the collector need not walk through it at every export."""
    if "torch" in sys.modules:
        from tests.kept_tables import keep_tables

        keep_tables()
    gc.collect()
    gc.freeze()
