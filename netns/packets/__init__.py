"""Packets decoded and crafted: headers, ICMP errors, raw sockets, error queues."""
