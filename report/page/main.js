const dialog = document.getElementById("test");
const sections = {
  verdict: showVerdict,
  tests: showMatrix,
  tables: showTables,
  measurements: showMeasurements,
  environment: showEnvironment,
};

document.title = ["kdrift", ...report.kernels.map((kernel) => kernel.label), report.run.started].join(" ");
for (const [name, show] of Object.entries(sections)) {
  const section = document.getElementById(name);
  try {
    show(section);
  } catch (error) {
    // The other sections still have something to say.
    console.error(error);
    section.append(element("p", {}, `Cannot draw this section: ${error.message}`));
  }
}

let shown = ""; // the address of the test in the dialog

function followAddress() {
  const found = findAddress(location.hash);
  if (found) {
    shown = location.hash;
    // A dialog that closes gives the focus back to where it was: for an address from outside, to the sign.
    if (document.activeElement === document.body) signAt(location.hash)?.focus();
    showTest(dialog, found);
  } else if (dialog.open) dialog.close();
}

function signAt(hash) {
  const [test] = hash.split("?");
  return [...document.querySelectorAll("#matrix a.sign")].find((sign) => sign.hash === test);
}

// This event comes late: the next test may have been asked for already.
dialog.addEventListener(
  "close",
  () => !dialog.open && location.hash === shown && history.replaceState(null, "", location.pathname + location.search),
);
dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
addEventListener("hashchange", followAddress);
followAddress();
