"""Hosts in network namespaces, the links between them, and tools to drive and observe them.

A plain library: it depends neither on pytest nor on virtual machines.
"""

from netns.errors import (
    CaptureLost,
    CommandError,
    ExpectationFailed,
    IsolationError,
    MissingFeature,
    MissingOnHost,
    NetnsError,
    NotRecording,
    SocketTimeout,
    WrongCount,
    missing_feature,
)
from netns.hosts import firewall, isolate
from netns.hosts.host import Host, Interface
from netns.hosts.topology import Link, Network, Route, Topology, build
from netns.timer import TICK, approx_timer, timer_slack, wheel_granularity
from netns.traffic.tcp import TcpInfo, deliver, keepalive, listen, tcp_info, tcp_pair, vanish, wait_for_error, zero_window_pair
from netns.wait import Expected, at_least, at_most, eventually, stopwatch

__all__ = [
    "CaptureLost", "CommandError", "Expected", "Host", "MissingOnHost", "Interface", "IsolationError", "Link", "MissingFeature",
    "NetnsError", "Network", "ExpectationFailed", "SocketTimeout", "NotRecording",
    "Route", "TICK", "TcpInfo", "Topology", "WrongCount", "approx_timer", "at_least",
    "at_most", "build", "deliver", "eventually", "firewall", "isolate", "keepalive", "missing_feature", "listen", "stopwatch", "tcp_info",
    "tcp_pair", "timer_slack", "vanish",
    "wait_for_error", "wheel_granularity", "zero_window_pair",
]
