"""ESP with every algorithm, in transport and tunnel mode: lengths on the wire, round trip, the sender's error, altered packets."""

import itertools
import select
import socket
from dataclasses import dataclass

import pytest

from fixtures.table import Table
from fixtures.topologies import LAN
from fixtures.tunnels import IP_HEADER, LINK_MTU, UDP, V4, V6
from netns.attempt import errno_of
from netns.netlink import xfrm
from netns.netlink.xfrm import SA, Algorithm, Policy, Selector, Template
from netns.observe import procnet
from netns.wait import eventually

pytestmark = pytest.mark.topology(LAN)

DISCOVER = {V4: (socket.IPPROTO_IP, 10), V6: (socket.IPPROTO_IPV6, 23)}     # IP_MTU_DISCOVER, IPV6_MTU_DISCOVER
DONT, DO = 0, 2
ESP_HEADER, ESP_TRAILER = 8, 2                  # RFC 4303, 2: SPI and sequence number; pad length and next header
FIRST_PORT, FIRST_SPI, BACK = 5000, 0x1000, 0x10000


@dataclass(frozen=True)
class Cipher:
    """`keys` are the lengths of its keys in bytes, with the salt; `block` is what the encrypted part is padded to, at least 4 (RFC 4303,
    2.4), `iv` the length of the initialization vector. An AEAD has `icvs` in bits."""

    name: str
    source: str
    keys: tuple[int, ...]
    block: int
    iv: int
    icvs: tuple[int, ...] = ()


CIPHERS = {cipher.name: cipher for cipher in (
    Cipher("rfc4106(gcm(aes))", "RFC 4106", (20, 28, 36), 4, 8, (64, 96, 128)),
    Cipher("rfc4309(ccm(aes))", "RFC 4309", (19, 27, 35), 4, 8, (64, 96, 128)),
    Cipher("rfc4543(gcm(aes))", "RFC 4543", (20, 28, 36), 4, 8, (128,)),
    Cipher("rfc7539esp(chacha20,poly1305)", "RFC 7634", (36,), 4, 8, (128,)),
    Cipher("ecb(cipher_null)", "RFC 2410", (0,), 4, 0),
    Cipher("cbc(des)", "RFC 2405", (8,), 8, 8),
    Cipher("cbc(des3_ede)", "RFC 2451", (24,), 8, 8),
    Cipher("cbc(cast5)", "RFC 2451", (16, 5), 8, 8),
    Cipher("cbc(blowfish)", "RFC 2451", (16, 5, 56), 8, 8),
    Cipher("cbc(aes)", "RFC 3602", (16, 24, 32), 16, 16),
    Cipher("cbc(serpent)", "draft-ietf-ipsec-ciph-aes-cbc", (16, 24, 32), 16, 16),
    Cipher("cbc(camellia)", "RFC 4312", (16, 24, 32), 16, 16),
    Cipher("cbc(twofish)", "draft-ietf-ipsec-ciph-aes-cbc", (16, 24, 32), 16, 16),
    Cipher("rfc3686(ctr(aes))", "RFC 3686", (20, 28, 36), 4, 8),
)}
# Name, length of the key in bytes and of the ICV in bits: RFC 2403, 2404, 2857, 3566, 4494, 4868.
HASHES = (("digest_null", 0, 0), ("hmac(md5)", 16, 96), ("hmac(sha1)", 20, 96), ("hmac(rmd160)", 20, 96), ("xcbc(aes)", 16, 96),
          ("cmac(aes)", 16, 96), ("hmac(sha256)", 32, 128), ("hmac(sha384)", 48, 192), ("hmac(sha512)", 64, 256))


# A kernel may lack a cipher or a hash: each pair has a row of its own.
ROWS = {f"{name} {hashed[0]}".strip(): (cipher, hashed) for name, cipher in CIPHERS.items()
        for hashed in ([("",)] if cipher.icvs else HASHES)}


