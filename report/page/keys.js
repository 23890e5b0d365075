// The matrix is one stop of the Tab key; arrow keys, Home and End move within it.

function moveByKeys(matrix, link = "a.sign") {
  let current = matrix.querySelector(link);
  const become = (sign) => {
    current.tabIndex = -1;
    current = sign;
    current.tabIndex = 0;
  };
  become(current);
  matrix.addEventListener("focusin", (event) => event.target.matches(link) && become(event.target));
  matrix.addEventListener("keydown", (event) => {
    const sign =
      event.target.matches(link) &&
      !event.ctrlKey &&
      !event.metaKey &&
      !event.altKey &&
      neighbour(matrix, link, event.target, event.key);
    if (sign) {
      event.preventDefault();
      sign.focus();
    }
  });
  // What the filter hides cannot be the way in.
  new MutationObserver(
    () =>
      current.checkVisibility() ||
      become([...matrix.querySelectorAll(link)].find((sign) => sign.checkVisibility()) ?? current),
  ).observe(matrix, {subtree: true, attributeFilter: ["hidden", "open"]});
}

function neighbour(matrix, link, sign, key) {
  const row = sign.closest("tr"),
    inRow = [...row.querySelectorAll(link)].filter((each) => each.checkVisibility());
  if (key === "Home") return inRow[0];
  if (key === "End") return inRow.at(-1);
  if (key === "ArrowLeft") return inRow[inRow.indexOf(sign) - 1];
  if (key === "ArrowRight") return inRow[inRow.indexOf(sign) + 1];
  if (key !== "ArrowUp" && key !== "ArrowDown") return null;
  const column = sign.closest("td").cellIndex,
    place = [...sign.parentNode.children].indexOf(sign);
  const rows = [...matrix.querySelectorAll("tr.test")].filter((each) => each.checkVisibility());
  const next = rows[rows.indexOf(row) + (key === "ArrowDown" ? 1 : -1)];
  const signs = next ? [...next.cells[column].querySelectorAll(link)] : [];
  return signs[Math.min(place, signs.length - 1)] ?? nearest(next, link, column);
}

// A test that was not run on this kernel, or a cell that there is not, has signs in other columns.
function nearest(row, link, column) {
  const distance = (sign) => Math.abs(sign.closest("td").cellIndex - column);
  const signs = [...(row?.querySelectorAll(link) ?? [])].filter((sign) => sign.checkVisibility());
  return signs.sort((one, other) => distance(one) - distance(other))[0];
}
