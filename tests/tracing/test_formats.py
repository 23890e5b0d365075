"""The fields of the tracepoints that network monitors attach to. Source: Documentation/trace/events.rst, "Event formats";
include/trace/events/."""

import re

import pytest

from netns import MissingFeature
from netns.observe.drops import TRACEFS

# By event: the fields that tools read, with their sizes in bytes.
EVENTS = {
    "skb/kfree_skb": {"skbaddr": 8, "location": 8, "protocol": 2},
    "skb/consume_skb": {"skbaddr": 8},
    "net/net_dev_queue": {"skbaddr": 8, "len": 4},
    "net/net_dev_xmit": {"skbaddr": 8, "len": 4, "rc": 4},
    "net/netif_receive_skb": {"skbaddr": 8, "len": 4},
    "net/netif_rx": {"skbaddr": 8, "len": 4},
    "napi/napi_poll": {"napi": 8, "work": 4, "budget": 4},
    "sock/inet_sock_set_state": {"skaddr": 8, "oldstate": 4, "newstate": 4, "sport": 2, "dport": 2, "family": 2, "protocol": 2, "saddr": 4,
                                 "daddr": 4, "saddr_v6": 16, "daddr_v6": 16},
    "tcp/tcp_retransmit_skb": {"skbaddr": 8, "skaddr": 8, "state": 4, "sport": 2, "dport": 2, "saddr": 4, "daddr": 4, "saddr_v6": 16,
                               "daddr_v6": 16},
    "tcp/tcp_send_reset": {"skbaddr": 8, "skaddr": 8, "state": 4},
    "tcp/tcp_receive_reset": {"skaddr": 8, "sport": 2, "dport": 2, "saddr": 4, "daddr": 4},
    "tcp/tcp_destroy_sock": {"skaddr": 8, "sport": 2, "dport": 2},
    "tcp/tcp_probe": {"sport": 2, "dport": 2, "snd_nxt": 4, "snd_una": 4, "snd_cwnd": 4, "srtt": 4, "rcv_wnd": 4, "sock_cookie": 8},
    "udp/udp_fail_queue_rcv_skb": {"rc": 4},
    "fib/fib_table_lookup": {"tb_id": 4, "err": 4, "oif": 4, "iif": 4, "src": 4, "dst": 4},
    "irq/softirq_entry": {"vec": 4},
    "sched/sched_switch": {"prev_pid": 4, "next_pid": 4, "prev_state": 8},
}
_FIELD = re.compile(r"field:(?P<type>[^;]*?)(?P<name>\w+)(?:\[\d*\])?;\s*offset:(?P<offset>\d+);\s*size:(?P<size>\d+);")


@pytest.mark.parametrize("event", EVENTS)
def test_tracepoint_has_its_fields(event):
    """Each with the size that programs load, and none overlaps another: a field that is renamed or moves to another type breaks every tool
    that attaches without BTF (huatuo #514)."""
    path = TRACEFS / "events" / event / "format"
    try:
        text = path.read_text()
    except OSError as error:
        if (TRACEFS / "events" / event.partition("/")[0]).exists():
            raise AssertionError(f"there is no tracepoint {event}") from error
        raise MissingFeature(f"no tracepoints of {event.partition('/')[0]} in tracefs") from error
    fields = {found["name"]: (int(found["offset"]), int(found["size"])) for found in _FIELD.finditer(text)}

    assert {name: fields.get(name, (0, None))[1] for name in EVENTS[event]} == EVENTS[event]
    ends = sorted((offset, offset + size) for offset, size in fields.values())
    assert all(end <= start for (_start, end), (start, _end) in zip(ends, ends[1:]))