@dataclass(frozen=True)
class Protection:
    """One SA's algorithms and mode."""

    cipher: Cipher
    mode: str
    algorithms: tuple[Algorithm, ...]

    @property
    def icv(self) -> int:
        return self.algorithms[-1].icv // 8

    def length(self, family: socket.AddressFamily, size: int) -> int:
        """The packet of a datagram with so much data: RFC 4303, 2.4 and 3.1."""
        inside = UDP + size + (IP_HEADER[family] if self.mode == "tunnel" else 0) + ESP_TRAILER
        padded = -(-inside // self.cipher.block) * self.cipher.block
        return IP_HEADER[family] + ESP_HEADER + self.cipher.iv + padded + self.icv

    def largest(self, family: socket.AddressFamily) -> int:
        """The most data whose packet fits into the link's MTU."""
        return max(size for size in range(LINK_MTU) if self.length(family, size) <= LINK_MTU)

    def expected(self, family: socket.AddressFamily) -> str:
        largest = self.largest(family)
        lengths = [self.length(family, size) for size in (*range(self.cipher.block + 1), largest)]
        return told(lengths, largest, "EMSGSIZE", "2 packets", "delivered" if not self.icv else "dropped, XfrmInStateProtoError +1")


def told(lengths: list[int], largest: int, error: str, fragments: str, altered: str) -> str:
    runs = [(length, len(list(run))) for length, run in itertools.groupby(lengths)]
    return f"{', '.join(f'{count} of {length}' for length, count in runs)}; above {largest}: {error}, {fragments}; altered: {altered}"


def keyed(kind: str, name: str, length: int, icv: int = 0) -> Algorithm:
    # Odd bytes that differ: the keys of DES have odd parity and are not weak.
    return Algorithm(kind, name, bytes((2 * number + 1) % 256 for number in range(length)), icv)


def protections(row: str) -> dict[str, Protection]:
    """By column. A cipher goes with each hash, and each of its keys with one of them."""
    cipher, (name, *lengths) = ROWS[row]
    sets = {}
    for key in cipher.keys:
        for icv in cipher.icvs:
            sets[f"key of {key} bytes, ICV {icv}"] = (keyed("aead", cipher.name, key, icv),)
        if name and (key == cipher.keys[0] or name == "hmac(sha256)"):
            sets[f"key of {key} bytes"] = (keyed("encryption", cipher.name, key), keyed("authentication", name, *lengths))
    return {f"{each}, {mode}": Protection(cipher, mode, algorithms) for each, algorithms in sets.items()
            for mode in ("transport", "tunnel")}


def table_of(family: socket.AddressFamily) -> Table:
    version = 4 if family == V4 else 6
    return Table(f"tunnels.esp{version}", "cipher and hash", "key, length of the ICV, mode", "RFC 4303 and the RFC of the algorithm", {
        row: {column: each.expected(family) for column, each in protections(row).items()} for row in ROWS
    })


ESP4, ESP6 = table_of(V4), table_of(V6)


def protect(client, server, family, columns) -> dict[str, int]:
    """Each protection has its own port, policies and SAs: the ports by column."""
    here, there = client.address(family), server.address(family)
    ports = {column: FIRST_PORT + number for number, column in enumerate(columns)}
    items = {client: [], server: []}
    for number, (column, protection) in enumerate(columns.items()):
        port, reqid = ports[column], number + 1
        ways = ((client, server, here, there, {"dport": port}, FIRST_SPI + number),
                (server, client, there, here, {"sport": port}, FIRST_SPI + BACK + number))
        for sender, receiver, source, destination, selected, spi in ways:
            association = SA(source, destination, spi, reqid, protection.mode, algorithms=protection.algorithms)
            for host, direction in ((sender, "out"), (receiver, "in")):
                selector = Selector(source, destination, socket.IPPROTO_UDP, **selected)
                items[host] += [association, Policy(selector, Template(source, destination, reqid, protection.mode), direction)]
    for host, wanted in items.items():
        xfrm.add(host, *wanted)
    return ports


class Lost(Exception):
    """A datagram that did not arrive, or not as it was sent."""


class Exchange:
    """Datagrams of one protection, there and back, and their packets as the server saw them."""

    def __init__(self, client, server, family, port):
        self.client, self.server, self.family = client, server, family
        self.near, self.far = (host.socket(family, socket.SOCK_DGRAM) for host in (client, server))
        self.far.bind((server.address(family), port))
        self.near.connect((server.address(family), port))

    def discover(self, mode: int) -> None:
        for each in (self.near, self.far):
            each.setsockopt(*DISCOVER[self.family], mode)

    def trip(self, size: int) -> None:
        data = bytes(itertools.islice(itertools.cycle(range(251)), size))
        self.near.send(data)
        for receiver in (self.far, self.near):
            if not select.select([receiver], [], [], 5)[0]:
                raise Lost(f"a datagram of {size} bytes is lost")
            arrived, sender = receiver.recvfrom(1 << 16)
            if arrived != data:
                raise Lost(f"a datagram of {size} bytes is damaged")
            if receiver is self.far:
                self.far.sendto(arrived, sender)

    def lengths(self, *sizes: int) -> list[int]:
        """Of the packets there, which must be those of the packets back."""
        with self.server.capture("esp") as packets:
            for size in sizes:
                self.trip(size)
        there, back = ([packet.frame.length - 14 for packet in each] for each in (packets.received(), packets.sent()))
        assert there == back
        return there

    def altered(self) -> str:
        """What becomes of a packet whose sequence number was changed on the way: it is part of what the ICV covers (RFC 4303, 2.8)."""
        with self.server.capture("esp") as packets:
            self.trip(1)
        data = packets.received().only().frame.data[14 + IP_HEADER[self.family]:]
        sequence = int.from_bytes(data[4:8], "big") + 1000
        before = statistics(self.server)
        with self.client.socket(self.family, socket.SOCK_RAW, socket.IPPROTO_ESP) as raw:
            raw.sendto(data[:4] + sequence.to_bytes(4, "big") + data[8:], (self.server.address(self.family), 0))

        def counted() -> list[str]:
            return [f"{name} +{value - before[name]}" for name, value in statistics(self.server).items() if value != before[name]]

        def arrived() -> bool:
            return bool(select.select([self.far], [], [], 0)[0])

        # Some ciphers work in another thread.
        eventually("end of the altered packet", lambda: arrived() or counted(), within=5, every=0.001)
        return ", ".join(["delivered" if arrived() else "dropped", *counted()])


def statistics(host) -> dict[str, int]:
    with host.entered():
        words = procnet.read("xfrm_stat").decode().split()
    return dict(zip(words[::2], map(int, words[1::2])))


def show(exchange: Exchange, protection: Protection) -> str:
    largest = protection.largest(exchange.family)
    exchange.discover(DO)
    lengths = exchange.lengths(*range(protection.cipher.block + 1), largest)
    error = errno_of(exchange.near.send, bytes(largest + 1))
    exchange.discover(DONT)
    fragments = len(exchange.lengths(largest + 1))
    return told(lengths, largest, error, f"{fragments} packets", exchange.altered())


def each_protection_works(net, family, row, table):
    client, server = net.nodes("client", "server")
    columns = protections(row)
    ports = protect(client, server, family, columns)
    for column in table:
        try:
            table.saw(show(Exchange(client, server, family, ports[column]), columns[column]))
        except Lost as lost:
            table.saw(str(lost))


@pytest.mark.table(ESP4)
@pytest.mark.parametrize("row", ESP4.rows)
def test_esp_over_ipv4_is_as_long_as_its_algorithms_say_and_arrives_unless_altered(net, row, table):
    """Every padding and the largest packet arrive both ways; what does not fit the link is refused with DF (EMSGSIZE, ip(7)), else goes in
    two packets; a changed sequence number makes the ICV wrong."""
    each_protection_works(net, V4, row, table)


@pytest.mark.table(ESP6)
@pytest.mark.parametrize("row", ESP6.rows)
def test_esp_over_ipv6_is_as_long_as_its_algorithms_say_and_arrives_unless_altered(net, row, table):
    """As over IPv4."""
    each_protection_works(net, V6, row, table)
