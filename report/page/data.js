const report = JSON.parse(document.getElementById("data").textContent);
const BAD = ["crashed", "failed", "lost"];
const OUTCOMES = Object.keys(report.signs);

for (const kernel of report.kernels) kernel.byId = new Map(kernel.tests.map((test) => [test.id, test]));

function functionOf(id) {
  return id.split("[", 1)[0];
}

function parametersOf(id) {
  return id.includes("[") ? id.slice(id.indexOf("[")) : "";
}

// "tests/pmtu/test_esp.py::Class::test_a_b" in words: {family: "pmtu", file: "esp", title: "a b"}.
function nameOf(id) {
  const [path, ...names] = functionOf(id).split("::");
  const folders = path.replace(/^tests\//, "").split("/");
  const file = folders.pop().replace(/^test_|\.py$/g, "");
  return {
    family: folders.join("/") || "other",
    file,
    title: (names.pop() ?? path).replace(/^test_/, "").replaceAll("_", " "),
  };
}

// Where a test on a kernel is on this page, or a cell of its row. A kernel's label may be a path.
function addressOf(kernel, id, column) {
  const address = `#${escaped(kernel.label)}/${escaped(id).replaceAll("%2F", "/").replaceAll("%3A", ":")}`;
  return column === undefined ? address : `${address}?${escaped(column)}`;
}

function escaped(text) {
  return encodeURIComponent(text.toWellFormed());
}

// {kernel, test, cell}, or null; the cell is undefined for a test as a whole.
function findAddress(hash) {
  const [address, column] = hash.split("?");
  for (const kernel of report.kernels) {
    for (const test of kernel.tests)
      if (addressOf(kernel, test.id) === address)
        return {kernel, test, cell: test.cells?.find(([name]) => escaped(name) === column)};
  }
  return null;
}

function signOf(kernel, test, current = false, column = undefined) {
  const name = nameOf(test.id),
    parameters = parametersOf(test.id);
  const words = `${name.title} ${parameters} on ${kernel.label}: ${test.outcome}`;
  return element(
    "a",
    {
      class: `sign ${test.outcome}`,
      href: addressOf(kernel, test.id, column),
      title: words,
      "aria-label": words,
      "aria-current": current && "true",
    },
    report.signs[test.outcome],
  );
}

function linkTo(label, id, column) {
  const kernel = report.kernels.find((each) => each.label === label),
    test = kernel?.byId.get(id);
  const name = nameOf(id),
    words = [`${name.family} / ${name.file} `, element("strong", {}, name.title), ` ${parametersOf(id)}`];
  return test
    ? element("a", {class: "test", href: addressOf(kernel, id, column)}, words)
    : element("span", {class: "test"}, words);
}

function countsOf(kernel) {
  return OUTCOMES.map((outcome) => [outcome, kernel.tests.filter((test) => test.outcome === outcome).length]).filter(
    ([, count]) => count,
  );
}

function outcomeMark(outcome, ...words) {
  return element(
    "span",
    {class: "count"},
    element("span", {class: `sign ${outcome}`, "aria-hidden": "true"}, report.signs[outcome]),
    ...words,
  );
}
