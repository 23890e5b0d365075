// A pcap file with Ethernet frames and nanoseconds, as the suite writes it. Source: draft-ietf-opsawg-pcap.

const PCAP_NANOSECONDS = 0xa1b23c4d,
  ETHERNET = 1;
const IPV4 = 0x0800,
  IPV6 = 0x86dd,
  ARP = 0x0806;

// The packets, oldest first: {time, at, source, destination, kind, text}; time is in seconds since the first, `at` since the
// epoch. Throws Error.
function readCapture(bytes) {
  const file = new DataView(bytes.buffer);
  if (bytes.length < 24 || file.getUint32(0, true) !== PCAP_NANOSECONDS || file.getUint32(20, true) !== ETHERNET)
    throw new Error("not an Ethernet pcap with nanosecond timestamps");
  const packets = [],
    sides = new Map(),
    first = [];
  for (let at = 24; at + 16 <= bytes.length;) {
    const [whole, parts, kept, length] = [0, 4, 8, 12].map((field) => file.getUint32(at + field, true));
    if (at + 16 + kept > bytes.length) break;
    first.push(whole, parts);
    const time = whole - first[0] + (parts - first[1]) / 1e9;
    packets.push({time, at: whole + parts / 1e9, length, ...frameOf(new DataView(bytes.buffer, at + 16, kept), sides)});
    at += 16 + kept;
  }
  return packets;
}

function rest(view, from) {
  return new DataView(view.buffer, view.byteOffset + from, view.byteLength - from);
}

function frameOf(frame, sides) {
  const found = {source: "?", destination: "?", kind: "other", text: "truncated"};
  try {
    const type = frame.getUint16(12),
      inside = rest(frame, 14);
    if (type === IPV4 || type === IPV6) Object.assign(found, addresses(inside), transport(inside, sides));
    else if (type === ARP)
      Object.assign(found, {
        source: ipv4(inside, 14),
        destination: ipv4(inside, 24),
        text: inside.getUint16(6) === 1 ? "ARP request" : "ARP reply",
      });
    else found.text = `Ethernet type ${hexadecimal(type, 4)}`;
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
  }
  return found;
}

function hexadecimal(number, digits) {
  return `0x${number.toString(16).padStart(digits, "0")}`;
}

function addresses(packet) {
  return packet.getUint8(0) >> 4 === 4
    ? {source: ipv4(packet, 12), destination: ipv4(packet, 16)}
    : {source: ipv6(packet, 8), destination: ipv6(packet, 24)};
}

function ipv4(view, at) {
  return [0, 1, 2, 3].map((byte) => view.getUint8(at + byte)).join(".");
}

// The longest run of zero groups is shortened. Source: RFC 5952, 4.2.
function ipv6(view, at) {
  const text = [0, 2, 4, 6, 8, 10, 12, 14].map((byte) => view.getUint16(at + byte).toString(16)).join(":");
  const runs = [...text.matchAll(/\b0(?::0\b)+/g)].sort((a, b) => b[0].length - a[0].length);
  return runs.length
    ? text.slice(0, runs[0].index).replace(/:$/, "") +
        "::" +
        text.slice(runs[0].index + runs[0][0].length).replace(/^:/, "")
    : text;
}
