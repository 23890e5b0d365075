// The matrix is one stop of the Tab key; arrow keys, Home and End move within it.

function moveByKeys(matrix) {
  let current = matrix.querySelector("a.sign");
  const become = (sign) => {
    current.tabIndex = -1;
    current = sign;
    current.tabIndex = 0;
  };
  become(current);
  matrix.addEventListener("focusin", (event) => event.target.matches("a.sign") && become(event.target));
  matrix.addEventListener("keydown", (event) => {
    const sign =
      event.target.matches("a.sign") &&
      !event.ctrlKey &&
      !event.metaKey &&
      !event.altKey &&
      neighbour(matrix, event.target, event.key);
    if (sign) {
      event.preventDefault();
      sign.focus();
    }
  });
  // What the filter hides cannot be the way in.
  new MutationObserver(
    () =>
      current.checkVisibility() ||
      become([...matrix.querySelectorAll("a.sign")].find((sign) => sign.checkVisibility()) ?? current),
  ).observe(matrix, {subtree: true, attributeFilter: ["hidden", "open"]});
}

function neighbour(matrix, sign, key) {
  const row = sign.closest("tr"),
    inRow = [...row.querySelectorAll("a.sign")];
  if (key === "Home") return inRow[0];
  if (key === "End") return inRow.at(-1);
  if (key === "ArrowLeft") return inRow[inRow.indexOf(sign) - 1];
  if (key === "ArrowRight") return inRow[inRow.indexOf(sign) + 1];
  if (key !== "ArrowUp" && key !== "ArrowDown") return null;
  const column = sign.closest("td").cellIndex,
    place = [...sign.parentNode.children].indexOf(sign);
  const rows = [...matrix.querySelectorAll("tr.test")].filter((each) => each.checkVisibility());
  const next = rows[rows.indexOf(row) + (key === "ArrowDown" ? 1 : -1)];
  // A test that was not run on this kernel has signs in other columns.
  const signs = next ? [...next.cells[column].querySelectorAll("a.sign")] : [];
  return signs[Math.min(place, signs.length - 1)] ?? next?.querySelector("a.sign");
}
