"""Networks of every kind that is exported, with the engine's answers."""

import pytest
from trained_networks import CASES, trained

from nachos_min.export.comparison import Engine


@pytest.fixture(params=CASES)
def case(request):
    """A network and its images, of which some leave at every exit."""
    network, images = trained(request.param)
    engine = Engine(network, images)
    assert len(set(engine.exits)) == len(network.thresholds)
    return engine
