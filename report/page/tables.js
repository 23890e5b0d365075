// Tables: rows by columns, one matrix for each parameter set; a cell that differs between kernels says what each showed.

const FEW_CELLS = 400; // of a report whose tables are open from the start

function showTables(section) {
  const groups = tablesOf().map((table) => groupOfTable(table));
  section.hidden = !groups.length;
  document.querySelector('nav a[href="#tables"]').hidden = section.hidden;
  if (section.hidden) return;
  const shown = element("span", {class: "shown", role: "status"});
  const box = filterBox("filter cells", update),
    differing = checkBox(" only what differs", false, update),
    wrong = checkBox(" only what is not as expected", false, update);
  const few = groups.reduce((sum, {cells}) => sum + cells.length, 0) <= FEW_CELLS;
  for (const group of groups) {
    group.box = later(group.summary, few, () => {
      group.drawn = group.matrices.map((matrix) => drawnMatrix(group, matrix));
      group.drawn.forEach((each) => each.update(wanted));
      return element("div", {}, group.drawn.map(({node}) => node));
    });
  }
  section.append(
    element("div", {class: "tools"}, box.input, differing.label, wrong.label, shown),
    element(
      "p",
      {class: "hint"},
      "A cell has what the newest kernel showed, or, with a bar, what each showed. ",
      element("span", {class: "sign failed", "aria-hidden": "true"}, "\u2717"),
      " is not as expected, italics are measured, \u00b7 means not run. Arrow keys move between cells, Enter opens one.",
    ),
    element("div", {class: "groups"}, groups.map((group) => group.box)),
  );
  update();

  function wanted(cell) {
    const any = !differing.input.checked && !wrong.input.checked;
    return (any || (differing.input.checked && cell.differs) || (wrong.input.checked && cell.wrong)) && box.matches(cell.text);
  }

  function update() {
    let count = 0;
    for (const group of groups) {
      const found = group.cells.filter(wanted).length;
      group.box.hidden = !found;
      group.drawn?.forEach((each) => each.update(wanted));
      count += found;
    }
    shown.textContent = `${count} of ${plural(groups.reduce((sum, {cells}) => sum + cells.length, 0), "cell")}`;
  }
}

function groupOfTable(table) {
  const cells = [];
  for (const {set, rows} of table.matrices)
    for (const row of rows)
      for (const cell of row.cells.values()) {
        const words = [table.name, set, cell.row, cell.column, ...cell.variants.map(({text}) => text)];
        cells.push(Object.assign(cell, {text: plain(words.join(" "))}));
      }
  const count = (name) => cells.filter((cell) => cell[name]).length;
  const tally = [
    plural(cells.length, "cell"),
    count("measured") ? `${count("measured")} measured` : null,
    count("wrong") ? element("span", {class: "count wrong"}, `\u2717 ${count("wrong")} not as expected`) : null,
    count("differs") ? element("span", {class: "count differs"}, `${count("differs")} differ`) : null,
  ];
  const summary = [
    element("strong", {}, table.name),
    element("span", {class: "tally"}, tally.filter(Boolean).map((each) => element("span", {}, each))),
  ];
  return {...table, cells, summary};
}

// {node, update(wanted)}: rows and columns without a wanted cell are hidden, other cells beside a wanted one are faint.
function drawnMatrix(table, {name, set, columns, rows}) {
  const words = new Set(table.matrices.map((each) => each.name)).size > 1 ? [nameOf(name).title, set] : [set];
  const heads = columns.map((column) => element("th", {scope: "col", title: column}, element("span", {}, column)));
  const drawn = rows.map((row) => {
    const cells = columns.map((column) => {
      const cell = row.cells.get(column);
      return {cell, node: cell ? drawnCell(cell) : element("td", {class: "absent", title: "not run"}, "\u00b7")};
    });
    const head = element("th", {scope: "row", title: row.name}, element("span", {}, row.name), signsOfRow(row));
    return {cells, node: element("tr", {class: "test"}, head, cells.map(({node}) => node))};
  });
  const corner = element("th", {scope: "col", class: "corner"}, `${table.rows} \\ ${table.columns}`);
  const grid = element(
    "table",
    {},
    element("thead", {}, element("tr", {}, corner, heads)),
    element("tbody", {}, drawn.map(({node}) => node)),
  );
  const title = words.filter(Boolean).join(", ");
  const node = element(
    "div",
    {class: "matrix"},
    title ? element("h3", {}, title) : null,
    element("div", {class: "wide", role: "region", "aria-label": [table.name, title].filter(Boolean).join(", ")}, grid),
  );
  moveByKeys(grid, "a.cell");
  return {node, update};

  function update(wanted) {
    const used = columns.map(() => false);
    for (const row of drawn) {
      row.node.hidden = true;
      row.cells.forEach(({cell, node: place}, index) => {
        const fits = Boolean(cell) && wanted(cell);
        place.classList.toggle("faint", !fits);
        if (fits) row.node.hidden = !(used[index] = true);
      });
    }
    heads.forEach((head, index) => (head.hidden = !used[index]));
    for (const row of drawn) row.cells.forEach(({node: place}, index) => (place.hidden = !used[index]));
    node.hidden = !used.includes(true);
  }
}

// Of the kernels on which the row did not simply pass.
function signsOfRow(row) {
  return report.kernels.flatMap((kernel) => {
    const test = kernel.byId.get(row.id);
    return !test || test.outcome === "passed" ? [] : [signOf(kernel, test)];
  });
}

function drawnCell(cell) {
  const {row, column, variants, differs, measured} = cell;
  const links = variants.map(({text, kernels, test, expected, wrong}) => {
    const words = `${row}, ${column} on ${namesOf(kernels)}: ${text}; expected ${expectedText(expected)}`;
    return element(
      "a",
      {
        class: wrong ? "cell wrong" : "cell",
        href: addressOf(kernels.at(-1), test.id, column),
        title: words,
        "aria-label": words,
        tabindex: "-1",
      },
      differs ? element("span", {class: "label"}, namesOf(kernels)) : null,
      element("span", {class: "text"}, wrong ? element("span", {class: "sign failed"}, "\u2717") : null, text),
    );
  });
  return element("td", {class: [differs && "differs", measured && "measured"].filter(Boolean).join(" ")}, links);
}
