// The packets of a host in the dialog: all of a test, or those of one cell of a table.

const ROUNDING = 1e-6; // of the time at which a cell began, in seconds

function captureOf(kernel, test, capture, open, cell) {
  const words = [kernel.label, nameOf(test.id).title, parametersOf(test.id), capture.host];
  const file = `${words.join(" ").replace(/[^\w.]+/g, "-")}.pcap`;
  return later(`Packets of ${capture.host}`, open, () => {
    const box = element("div");
    const draw = (bytes) => box.replaceChildren(...packetsOf(test, capture, cell, bytes, saveLink(bytes, file)));
    const refuse = (error) => {
      const save = capture.encoding ? null : linkToSave(capture.base64, file);
      box.replaceChildren(element("p", {}, `Cannot draw this capture: ${error.message}. `, save));
    };
    try {
      const bytes = Uint8Array.from(atob(capture.base64), (char) => char.charCodeAt(0));
      if (capture.encoding) inflated(bytes).then(draw).catch(refuse);
      else draw(bytes);
    } catch (error) {
      refuse(error);
    }
    return box;
  });
}

// RFC 1950, which the browser calls deflate.
async function inflated(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function linkToSave(base64, file) {
  return element(
    "a",
    {href: `data:application/vnd.tcpdump.pcap;base64,${base64}`, download: file},
    "download the pcap file",
  );
}

function saveLink(bytes, file) {
  return linkToSave(btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join("")), file);
}

// Of a cell its own packets, with the time since it began; a switch shows all of the row.
function packetsOf(test, {cut}, cell, bytes, save) {
  const packets = readCapture(bytes),
    roles = rolesOf(test);
  const note = (text) =>
    element(
      "p",
      {class: "hint"},
      text,
      cut ? `; ${cut} earlier ones were left out` : "",
      ". A forwarding host captures each packet twice. ",
      save,
    );
  const ladder = (some) => (some.length ? ladderOf(some, roles) : []);
  if (!cell) return [note(plural(packets.length, "packet")), ...ladder(packets)];
  const [began, end] = spanOf(test, cell);
  const own = packets
    .filter(({at}) => at >= began - ROUNDING && at < end - ROUNDING)
    .map((packet) => ({...packet, time: packet.at - began}));
  const shown = element("div"),
    all = checkBox(" all packets of the row", false, update);
  update();
  return [note(`${own.length} of ${plural(packets.length, "packet")}`), all.label, shown];

  function update() {
    shown.replaceChildren(...ladder(all.input.checked ? packets : own).filter(Boolean));
  }
}

// A cell ends where the next one begins.
function spanOf(test, cell) {
  const next = test.cells[test.cells.indexOf(cell) + 1];
  return [cell[3], next ? next[3] : Infinity];
}
