const EXIT_STATUS = {
  0: "nothing that --fail-on names was found",
  1: "a regression or a failure",
  2: "wrong usage",
  3: "a machine or the harness failed, or tests did not run",
  6: "nothing was judged",
  125: "a kernel could not be fetched or booted",
  130: "interrupted",
};

function showEnvironment(section) {
  const {run, kernels} = report;
  const columns = {
    kernel: (kernel) => kernel.label,
    release: (kernel) => kernel.release,
    package: (kernel) => [kernel.package, kernel.version].filter(Boolean).join(" "),
    "verified by": (kernel) => kernel.verified || "not verified",
    clock: (kernel) => kernel.clock,
    seed: (kernel) => kernel.seed,
    accelerator: (kernel) => kernel.accel,
    QEMU: (kernel) => kernel.qemu,
    "ready after": (kernel) => seconds(kernel.boot_s),
    "first test after": (kernel) => seconds(kernel.first_test_s),
    "peak memory": (kernel) => (kernel.peak_mb === null ? "" : `${Math.round(kernel.peak_mb)} MB`),
    tests: (kernel) =>
      countsOf(kernel)
        .map(([outcome, count]) => `${count} ${outcome}`)
        .join(", "),
  };
  const names = Object.keys(columns);
  section.append(
    element(
      "table",
      {class: "facts"},
      element(
        "thead",
        {},
        element(
          "tr",
          {},
          names.map((name) => element("th", {scope: "col"}, name)),
        ),
      ),
      element(
        "tbody",
        {},
        kernels.map((kernel) =>
          element(
            "tr",
            {},
            names.map((name, index) =>
              element(
                index ? "td" : "th",
                {"data-name": name, scope: index ? false : "row"},
                columns[name](kernel) ?? "",
              ),
            ),
          ),
        ),
      ),
    ),
    ...kernels
      .filter((kernel) => kernel.error)
      .map((kernel) =>
        element("div", {}, element("strong", {}, `${kernel.label}: `), element("pre", {}, kernel.error)),
      ),
    element(
      "dl",
      {},
      Object.entries({
        arguments: run.arguments.join(" ") || "none",
        started: run.started,
        duration: duration(run.duration_s),
        "exit status": `${run.exit_status}${EXIT_STATUS[run.exit_status] ? `, ${EXIT_STATUS[run.exit_status]}` : ""}`,
        Python: run.python,
      }).map(([name, text]) => [element("dt", {}, name), element("dd", {}, text)]),
    ),
  );
}

function duration(value) {
  return value < 120 ? seconds(value) : `${Math.floor(value / 60)} min ${Math.round(value % 60)} s`;
}
