"""Upper connection thresholds of a real server: ipvsadm(8), -x and -y."""

import pytest

from fixtures.balanced import LimitedServer
from fixtures.topologies import ROUTED

pytestmark = pytest.mark.topology(ROUTED)


class Balanced(LimitedServer):
    def connect(self):
        """Open a connection and keep it; False if it is refused."""
        return super().connect() is not None


@pytest.mark.parametrize("uppers, connections, then", [
    ([2], 2, [False]),
    ([2, 3], 2, [True, False]),
    ([2, 0], 2, [True, True]),
    ([0, 2], 2, [False]),
    ([4, 2, 3], 4, [False]),
], ids=["unchanged", "raised", "lifted", "introduced", "lowered, then raised below the connection count"])
def test_real_server_obeys_the_upper_threshold_last_set(net, family, uppers, connections, then):
    """It counts existing connections, too. Kernels without "ipvs: properly update the overload flag on dest edit" go by
    the direction of the change."""
    service = Balanced(net, family, 80)
    service.threshold("-a", uppers[0])
    assert [service.connect() for _ in range(connections)] == [True] * connections

    for upper in uppers[1:]:
        service.threshold("-e", upper)

    assert [service.connect() for _ in then] == then
