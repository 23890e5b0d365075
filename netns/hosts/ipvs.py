"""IPVS: a director forwards connections for a virtual address to real servers through tunnels.

Set up with ipvsadm. Source: ipvsadm(8), Documentation/networking/ipvs-sysctl.rst.
"""

from collections.abc import Sequence

from netns.hosts.host import Host
from netns.hosts.tunnel import fallback


def tunnel_service(director: Host, virtual: str, port: int, real: Sequence[str], scheduler: str = "rr") -> None:
    """Forward TCP connections for the virtual address and port to the real servers, each through a tunnel.

    Raises MissingFeature if the kernel has no IPVS or no such scheduler.
    """
    at = _endpoint(virtual, port)
    rules = [f"-A -t {at} -s {scheduler}", *(f"-a -t {at} -r {_endpoint(address, port)} -i" for address in real)]
    director.run(["ipvsadm", "--restore"], stdin="\n".join(rules) + "\n")
    director.add_address(virtual)


def real_server(host: Host, virtual: str) -> None:
    """The host decapsulates packets for the virtual address and answers them itself (tunl0 or ip6tnl0).

    Raises MissingFeature if the kernel has no such tunnel.
    """
    fallback(host, "ip6tnl" if ":" in virtual else "ipip", virtual)


def _endpoint(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
