// One measurement over the kernels, drawn.

const PLOT = {top: 18, height: 42, bottom: 17};

// A count as it is, else four to six digits, as many as the band can tell apart.
function figure(value, band = 0) {
  if (typeof value !== "number" || Number.isInteger(value)) return String(value);
  const digits = band ? Math.floor(Math.log10(Math.abs(value))) + 1 - Math.floor(Math.log10(band)) : 6;
  return String(Number(value.toPrecision(Math.min(Math.max(digits, 4), 6))));
}

function plotOf({points, unit, band, low, high}) {
  const base = points[0].value,
    bottom = Math.min(low, base - band),
    top = Math.max(high, base + band);
  const words = points.map(({value}) => figure(value, band));
  const labels = report.kernels.map((kernel) =>
    kernel.label.length > 12 ? `${kernel.label.slice(0, 11)}\u2026` : kernel.label,
  );
  const column = 9 + CHARACTER * Math.max(...[...labels, ...words].map((text) => text.length));
  const width = Math.max(column * labels.length, 230),
    height = PLOT.top + PLOT.height + PLOT.bottom;
  const at = (index) => ((index + 0.5) * width) / labels.length,
    x = (kernel) => at(report.kernels.indexOf(kernel));
  const y = (value) => PLOT.top + 4 + (PLOT.height - 8) * (top > bottom ? (top - value) / (top - bottom) : 0.5);
  const drawn = points.filter(({value}) => typeof value === "number");
  const changed = points.flatMap((point, index) =>
    index === 0 || words[index] !== words[index - 1] ? [[point, words[index]]] : [],
  );
  return drawing(
    "svg",
    {
      width,
      viewBox: `0 0 ${width} ${height}`,
      role: "img",
      "aria-label": points.map(({kernel}, index) => `${kernel.label}: ${words[index]} ${unit}`).join(", "),
    },
    typeof base === "number"
      ? drawing("rect", {
          class: "band",
          x: 0,
          y: y(base + band),
          width,
          height: Math.max(y(base - band) - y(base + band), 1),
        })
      : null,
    drawing("polyline", {
      class: "course",
      points: drawn.map(({kernel, value}) => `${x(kernel)},${y(value)}`).join(" "),
    }),
    drawn.map(({kernel, value, moved}) =>
      moved
        ? drawing("rect", {class: "dot moved", x: x(kernel) - 4, y: y(value) - 4, width: 8, height: 8})
        : drawing("circle", {class: "dot", cx: x(kernel), cy: y(value), r: 3}),
    ),
    changed.map(([{kernel, value, moved}, text]) =>
      drawing(
        "text",
        {
          class: moved ? "value moved" : "value",
          x: x(kernel),
          y: (typeof value === "number" ? y(value) : y(top)) - 8,
          "text-anchor": "middle",
        },
        text,
      ),
    ),
    labels.map((label, index) =>
      drawing("text", {class: "axis", x: at(index), y: height - 4, "text-anchor": "middle"}, label),
    ),
  );
}
