// What an IP packet carries, in words.

const NAMES = {
  1: "ICMP",
  4: "IPIP",
  6: "TCP",
  17: "UDP",
  41: "IPv6 in IP",
  47: "GRE",
  50: "ESP",
  51: "AH",
  58: "ICMPv6",
  132: "SCTP",
};
const ICMP = {
  "0/0": "echo reply",
  "3/0": "network unreachable",
  "3/1": "host unreachable",
  "3/3": "port unreachable",
  "3/4": "fragmentation needed",
  "3/13": "prohibited",
  "8/0": "echo request",
  "11/0": "time exceeded",
};
const ICMPV6 = {
  "1/0": "no route",
  "1/1": "prohibited",
  "1/3": "address unreachable",
  "1/4": "port unreachable",
  "2/0": "packet too big",
  "3/0": "hop limit exceeded",
  "128/0": "echo request",
  "129/0": "echo reply",
  "133/0": "router solicitation",
  "134/0": "router advertisement",
  "135/0": "neighbour solicitation",
  "136/0": "neighbour advertisement",
  "143/0": "multicast listener report",
};
const EXTENSIONS = [0, 43, 44, 60],
  FRAGMENT = 44;

// What follows the IP header: {protocol, inside, size of it on the wire, fragment, in words}.
function payload(packet) {
  if (packet.getUint8(0) >> 4 === 4) {
    const header = 4 * (packet.getUint8(0) & 15),
      fragment = packet.getUint16(6);
    return {
      protocol: packet.getUint8(9),
      inside: rest(packet, header),
      size: packet.getUint16(2) - header,
      ...fragmentOf(fragment & 0x1fff, fragment & 0x2000),
    };
  }
  let protocol = packet.getUint8(6),
    at = 40,
    fragment = {};
  while (EXTENSIONS.includes(protocol)) {
    if (protocol === FRAGMENT) fragment = fragmentOf(packet.getUint16(at + 2) >> 3, packet.getUint8(at + 3) & 1);
    const size = protocol === FRAGMENT ? 8 : 8 * (packet.getUint8(at + 1) + 1);
    protocol = packet.getUint8(at);
    at += size;
  }
  return {protocol, inside: rest(packet, at), size: packet.getUint16(4) - (at - 40), ...fragment};
}

function fragmentOf(eighths, more) {
  return eighths || more ? {fragment: ` fragment at ${8 * eighths}${more ? "" : ", last"}`, notFirst: eighths > 0} : {};
}

function transport(packet, sides) {
  const {protocol, inside, size, fragment = "", notFirst} = payload(packet),
    name = protocolName(protocol);
  if (notFirst) return {kind: "other", text: `${name}${fragment} len ${size}`};
  switch (protocol) {
    case 6:
      return tcp(packet, inside, size, sides);
    case 17:
      return {kind: "udp", text: `UDP ${ports(inside)} len ${inside.getUint16(4) - 8}${fragment}`};
    case 1:
      return icmp(
        "ICMP",
        ICMP,
        inside,
        [3, 4, 5, 11, 12],
        (type, code) => (type === 3 && code === 4 ? inside.getUint16(6) : null),
        fragment,
      );
    case 58:
      return icmp(
        "ICMPv6",
        ICMPV6,
        inside,
        [1, 2, 3, 4],
        (type) => (type === 2 ? inside.getUint32(4) : null),
        fragment,
      );
    case 50:
      return {
        kind: "esp",
        text: `ESP spi ${hexadecimal(inside.getUint32(0), 8)} seq ${inside.getUint32(4)} len ${size}${fragment}`,
      };
    case 4:
    case 41: {
      const {source, destination} = addresses(inside);
      return {kind: "tunnel", text: `${name} ${source} > ${destination} ${transport(inside, sides).text}${fragment}`};
    }
    default:
      return {kind: "other", text: `${name} len ${size}${fragment}`};
  }
}

function protocolName(number) {
  return NAMES[number] ?? `protocol ${number}`;
}

function ports(view) {
  return `${view.getUint16(0)} > ${view.getUint16(2)}`;
}

function tcp(packet, view, size, sides) {
  const {source, destination} = addresses(packet),
    bits = view.getUint8(13);
  const flags = [..."FSRPAUEC"].filter((_, bit) => (bits >> bit) & 1).join("");
  const [seq, ack, length] = [view.getUint32(4), view.getUint32(8), size - 4 * (view.getUint8(12) >> 4)];
  const here = `${source} ${view.getUint16(0)} ${destination} ${view.getUint16(2)}`,
    there = `${destination} ${view.getUint16(2)} ${source} ${view.getUint16(0)}`;
  if (flags.includes("S") || !sides.has(here)) sides.set(here, {initial: seq, acknowledged: null});
  const side = sides.get(here),
    other = sides.get(there);
  const probe = flags === "A" && !length && side.acknowledged !== null && ((side.acknowledged - seq) | 0) === 1;
  if (flags.includes("A") && other) other.acknowledged = ack;
  const numbers =
    `seq ${(seq - side.initial) | 0}` + (flags.includes("A") ? ` ack ${(ack - (other?.initial ?? 0)) | 0}` : "");
  return {
    kind: flags.includes("R") ? "reset" : "tcp",
    text:
      `TCP ${ports(view)} [${flags}] ${numbers} len ${length} win ${view.getUint16(14)}` +
      (probe ? " keepalive probe" : ""),
  };
}

function icmp(name, words, view, errors, mtuOf, fragment) {
  const type = view.getUint8(0),
    code = view.getUint8(1),
    mtu = mtuOf(type, code);
  const meaning = [name, `${type}/${code}`, words[`${type}/${code}`], mtu === null ? null : `mtu ${mtu}`];
  const text = meaning.filter(Boolean).join(" ") + fragment;
  return errors.includes(type)
    ? {kind: "error", text: `${text}, about ${quoted(rest(view, 8))}`}
    : {kind: "icmp", text};
}

// Of the packet that an error is about there may be no more than eight bytes after its IP header.
function quoted(packet) {
  const {source, destination} = addresses(packet),
    {protocol, inside} = payload(packet);
  return (
    `${protocolName(protocol)} ${source} > ${destination}` + ([6, 17].includes(protocol) ? ` ${ports(inside)}` : "")
  );
}
