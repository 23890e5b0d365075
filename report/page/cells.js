// What the cells of tables showed on each kernel.

// [{name, rows, columns, matrices}]; a matrix is a test function with one parameter set, besides the row:
// {name, set, columns, rows: [{name, id, cells: Map of column -> cell}]}.
function tablesOf() {
  const tables = new Map(report.tables.map((table) => [table.name, {...table, matrices: new Map()}]));
  for (const kernel of report.kernels)
    for (const test of kernel.tests) if (test.cells) addRow(tables.get(test.table).matrices, kernel, test);
  return [...tables.values()].map((table) => ({...table, matrices: [...table.matrices.values()].map(finished)}));
}

function addRow(matrices, kernel, test) {
  const name = functionOf(test.id),
    key = `${name}[${test.set}`;
  if (!matrices.has(key)) matrices.set(key, {name, set: test.set, columns: new Set(), rows: new Map()});
  const {columns, rows} = matrices.get(key);
  if (!rows.has(test.row)) rows.set(test.row, {name: test.row, id: test.id, cells: new Map()});
  const {cells} = rows.get(test.row);
  for (const [column, text, expected] of test.cells) {
    columns.add(column);
    if (!cells.has(column)) cells.set(column, {row: test.row, column, seen: []});
    cells.get(column).seen.push({kernel, test, text, expected});
  }
}

function finished({name, set, columns, rows}) {
  const all = [...rows.values()];
  for (const row of all) for (const cell of row.cells.values()) Object.assign(cell, judged(cell.seen));
  return {name, set, columns: [...columns], rows: all};
}

// {variants: [{text, kernels, test, expected, wrong}], differs, wrong, measured}: kernels that showed the same are a variant.
function judged(seen) {
  const variants = [...Map.groupBy(seen, ({text}) => text)].map(([text, all]) => {
    const {test, expected} = all.at(-1);
    return {
      text,
      kernels: all.map(({kernel}) => kernel),
      test,
      expected,
      wrong: expected.length > 0 && !expected.includes(text),
    };
  });
  return {
    variants,
    differs: variants.length > 1,
    wrong: variants.some((each) => each.wrong),
    measured: variants.every((each) => !each.expected.length),
  };
}

// "5.10 to 6.12, 7.2": three or more kernels that stand side by side are a range.
function namesOf(kernels) {
  const runs = [];
  for (const kernel of kernels) {
    const place = report.kernels.indexOf(kernel),
      run = runs.at(-1);
    if (run && report.kernels.indexOf(run.at(-1)) === place - 1) run.push(kernel);
    else runs.push([kernel]);
  }
  return runs
    .flatMap((run) => (run.length > 2 ? `${run[0].label} to ${run.at(-1).label}` : run.map(({label}) => label)))
    .join(", ");
}

function expectedText(expected) {
  return expected.length ? expected.join(" or ") : "measured";
}

// The chosen cell in words, on all kernels, and all cells of the row on this one.
function cellsOf(kernel, test, chosen) {
  if (!test.cells) return [];
  const rows = test.cells.map((cell) => {
    const [column, text, expected] = cell,
      wrong = expected.length > 0 && !expected.includes(text);
    return element(
      "tr",
      {class: wrong ? "wrong" : false, "aria-current": cell === chosen && "true"},
      element("th", {scope: "row"}, element("a", {href: addressOf(kernel, test.id, column)}, column)),
      element("td", {}, wrong ? element("span", {class: "sign failed", "aria-label": "wrong"}, "\u2717") : null, text),
      element("td", {}, expectedText(expected)),
    );
  });
  const {rows: rowWord, columns: columnWord} = report.tables.find(({name}) => name === test.table);
  const head = [columnWord, "seen", "expected"].map((name) => element("th", {scope: "col"}, name));
  return [
    chosen ? chosenOf(test, chosen, rowWord, columnWord) : null,
    details(
      `Cells of ${test.row} (${test.cells.length})`,
      true,
      element(
        "div",
        {class: "row"},
        element("table", {class: "cells"}, element("thead", {}, element("tr", {}, head)), element("tbody", {}, rows)),
      ),
    ),
  ];
}

function chosenOf(test, [column, text, expected], rowWord, columnWord) {
  const seen = report.kernels.flatMap((kernel) => {
    const other = kernel.byId.get(test.id),
      cell = other?.cells?.find(([name]) => name === column);
    return cell ? [{kernel, test: other, text: cell[1], expected: cell[2]}] : [];
  });
  const {variants, differs} = judged(seen);
  return element(
    "div",
    {class: "chosen"},
    element("p", {}, `${rowWord} ${test.row}, ${columnWord} ${column}: `, element("strong", {}, text)),
    element("p", {class: "hint"}, `expected: ${expectedText(expected)}`),
    differs
      ? element(
          "ul",
          {class: "numbers"},
          variants.map((each) =>
            element("li", {}, `${namesOf(each.kernels)}: `, element("a", {href: addressOf(each.kernels.at(-1), test.id, column)}, each.text)),
          ),
        )
      : null,
  );
}
