// Tests by kernels: a family is a section, a test function a row, a kernel a column, a parameter set a sign.

function showMatrix(section) {
  const families = familiesOf();
  if (!families.size) return section.append(element("p", {class: "none"}, "No test ran."));
  const shown = element("span", {class: "shown", role: "status"});
  const box = filterBox("filter tests", update);
  const toggles = OUTCOMES.map((outcome) => [
    outcome,
    report.kernels.reduce((sum, kernel) => sum + kernel.tests.filter((test) => test.outcome === outcome).length, 0),
  ])
    .filter(([, count]) => count)
    .map(([outcome, count]) => ({outcome, ...checkBox(outcomeMark(outcome, ` ${outcome} ${count}`), true, update)}));
  const matrix = element("div", {id: "matrix", class: report.kernels.length > 8 ? "broad" : ""});
  matrix.style.setProperty("--kernels", report.kernels.length);
  matrix.style.setProperty("--signs", signsAcross([...families.values()].flat()));
  const groups = [...families].map(([family, rows]) => groupOf(family, rows));
  matrix.append(...groups.map((group) => group.box));
  section.append(
    element(
      "div",
      {class: "tools"},
      box.input,
      toggles.map((toggle) => toggle.label),
      shown,
    ),
    element(
      "p",
      {class: "hint"},
      "One sign per parameter set; \u00b7 means not run. Arrow keys move between signs, Enter opens one.",
    ),
    matrix,
  );
  moveByKeys(matrix);
  update();

  function update() {
    const wanted = new Set(toggles.filter((toggle) => toggle.input.checked).map((toggle) => toggle.outcome));
    for (const {outcome} of toggles) matrix.classList.toggle(`without-${outcome}`, !wanted.has(outcome));
    let count = 0;
    for (const group of groups) {
      let visibleRows = 0;
      for (const row of group.rows) {
        row.node.hidden = !(box.matches(row.text) && row.outcomes.some((outcome) => wanted.has(outcome)));
        visibleRows += !row.node.hidden;
      }
      group.box.hidden = !visibleRows;
      group.files.forEach((file) => {
        file.hidden = file.rows.every((row) => row.hidden);
      });
      count += visibleRows;
    }
    shown.textContent = `${count} of ${plural(
      groups.reduce((sum, group) => sum + group.rows.length, 0),
      "test",
    )}`;
  }
}

// How many signs a column has room for: those of the longest row, or the longest label; more go on in the next line.
function signsAcross(rows) {
  const labels = report.kernels.map((kernel) => Math.ceil(kernel.label.length / 2));
  return Math.min(12, Math.max(4, ...labels, ...rows.map((row) => row.ids.length)));
}

// Family -> [{id of the function, ids of its parameter sets}], in the order in which they ran.
function familiesOf() {
  const families = new Map(),
    rows = new Map();
  for (const kernel of report.kernels) {
    for (const {id} of kernel.tests) {
      const key = functionOf(id);
      if (!rows.has(key)) {
        const name = nameOf(id);
        rows.set(key, {key, name, ids: []});
        families.set(name.family, [...(families.get(name.family) ?? []), rows.get(key)]);
      }
      if (!rows.get(key).ids.includes(id)) rows.get(key).ids.push(id);
    }
  }
  for (const each of families.values())
    each.sort((a, b) => (a.name.file < b.name.file ? -1 : a.name.file > b.name.file ? 1 : 0));
  return families;
}

function groupOf(family, entries) {
  const body = element("tbody"),
    files = [];
  const rows = entries.map((entry) => {
    if (files.at(-1)?.name !== entry.name.file) {
      const file = element(
        "tr",
        {class: "file"},
        element("th", {colspan: report.kernels.length + 1, scope: "rowgroup"}, entry.name.file.replaceAll("_", " ")),
      );
      files.push(Object.assign(file, {name: entry.name.file, rows: []}));
      body.append(file);
    }
    const row = rowOf(entry);
    files.at(-1).rows.push(row.node);
    body.append(row.node);
    return row;
  });
  const head = element(
    "thead",
    {},
    element(
      "tr",
      {},
      element("th", {scope: "col", class: "name"}, "test"),
      report.kernels.map((kernel) =>
        element("th", {scope: "col", title: kernel.label}, element("span", {}, kernel.label)),
      ),
    ),
  );
  const tally = OUTCOMES.map((outcome) => [
    outcome,
    rows.reduce((sum, row) => sum + row.outcomes.filter((each) => each === outcome).length, 0),
  ]).filter(([, count]) => count);
  const summary = [
    element("strong", {}, family),
    element(
      "span",
      {class: "tally"},
      tally.map(([outcome, count]) => outcomeMark(outcome, ` ${count}`)),
    ),
  ];
  const box = details(summary, true, element("table", {}, head, body));
  box.style.setProperty("--rows", rows.length + files.length);
  return {box, rows, files};
}

function rowOf({key, name, ids}) {
  const outcomes = [];
  const cells = report.kernels.map((kernel) =>
    element(
      "td",
      {},
      ids.map((id) => {
        const test = kernel.byId.get(id);
        if (!test)
          return element(
            "span",
            {class: "sign absent", title: `${parametersOf(id)} not run on ${kernel.label}`},
            "\u00b7",
          );
        outcomes.push(test.outcome);
        const sign = signOf(kernel, test);
        sign.tabIndex = -1;
        return sign;
      }),
    ),
  );
  const node = element("tr", {class: "test"}, element("th", {scope: "row", title: key}, name.title), cells);
  return {node, outcomes, text: plain(`${key} ${name.title} ${ids.map(parametersOf).join(" ")}`)};
}
