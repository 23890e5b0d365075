const STATE_SIGNS = {good: "\u2713", bad: "\u2717", unsure: "?"};
const FEW = 12; // entries of a list that is open from the start, where there are few lists

function showVerdict(section) {
  section.append(...(report.comparisons.length ? report.comparisons.map(comparisonOf) : report.kernels.map(summaryOf)));
}

function headline(state, text) {
  const [who, what] = splitOnce(text, ": ");
  return element(
    "h2",
    {class: `headline ${state}`},
    element("span", {class: "state", "aria-hidden": "true"}, STATE_SIGNS[state]),
    element(
      "span",
      {},
      `${who}: `,
      element("strong", {}, splitOnce(what, ", ")[0]),
      what.includes(", ") ? `, ${splitOnce(what, ", ")[1]}` : "",
    ),
  );
}

function splitOnce(text, by) {
  const at = text.indexOf(by);
  return at < 0 ? [text, ""] : [text.slice(0, at), text.slice(at + by.length)];
}

function comparisonOf(comparison) {
  const {old, regressions, fixes, drift, known, gone, fresh, incomplete, lacking, unjudged} = comparison;
  const change = (label) => (each) =>
    element(
      "li",
      {},
      linkTo(label, each.id),
      element("span", {class: "change"}, fromTo(each)),
      each.why ? element("p", {class: "why"}, each.why) : null,
      (each.candidates ?? []).map((fix) => element("p", {class: "why"}, `may lack: ${fix}`)),
    );
  const open = (entries) => entries.length <= FEW && report.comparisons.length <= 2;
  return element(
    "article",
    {},
    headline(comparison.state, comparison.head),
    list("Regressions", regressions, change(comparison.new), true),
    list("Incomplete", incomplete, (line) => element("li", {class: "line"}, line), true),
    list("Gone: the new kernel lacks a feature", gone, change(comparison.new), true),
    list("Fixed", fixes, change(old), open(fixes)),
    list("Drifted", drift, (line) => element("li", {class: "line"}, line), open(drift)),
    changesOf(comparison),
    list("Known issues on both", known, change(comparison.new), open(known)),
    list("New: the old kernel lacks a feature", fresh, change(comparison.new), open(fresh)),
    list("Skipped on both: both kernels lack a feature", lacking, (group) => unjudgedOf(comparison, group), false),
    list("Not judged", unjudged, (group) => unjudgedOf(comparison, group), open(unjudged)),
  );
}

// Each kind of change once: behaviour, largest meaning first, then vocabulary; all its tests behind a click.
function changesOf(comparison) {
  const {changes, changed} = comparison;
  if (!changes.length) return null;
  const tests = report.kernels.find((each) => each.label === comparison.new).tests;
  const kind = (each) =>
    element(
      "li",
      {},
      later(element("span", {class: "kind"}, each.text), false, () =>
        element(
          "div",
          {},
          element("p", {class: "why"}, `example: ${each.example}`),
          element("p", {class: "why"}, `on ${each.kernels.join(", ")}`),
          each.follows.length ? element("p", {class: "why"}, `follows from it: ${each.follows.join("; ")}`) : null,
          element(
            "ul",
            {class: "entries"},
            each.tests.map((place) => element("li", {}, linkTo(comparison.new, tests[place].id, each.column ?? undefined))),
          ),
        ),
      ),
      element("p", {class: "why"}, each.why || "unexplained"),
    );
  const of = (title, vocabulary) => {
    const entries = changes.filter((each) => each.vocabulary === vocabulary);
    const open = !vocabulary && entries.length <= FEW && report.comparisons.length <= 2;
    return entries.length
      ? later(`${title} (${entries.length})`, open, () => element("ul", {class: "entries"}, entries.map(kind)))
      : null;
  };
  return details(`Changes: ${changed}`, true, of("Behaviour", false), of("Vocabulary", true));
}

function fromTo(each) {
  return [outcomeMark(each.was, ` ${each.was}`), " \u2192 ", outcomeMark(each.now, ` ${each.now}`)];
}

function list(title, entries, show, open) {
  return entries.length
    ? details(`${title} (${entries.length})`, open, element("ul", {class: "entries"}, entries.map(show)))
    : null;
}

// All tests that are not judged for one reason; a test that did not run on the new kernel is on the old one.
function unjudgedOf(comparison, {why, tests}) {
  const links = tests.map((id) => element("li", {}, linkTo(ranOn(comparison, id), id)));
  return element("li", {}, details(`${why} (${tests.length})`, false, element("ul", {class: "entries"}, links)));
}

function ranOn({old, new: newer}, id) {
  const ran = report.kernels.find(({label}) => label === newer)?.tests.some((test) => test.id === id);
  return ran ? newer : old;
}

// Without a comparison: how it went on one kernel.
function summaryOf(kernel) {
  const bad = kernel.tests.filter((test) => BAD.includes(test.outcome));
  const ran = kernel.tests.some((test) => test.outcome !== "skipped");
  const state = bad.length ? "bad" : kernel.error || !ran ? "unsure" : "good";
  const counts = countsOf(kernel)
    .sort(([one], [other]) => BAD.includes(other) - BAD.includes(one))
    .map(([outcome, count]) => `${count} ${outcome}`)
    .join(", ");
  return element(
    "article",
    {},
    headline(state, `${kernel.label}: ${counts || "no test ran"}`),
    kernel.error ? element("pre", {}, kernel.error) : null,
    list(
      "Failed, crashed or lost",
      bad,
      (test) =>
        element(
          "li",
          {},
          linkTo(kernel.label, test.id),
          element("span", {class: "change"}, outcomeMark(test.outcome, ` ${test.outcome}`)),
          element("p", {class: "why"}, splitOnce(test.message ?? "", "\n")[0]),
          (test.candidates ?? []).map((fix) => element("p", {class: "why"}, `may lack: ${fix}`)),
        ),
      bad.length <= FEW,
    ),
  );
}
