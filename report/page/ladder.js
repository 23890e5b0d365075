// Packets between hosts: a vertical line for each host, an arrow for each packet, time downwards.

const MOST_PACKETS = 200,
  PAUSE = 0.1; // seconds between two packets that are shown as a gap
const STEP = 26,
  LEFT = 72,
  MARGIN = 72,
  CHARACTER = 6.05;

// Address -> role, from the captures, and from the evidence "addresses and routes of ROLE", whose lines of interfaces begin
// "NAME: FLAGS mtu".
function rolesOf(test) {
  const roles = new Map((test.captures ?? []).flatMap((each) => (each.addresses ?? []).map((address) => [address, each.host])));
  for (const {title, text} of test.evidence ?? []) {
    const role = title.match(/^addresses and routes of (.+)$/)?.[1];
    for (const line of role ? text.split("\n") : []) {
      if (!/^\S+: \S+ mtu /.test(line) || (line.startsWith("lo: ") && !line.includes("/32"))) continue;
      for (const [, address] of line.matchAll(/ ([0-9a-f.:]+)\/\d+/g)) roles.set(address, roles.get(address) ?? role);
    }
  }
  return roles;
}

function ladderOf(packets, roles) {
  const shown = packets.slice(-MOST_PACKETS),
    lanes = lanesOf(shown, roles);
  const gap = lanes.size <= 2 ? 270 : 190,
    places = new Map([...lanes.keys()].map((name, index) => [name, LEFT + MARGIN + gap * index]));
  const x = (address) => places.get(roles.get(address) ?? address);
  let y = 0,
    before = null,
    width = LEFT + 2 * MARGIN + gap * (lanes.size - 1);
  const rows = shown.map((packet) => {
    const pause = before !== null && packet.time - before >= PAUSE ? packet.time - before : 0;
    y += STEP + (pause ? STEP : 0);
    before = packet.time;
    width = Math.max(width, Math.min(x(packet.source), x(packet.destination)) + 12 + CHARACTER * packet.text.length);
    return [
      pause
        ? drawing(
            "text",
            {class: "pause", x: LEFT, y: y - STEP + 3, "text-anchor": "end"},
            `+${Number(pause.toPrecision(4))} s`,
          )
        : null,
      arrow(packet, x(packet.source), x(packet.destination), y),
    ];
  });
  const frame = (name, height, words, ...children) =>
    drawing("svg", {class: name, width, height, viewBox: `0 0 ${width} ${height}`, ...words}, children);
  const hosts = frame(
    "hosts",
    36,
    {"aria-hidden": "true"},
    [...lanes].map(([name, all]) => hostOf(name, [...all], places.get(name))),
  );
  const lines = [...places.values()].map((at) => drawing("line", {class: "lane", x1: at, x2: at, y1: 0, y2: y + 14}));
  const ladder = frame(
    "ladder",
    y + 14,
    {role: "img", "aria-label": `${plural(shown.length, "packet")} between ${[...lanes.keys()].join(", ")}`},
    lines,
    rows,
  );
  const note =
    packets.length > shown.length
      ? element("p", {class: "hint"}, `Showing the last ${shown.length} of ${packets.length} packets; the pcap file has all of them.`)
      : null;
  return [
    note,
    element("div", {class: "scroll", tabindex: "0", role: "region", "aria-label": "packets"}, hosts, ladder),
  ];
}

// Name -> addresses: in the order of the topology, then strangers, then groups, to which packets only go.
function lanesOf(packets, roles) {
  const lanes = new Map(),
    known = [...new Set(roles.values())];
  for (const address of packets.flatMap((packet) => [packet.source, packet.destination])) {
    const name = roles.get(address) ?? address;
    lanes.set(name, (lanes.get(name) ?? new Set()).add(address));
  }
  const rank = (name) =>
    known.includes(name) ? known.indexOf(name) : known.length + /^(ff|2[23]\d\.|255\.)/.test(name);
  return new Map([...lanes].sort(([one], [other]) => rank(one) - rank(other)));
}

function hostOf(name, all, x) {
  const named = all
    .filter((address) => address !== name)
    .sort((one, other) => one.startsWith("fe80:") - other.startsWith("fe80:"));
  return [
    drawing(
      "text",
      {class: "host", x, y: 14, "text-anchor": "middle"},
      name,
      drawing("title", {}, all.join(" ")),
    ),
    drawing(
      "text",
      {class: "address", x, y: 29, "text-anchor": "middle"},
      named.slice(0, 1),
      named.length > 1 ? ` +${named.length - 1}` : "",
    ),
  ];
}

function arrow(packet, from, to, y) {
  const heading = to < from ? 1 : -1;
  // From a host to itself, or to another address of it.
  const path = from === to ? `M${from} ${y - 6}h14v6h-12` : `M${from} ${y}H${to}`;
  return drawing(
    "g",
    {class: `packet ${packet.kind}`},
    drawing("title", {}, `${packet.source} > ${packet.destination}, ${packet.length} bytes`),
    drawing("text", {class: "time", x: LEFT, y: y + 3, "text-anchor": "end"}, packet.time.toFixed(6)),
    drawing("path", {d: path}),
    drawing("path", {class: "head", d: from === to ? `M${to} ${y}l6 -3v6z` : `M${to} ${y}l${7 * heading} -3.5v7z`}),
    drawing("text", {x: Math.min(from, to) + 6, y: y - 5}, packet.text),
  );
}
