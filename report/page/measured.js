// Each measurement over the kernels, with a band around the first figure: within it a difference means nothing.


function showMeasurements(section) {
  const all = measurementsOf();
  if (!all.length) return section.append(element("p", {class: "none"}, "No measurements."));
  const shown = element("span", {class: "shown", role: "status"});
  const box = filterBox("filter measurements", update),
    moved = checkBox(" only those that moved", false, update);
  const groups = Map.groupBy(
    all.map((each) => ({...each, node: cardOf(each)})),
    (each) => each.name.split(".", 1)[0],
  );
  const boxes = [...groups].map(([name, entries]) => {
    const grid = details(
      element("strong", {}, name),
      true,
      element(
        "div",
        {class: "cards"},
        entries.map((each) => each.node),
      ),
    );
    grid.style.setProperty("--rows", entries.length);
    return {grid, entries};
  });
  section.append(
    element("div", {class: "tools"}, box.input, moved.label, shown),
    element(
      "p",
      {class: "hint"},
      "The band is the tolerance around the first kernel's value. A value outside it has moved and is a square.",
    ),
    element(
      "div",
      {class: "groups"},
      boxes.map((each) => each.grid),
    ),
  );
  update();

  function update() {
    let count = 0;
    for (const {grid, entries} of boxes) {
      for (const each of entries) {
        each.node.hidden = !box.matches(each.text) || (moved.input.checked && !each.moved);
        count += !each.node.hidden;
      }
      grid.hidden = entries.every((each) => each.node.hidden);
    }
    shown.textContent = `${count} of ${plural(all.length, "measurement")}`;
  }
}

// [{name, id, unit, points: [{kernel, value, moved}], low, high}], a point per kernel that has the figure.
function measurementsOf() {
  const found = new Map();
  for (const kernel of report.kernels) {
    for (const test of kernel.tests) {
      for (const one of test.measurements ?? []) {
        const key = JSON.stringify([one.name, test.id, one.unit]);
        if (!found.has(key))
          found.set(key, {
            name: one.name,
            id: test.id,
            unit: one.unit,
            text: plain(`${one.name} ${test.id}`),
            points: [],
          });
        found.get(key).points.push({kernel, ...one});
      }
    }
  }
  for (const each of found.values()) {
    const [first] = each.points,
      numbers = each.points.filter(({value}) => typeof value === "number");
    const reach = ({tolerance}) => tolerance ?? 0;
    // Of two kernels the larger tolerance counts.
    const between = (point) => Math.max(reach(first), reach(point));
    const band = Number.isFinite(between(each.points.at(-1))) ? between(each.points.at(-1)) : 0;
    for (const point of each.points) point.moved = Math.abs(point.value - first.value) > between(point);
    Object.assign(each, {
      moved: each.points.some((point) => point.moved),
      band,
      low: Math.min(...numbers.map(({value}) => value)),
      high: Math.max(...numbers.map(({value}) => value)),
    });
  }
  return [...found.values()];
}

function cardOf(measurement) {
  const {name, id, unit, points, moved} = measurement,
    last = points.at(-1),
    plot = plotOf(measurement);
  const card = element(
    "figure",
    {class: moved ? "card moved" : "card"},
    element(
      "figcaption",
      {},
      element("strong", {}, name),
      ` ${unit} `,
      element("a", {href: addressOf(last.kernel, id), class: "test"}, `${nameOf(id).title} ${parametersOf(id)}`),
    ),
    plot,
  );
  const width = Number(plot.getAttribute("width"));
  card.style.width = `${width}px`;
  plot.style.minWidth = `${0.8 * width}px`; // smaller figures could not be read: a narrow card scrolls
  return card;
}
