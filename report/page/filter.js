// A box to type in: each word must be somewhere in the text, in any case; underscores are blanks, and bind words.

function plain(text) {
  return text.toLowerCase().replaceAll("_", " ");
}

function filterBox(label, changed) {
  const input = element("input", {
    type: "search",
    placeholder: label,
    "aria-label": label,
    spellcheck: "false",
    autocomplete: "off",
  });
  input.addEventListener("input", changed);
  const matches = (text) => input.value.split(/\s+/).every((word) => text.includes(plain(word)));
  return {input, matches};
}

function checkBox(label, checked, changed) {
  const input = element("input", {type: "checkbox", checked});
  input.addEventListener("change", changed);
  return {input, label: element("label", {class: "toggle"}, input, label)};
}
