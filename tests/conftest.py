"""What holds for every test: generated examples are the same on every run and machine.

Hypothesis draws from a fixed seed and keeps no database, so a failure seen once is seen by everybody. To look
for new examples on purpose: `HYPOTHESIS_SEED_FREE=1 pytest`.
"""

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from nachos_min.nas import records

settings.register_profile(
    "repeatable",
    derandomize=True,
    database=None,
    deadline=None,  # a kernel's first call compiles: seconds, and no defect
    max_examples=40,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("free", settings.get_profile("repeatable"), derandomize=False, max_examples=400)
settings.load_profile("free" if os.environ.get("HYPOTHESIS_SEED_FREE") else "repeatable")


@pytest.fixture(scope="module")
def made_up() -> Iterator[None]:
    """Evaluations may have figures that are easy to read, and no network has."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "_contradictions", lambda *_: iter(()))
        patch.setattr(records, "_check_loads", lambda *_: None)
        yield
