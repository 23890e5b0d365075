"""Prints what the case does: topology, settings, commands, and the calls of its sockets."""

import errno
import os
import shlex
import socket
import time
from collections import Counter

import netns.hosts.host
from netns.hosts import topology
from netns.netlink import rtnl, xfrm

from . import setup

_MOST_ALIKE = 12                            # lines of one kind per host; more are only counted
_began = time.monotonic()
_counts = Counter()
_real = socket.socket


def milliseconds():
    return (time.monotonic() - _began) * 1000


def tell(text, host=None):
    """One line, with the milliseconds since the start."""
    who = "%s: " % host.role if host is not None else ""
    first, *more = text.splitlines() or [""]
    print("[%12.3f ms] %s%s" % (milliseconds(), who, first), flush=True)
    for line in more:
        print(" " * 18 + line, flush=True)


def _tell_limited(host, kind, text):
    _counts[host.role, kind] += 1
    if _counts[host.role, kind] <= _MOST_ALIKE:
        tell(text, host)
    elif _counts[host.role, kind] == _MOST_ALIKE + 1:
        tell("(more lines of this kind are omitted: %s)" % kind, host)


def _name(error):
    return errno.errorcode.get(error.errno, "timeout") if isinstance(error.errno, int) else "timeout"


def _address(address):
    if isinstance(address, tuple) and len(address) >= 2 and isinstance(address[0], str):
        return ("[%s]:%s" if ":" in address[0] else "%s:%s") % tuple(address[:2])
    return repr(address)


class NarratedSocket(_real):
    """A socket that prints its calls."""

    host = None

    def _narrated(self, kind, text, call, *arguments):
        _tell_limited(self.host, kind, text)
        try:
            return call(*arguments)
        except BlockingIOError:
            raise
        except OSError as error:
            _tell_limited(self.host, "failing %s" % kind, "%s: %s" % (kind, _name(error)))
            raise

    def bind(self, address):
        return self._narrated("bind", "bind %s" % _address(address), super().bind, address)

    def listen(self, *backlog):
        return self._narrated("listen", "listen at %s, backlog %s" % (_address(self.getsockname()), backlog[0] if backlog else "128"),
                          super().listen, *backlog)

    def connect(self, address):
        return self._narrated("connect", "connect to %s" % _address(address), super().connect, address)

    def connect_ex(self, address):
        _tell_limited(self.host, "connect", "connect to %s" % _address(address))
        number = super().connect_ex(address)
        _tell_limited(self.host, "connect", "connect: %s" % errno.errorcode.get(number, "connected"))
        return number

    def accept(self):
        descriptor, address = self._accept()
        made = NarratedSocket(self.family, self.type, self.proto, fileno=descriptor)
        made.host = self.host
        if socket.getdefaulttimeout() is None and self.gettimeout():
            made.setblocking(True)
        _tell_limited(self.host, "accept", "accept a connection from %s" % _address(address))
        return made, address

    def send(self, data, *flags):
        return self._narrated("send", "send %d bytes" % len(data), super().send, data, *flags)

    def sendall(self, data, *flags):
        return self._narrated("send", "send %d bytes" % len(data), super().sendall, data, *flags)

    def sendto(self, data, *rest):
        return self._narrated("send", "send %d bytes to %s" % (len(data), _address(rest[-1])), super().sendto, data, *rest)

    def recv(self, *arguments):
        data = self._narrated("receive", "wait for data", super().recv, *arguments)
        _tell_limited(self.host, "received", "received %d bytes" % len(data) if data else "received EOF")
        return data

    def shutdown(self, how):
        return self._narrated("shutdown", "shutdown %s" % ("SHUT_RD", "SHUT_WR", "SHUT_RDWR")[how], super().shutdown, how)

    def close(self):
        if self.fileno() >= 0:
            _tell_limited(self.host, "close", "close a socket")
        super().close()


def _socket(host, family, kind=socket.SOCK_STREAM, protocol=0):
    with host.entered():
        made = NarratedSocket(family, kind, protocol)
    made.host = host
    return host.adopt(made)


def _run(original):
    def run(host, command, stdin="", timeout=30):
        return _narrated_command(host, shlex.join(command), stdin, lambda: original(host, command, stdin, timeout))
    return run


def _nft(original):
    def nft(host, text, json=False):
        return _narrated_command(host, "nft -j -f -" if json else "nft -f -", text, lambda: original(host, text, json))
    return nft


def _narrated_command(host, command, stdin, call):
    tell(command + "".join("\n  %s" % line.strip() for line in stdin.strip().splitlines()), host)
    try:
        return call()
    except netns.CommandError as error:
        tell("failed: %s" % error, host)
        raise


def _pin(original):
    pinned = {}                             # long lists of settings, and the first host that has them

    def pin(host, values):
        words = ["%s=%s" % (name, str(value).strip()) for name, value in values.items()]
        first = pinned.setdefault(tuple(words), host.role) if len(words) > 3 else host.role
        shown = "\n    ".join(words) if first == host.role else "the same %d settings as %s" % (len(words), first)
        _tell_limited(host, "sysctl", "sysctl " + shown)
        original(host, values)
    return pin


def _sysctl(original):
    def sysctl(host, name, value=None):
        if value is not None:
            tell("sysctl %s=%s" % (name, value), host)
        return original(host, name, value)
    return sysctl


def _xfrm_add(original, words):
    def add(host, *items):
        for item in items:
            tell(words(item), host)
        original(host, *items)
    return add


def _plug(original):
    def plug(link, number, left, right):
        tell("veth, mtu %d: %s -- %s" % (link.mtu, topology.interface_name(link, link.left),
                                                   topology.interface_name(link, link.right)))
        original(link, number, left, right)
    return plug


def _link_state(original):
    def link_state(index, up):
        if index > 1 and _plugged:
            tell("interface %d set %s" % (index, "up" if up else "down"))
        return original(index, up)
    return link_state


_plugged = []


def topology_built():
    """From here on, print when interfaces go up or down."""
    _plugged.append(True)


def install():
    host = netns.hosts.host.Host
    host.socket = _socket
    host.run, host.nft, host.pin, host.sysctl = _run(host.run), _nft(host.nft), _pin(host.pin), _sysctl(host.sysctl)
    xfrm.add = _xfrm_add(xfrm.add, setup.xfrm_words)
    topology.plug = _plug(topology.plug)
    rtnl.link_state = _link_state(rtnl.link_state)


def kernel():
    return "%s %s (%s)" % (os.uname().sysname, os.uname().release, os.uname().version)
