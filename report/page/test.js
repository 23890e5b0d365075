// One test on one kernel, in the dialog.

function showTest(dialog, {kernel, test, cell}) {
  const name = nameOf(test.id),
    parameters = parametersOf(test.id),
    evidence = test.evidence ?? [];
  const close = element("button", {type: "button", class: "close", "aria-label": "close"}, "\u00d7");
  close.addEventListener("click", () => dialog.close());
  const dropped = evidence.filter(({title}) => /^dropped packets/i.test(title));
  const traceback =
    test.traceback &&
    details("Traceback", !test.captures, element("pre", {}, test.traceback.split("\n").map(tracebackLine)));
  dialog.replaceChildren(
    element("div", {class: "bar"}, outcomeMark(test.outcome, ` ${test.outcome} on ${kernel.label}`), close),
    element(
      "h2",
      {id: "test-heading", tabindex: "-1"},
      name.title,
      parameters ? element("span", {class: "parameters"}, ` ${parameters}`) : null,
    ),
    element("p", {class: "id"}, test.id),
    ...content(report.promises[functionOf(test.id)], (text) => element("p", {class: "promise"}, text)),
    ...content(test.message, (text) => element("pre", {class: `message ${test.outcome}`}, text)),
    ...content(test.issue, (text) => element("p", {}, element("strong", {}, "Known issue: "), text)),
    ...content(test.listed, (text) =>
      element("p", {}, element("strong", {}, "Signature differs from known issue: "), text.join("; ")),
    ),
    ...content(test.signatures, (all) =>
      element("p", {class: "hint"}, element("strong", {}, "Signature: "), element("code", {}, all.join(" | "))),
    ),
    ...content(test.candidates, (fixes) =>
      element(
        "div",
        {},
        element("strong", {}, "The kernel may lack these fixes:"),
        element(
          "ul",
          {},
          fixes.map((fix) => element("li", {}, fix)),
        ),
      ),
    ),
    element("p", {class: "hint"}, factsOf(kernel, test)),
    ...content(test.measurements, (all) =>
      element(
        "ul",
        {class: "numbers"},
        all.map((one) => element("li", {}, `${one.name} = ${figure(one.value)} ${one.unit}`)),
      ),
    ),
    othersOf(kernel, test, cell),
    ...cellsOf(kernel, test, cell).filter(Boolean),
    ...dropped.map(({title, text}) => details(title, true, element("pre", {}, text))),
    ...(test.captures ?? []).map((capture, index) => captureOf(kernel, test, capture, index === 0, cell)),
    ...content(traceback, (box) => box),
    ...evidence
      .filter((each) => !dropped.includes(each))
      .map(({title, text}) => details(title, false, element("pre", {}, text))),
    details("Run it again", false, element("pre", {}, commandOf(kernel, test))),
  );
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
  dialog.querySelector("h2").focus();
}

function content(value, show) {
  return value && value.length !== 0 ? [show(value)] : [];
}

function tracebackLine(line) {
  return element("span", {class: line.startsWith("E ") ? "error" : line.startsWith(">") ? "here" : false}, `${line}\n`);
}

function factsOf(kernel, test) {
  const times = [`${seconds(test.virtual_s ?? 0)} on the kernel's clock`, `${seconds(test.wall_s ?? 0)} on the host's`];
  const earlier = test.attempts ? [`run again because the machine ended early: ${test.attempts.join(", ")}`] : [];
  return [kernel.release || kernel.spec, ...times, ...earlier].join(", ");
}

// The same function with its other parameter sets, and on the other kernels; of a table the same row alone.
function othersOf(kernel, test, cell) {
  const same = ({id}) => (test.cells ? id === test.id : functionOf(id) === functionOf(test.id));
  const rows = report.kernels
    .map((each) => [each, each.tests.filter(same)])
    .filter(([, tests]) => tests.length);
  return element(
    "div",
    {class: "others"},
    rows.map(([each, tests]) =>
      element(
        "span",
        {},
        element("span", {class: "label"}, each.label),
        tests.map((other) => signOf(each, other, other === test, cell?.[0])),
      ),
    ),
  );
}

function commandOf(kernel, test) {
  const quote = (word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`);
  return [
    "./kdrift pytest",
    ...(kernel.spec === "running" ? [] : ["--kernel", quote(kernel.spec)]),
    quote(test.id),
  ].join(" ");
}
