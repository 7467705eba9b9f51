"""Hypothesis runs the same examples everywhere, failures are replayable; what torch works out anew is kept."""

import gc
import sys

from hypothesis import HealthCheck, settings

settings.register_profile(
    "edge4d", derandomize=True, deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("edge4d")


def pytest_collection_modifyitems(items):
    """Networks at full size come first: a minute's test that comes last leaves all workers but one without work."""
    items.sort(key=lambda item: "zoo/test_zoo.py" not in item.nodeid)


def pytest_collection_finish(session):
    """What the imports made stays to the end: the collector need not walk through it at every export, nor so often."""
    if "torch" in sys.modules:
        from tests.kept_tables import keep_tables

        keep_tables()
        session.threads = sys.modules["torch"].get_num_threads()
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)


def pytest_runtest_teardown(item):
    """A benchmark sets PyTorch's threads for its process, which is that of the next tests too.

    Two workers of two threads on two cores wait for each other: training a network of two layers took 20 times as long.
    """
    torch, threads = sys.modules.get("torch"), getattr(item.session, "threads", None)
    if threads is not None and torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
