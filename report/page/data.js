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

// Where a test on a kernel is on this page. A kernel's label may be a path.
function addressOf(kernel, id) {
  const quote = (text) => encodeURIComponent(text.toWellFormed());
  return `#${quote(kernel.label)}/${quote(id).replaceAll("%2F", "/").replaceAll("%3A", ":")}`;
}

function findAddress(hash) {
  for (const kernel of report.kernels) {
    for (const test of kernel.tests) if (addressOf(kernel, test.id) === hash) return {kernel, test};
  }
  return null;
}

function signOf(kernel, test, current = false) {
  const name = nameOf(test.id),
    parameters = parametersOf(test.id);
  const words = `${name.title} ${parameters} on ${kernel.label}: ${test.outcome}`;
  return element(
    "a",
    {
      class: `sign ${test.outcome}`,
      href: addressOf(kernel, test.id),
      title: words,
      "aria-label": words,
      "aria-current": current && "true",
    },
    report.signs[test.outcome],
  );
}

function linkTo(label, id) {
  const kernel = report.kernels.find((each) => each.label === label),
    test = kernel?.byId.get(id);
  const name = nameOf(id),
    words = [`${name.family} / ${name.file} `, element("strong", {}, name.title), ` ${parametersOf(id)}`];
  return test
    ? element("a", {class: "test", href: addressOf(kernel, id)}, words)
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
