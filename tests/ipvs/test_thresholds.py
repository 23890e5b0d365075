"""Upper connection thresholds of a real server: ipvsadm(8), -x and -y."""

import pytest

from fixtures.topologies import ROUTED

pytestmark = pytest.mark.topology(ROUTED)


class Balanced:
    """A virtual service on port 80 of the router, with one real server."""

    def __init__(self, net, family):
        self._client, server, self._director = net.nodes("client", "server", "router")
        self._family = family
        self._listener = server.socket(family)
        self._listener.bind((server.address(family), 80))
        self._listener.listen()
        self._virtual = self._director.address(family, "client")
        at, real = (f"[{each}]:80" if ":" in each else f"{each}:80"
                    for each in (self._virtual, server.address(family)))
        self._real_server = ["-t", at, "-r", real, "-m"]
        self._director.run(["ipvsadm", "-A", "-t", at, "-s", "rr"])

    def threshold(self, edit, upper):
        """Set the upper threshold; 0 means no limit."""
        self._director.run(["ipvsadm", edit, *self._real_server, "-x", str(upper)])

    def connect(self):
        """Open a connection and keep it; False if it is refused."""
        conn = self._client.socket(self._family)
        conn.settimeout(5)
        try:
            conn.connect((self._virtual, 80))
        except ConnectionRefusedError:
            return False
        return True


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
    service = Balanced(net, family)
    service.threshold("-a", uppers[0])
    assert [service.connect() for _ in range(connections)] == [True] * connections

    for upper in uppers[1:]:
        service.threshold("-e", upper)

    assert [service.connect() for _ in then] == then
