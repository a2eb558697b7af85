// The side-by-side pages: light up a concept in all columns, move by key, pin, copy, hide, compare.
"use strict";

const page = document.querySelector(".columns");
if (page) {
  const all = (selector, root = page) => [...root.querySelectorAll(selector)];
  const cells = all(".cell");
  const bar = page.querySelector(".columns-bar");
  const said = page.querySelector(".said");
  const visible = (cell) => cell.checkVisibility() && !cell.matches(".away");
  let current = cells[0];

  // A fused cell is about several rows.
  const rows = (cell) => cell.dataset.rows.split(" ");
  const inRows = (cell, wanted) =>
    all(".cell", cell.closest(".grid")).filter((other) =>
      rows(other).some((row) => wanted.includes(row)));

  function light(cell) {
    for (const each of cells) each.classList.remove("lit");
    if (cell) for (const each of inRows(cell, rows(cell))) each.classList.add("lit");
  }

  // An address names one row, and pins all cells that are about it.
  const rowOf = (anchor) => anchor.split(".").at(-1);

  function pin(cell, anchor) {
    for (const each of cells) each.classList.remove("pinned");
    const named = inRows(cell, [rowOf(anchor)]);
    for (const each of named.length ? named : inRows(cell, rows(cell))) each.classList.add("pinned");
    history.replaceState(null, "", "#" + anchor);
  }

  // One cell is in the tab order: the current one, or the next that can be seen.
  function choose(cell) {
    current.tabIndex = -1;
    current = cell;
    current.tabIndex = 0;
  }

  function keepReachable() {
    const after = cells.slice(cells.indexOf(current)).find(visible);
    choose(after || cells.find(visible) || current);
  }

  function move(by) {
    const seen = cells.filter(visible);
    const here = cells.indexOf(current);
    // The first key lights the current row; after that it goes on, also from what is hidden now.
    const away = seen.filter((cell) =>
      by * (cells.indexOf(cell) - here) > 0 && cell.dataset.anchor !== current.dataset.anchor);
    const next = current.classList.contains("lit") ? away.at(by > 0 ? 0 : -1) : current;
    if (!next || !seen.length) return;
    const row = seen.filter((cell) => cell.dataset.anchor === next.dataset.anchor);
    (row.find((cell) => cell.dataset.framework === current.dataset.framework) || row[0]).focus();
  }

  function sideways(by) {
    const columns = all(".head").map((head) => head.dataset.framework);
    const near = inRows(current, rows(current)).filter(visible);
    let column = columns.indexOf(current.dataset.framework) + by;
    for (; column >= 0 && column < columns.length; column += by) {
      const next = near.find((cell) => cell.dataset.framework === columns[column]);
      if (next) return next.focus();
    }
  }

  async function copy() {
    const code = visible(current) && current.querySelector("pre");
    const what = current.getAttribute("aria-label");
    try {
      if (code) await navigator.clipboard.writeText(code.textContent.replace(/\n$/, ""));
      said.textContent = code ? "copied " + what : "no code here to copy";
    } catch {
      said.textContent = "the browser does not let this page copy";
    }
  }

  const keys = {
    j: () => move(1), k: () => move(-1), c: copy,
    t: () => document.querySelector(".theme-toggle").click(),
  };
  const arrows = {
    ArrowDown: () => move(1), ArrowUp: () => move(-1),
    ArrowRight: () => sideways(1), ArrowLeft: () => sideways(-1), Enter: () => pin(current, current.dataset.anchor),
  };

  for (const cell of cells) {
    const focused = () => (document.activeElement.matches(".cell") ? current : null);
    cell.addEventListener("mouseenter", () => light(cell));
    cell.addEventListener("mouseleave", () => light(focused()));
    cell.addEventListener("focus", () => { choose(cell); light(cell); });
    cell.addEventListener("click", () => {
      if (!getSelection().isCollapsed) return;
      cell.focus({ preventScroll: true });
      pin(cell, cell.dataset.anchor);
    });
  }
  for (const unit of all("details")) unit.addEventListener("toggle", keepReachable);
  choose(current);
  keepReachable();

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest("input, select, textarea, [contenteditable]")) return;
    const act = keys[event.key] || (event.target.matches(".cell") && arrows[event.key]);
    if (act) { event.preventDefault(); act(); }
  });

  bar.hidden = false;
  for (const button of all("[data-column]", bar)) {
    const framework = button.dataset.column;
    const column = all(`.cell[data-framework=${framework}], .head[data-framework=${framework}]`);
    const toggle = () => {
      const shown = button.getAttribute("aria-pressed") === "true";
      const others = all('[data-column][aria-pressed="true"]', bar).length;
      if (shown && others === 1) return;
      button.setAttribute("aria-pressed", String(!shown));
      page.style.setProperty("--" + framework, shown ? "1.75rem" : "minmax(0, 1fr)");
      for (const each of column) {
        each.classList.toggle("away", shown);
        each.title = shown ? button.textContent + " is hidden: a click shows it" : "";
      }
      keepReachable();
    };
    button.addEventListener("click", toggle);
    // Before the cell's own listener, which would pin what cannot be seen.
    for (const each of column) {
      each.addEventListener("click", (event) => {
        if (!each.matches(".away")) return;
        event.stopImmediatePropagation();
        toggle();
      }, { capture: true });
    }
  }

  const diffOf = bar.querySelector(".diff-of");
  function compare() {
    const pair = diffOf.value;
    for (const each of all(".grid, .heads")) each.hidden = Boolean(pair);
    for (const each of all(".diff-text")) each.hidden = each.dataset.pair !== pair;
    for (const each of all("[data-column]", bar)) each.disabled = Boolean(pair);
    keepReachable();
  }
  diffOf.addEventListener("change", compare);

  const choices = page.querySelector(".scenarios fieldset");
  if (choices) {
    const show = (id) => {
      for (const each of all(".scenario")) each.hidden = each.id !== "scenario-" + id;
    };
    choices.hidden = false;
    choices.addEventListener("change", (event) => show(event.target.value));
    show(choices.querySelector(":checked").value);
  }

  function follow() {
    const anchor = decodeURIComponent(location.hash.slice(1));
    const place = anchor && document.getElementById(anchor);
    const unit = place && page.contains(place) && place.closest("details");
    if (!unit) return;
    for (let each = unit; each; each = each.parentElement.closest("details")) each.open = true;
    if (diffOf.value) { diffOf.value = ""; compare(); }
    const named = all(".cell", unit).filter((cell) => rows(cell).includes(rowOf(anchor)));
    const cell = named.find((each) => each.dataset.anchor === anchor) || named[0] || unit.querySelector(".cell");
    cell.focus();
    pin(cell, anchor);
  }
  addEventListener("hashchange", follow);
  // Later than the browser, which goes to an address by itself, and takes the focus along.
  addEventListener("load", () => setTimeout(follow));
}
