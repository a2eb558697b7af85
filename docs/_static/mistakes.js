// The mistakes by symptom: each symptom that stands in the table can be chosen, and words are found.
"use strict";

const table = document.querySelector(".symptoms table");
if (table) {
  const rows = [...table.tBodies[0].rows];
  const symptoms = new Map(rows.map((row) => [row, row.cells[2].textContent.split("; ")]));
  // The first symptom of every mistake is which update is wrong.
  const first = new Set([...symptoms.values()].map((each) => each[0]));
  const groups = Map.groupBy(new Set([...symptoms.values()].flat().sort()), (symptom) =>
    first.has(symptom) ? "Updates" : symptom.startsWith("seen with: ") ? "Seen with" : "Also");

  const form = document.createElement("form");
  form.className = "by-symptom";
  form.ariaLabel = "Which mistakes are shown";
  for (const name of ["Updates", "Also", "Seen with"]) {
    const label = form.appendChild(document.createElement("label"));
    const options = groups.get(name).map((each) => new Option(each.replace("seen with: ", ""), each));
    const select = document.createElement("select");
    select.ariaLabel = name;
    select.append(new Option("any", ""), ...options);
    label.append(name, select);
  }
  form.insertAdjacentHTML("beforeend",
    '<label>Words<input type="search"></label><output aria-live="polite"></output>');
  const choices = [...form.querySelectorAll("select")];

  function filter() {
    const wanted = choices.map((each) => each.value).filter(Boolean);
    const sought = form.querySelector("input").value.toLowerCase().split(/\s+/);
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !wanted.every((each) => symptoms.get(row).includes(each))
        || !sought.every((word) => text.includes(word));
    }
    form.querySelector("output").textContent =
      `${rows.filter((row) => !row.hidden).length} of ${rows.length}`;
  }

  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  table.closest(".symptoms").before(form);
  filter();
}
