"""Packets taken apart and made: headers, ICMP errors, raw sockets, error queues."""
