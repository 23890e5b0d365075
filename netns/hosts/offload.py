"""Segmentation offload of a host's interfaces."""

import ctypes
import fcntl
import socket
import struct

from netns.hosts.host import Host

_SIOCETHTOOL = 0x8946
# include/uapi/linux/ethtool.h
_ETHTOOL_STSO = 0x0000001F


def segment_in_software(host: Host, on: bool = True) -> None:
    """The host segments its TCP data in software, before its captures and its peers see it; with `on` false, no longer.

    A veth interface takes segments of up to 64 kB (GSO) and nothing splits them, so a capture differs from what a
    network would carry. Source: Documentation/networking/segmentation-offloads.rst, ethtool(8). Raises OSError.
    """
    value = ctypes.create_string_buffer(struct.pack("=II", _ETHTOOL_STSO, not on))
    with host.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for interface in host.interfaces.values():
            # struct ifreq: the name, then a pointer to the command.
            request = struct.pack("16sP16x", interface.name.encode(), ctypes.addressof(value))
            fcntl.ioctl(control, _SIOCETHTOOL, request)
