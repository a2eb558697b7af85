// The side-by-side pages: light up a concept in all columns, move by key, pin, copy, hide, compare.
"use strict";

const page = document.querySelector(".columns");
if (page) {
  const all = (selector, root = page) => [...root.querySelectorAll(selector)];
  const cells = all(".cell");
  const bar = page.querySelector(".columns-bar");
  const said = page.querySelector(".said");
  const visible = (cell) => cell.checkVisibility();
  let current = null;

  // A cell is about the same concept if it shares a row with this one; fused cells have several.
  const rows = (cell) => cell.dataset.rows.split(" ");
  const alike = (cell) =>
    all(".cell", cell.closest(".grid")).filter((other) =>
      rows(other).some((row) => rows(cell).includes(row)));

  function light(cell) {
    for (const each of cells) each.classList.remove("lit");
    if (cell) for (const each of alike(cell)) each.classList.add("lit");
  }

  function pin(cell) {
    for (const each of cells) each.classList.remove("pinned");
    for (const each of alike(cell)) each.classList.add("pinned");
    history.replaceState(null, "", "#" + cell.dataset.anchor);
  }

  // One cell is in the tab order: the current one.
  function choose(cell) {
    (current || cells[0]).tabIndex = -1;
    current = cell;
    cell.tabIndex = 0;
    light(cell);
  }

  function move(by) {
    const places = [...new Set(cells.filter(visible).map((cell) => cell.dataset.anchor))];
    const here = current ? places.indexOf(current.dataset.anchor) : -1;
    const anchor = places[Math.min(Math.max(here + by, 0), places.length - 1)];
    const row = cells.filter((cell) => visible(cell) && cell.dataset.anchor === anchor);
    const same = row.find((cell) => current && cell.dataset.framework === current.dataset.framework);
    (same || row[0]).focus();
  }

  function sideways(by) {
    const near = alike(current).filter(visible);
    const next = near[near.indexOf(current) + by];
    if (next) next.focus();
  }

  async function copy() {
    const code = current && current.querySelector("pre");
    if (!code) return;
    await navigator.clipboard.writeText(code.textContent.replace(/\n$/, ""));
    said.textContent = "copied " + current.getAttribute("aria-label");
  }

  const keys = {
    j: () => move(1), k: () => move(-1), c: copy,
    t: () => document.querySelector(".theme-toggle").click(),
  };
  const arrows = {
    ArrowDown: () => move(1), ArrowUp: () => move(-1),
    ArrowRight: () => sideways(1), ArrowLeft: () => sideways(-1), Enter: () => pin(current),
  };

  for (const cell of cells) {
    cell.addEventListener("mouseenter", () => light(cell));
    cell.addEventListener("mouseleave", () => light(page.contains(document.activeElement) ? current : null));
    cell.addEventListener("focus", () => choose(cell));
    cell.addEventListener("click", () => {
      if (getSelection().isCollapsed) { cell.focus({ preventScroll: true }); pin(cell); }
    });
  }
  cells[0].tabIndex = 0;

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest("input, select, textarea, [contenteditable]")) return;
    const act = keys[event.key] || (event.target.matches(".cell") && arrows[event.key]);
    if (act) { event.preventDefault(); act(); }
  });

  bar.hidden = false;
  for (const button of all("[data-column]", bar)) {
    button.addEventListener("click", () => {
      const shown = button.getAttribute("aria-pressed") === "true";
      const others = all('[data-column][aria-pressed="true"]', bar).length;
      if (shown && others === 1) return;
      const framework = button.dataset.column;
      button.setAttribute("aria-pressed", String(!shown));
      page.style.setProperty("--" + framework, shown ? "0" : "minmax(0, 1fr)");
      for (const each of all(`.cell[data-framework=${framework}], .head[data-framework=${framework}]`)) {
        each.hidden = shown;
      }
    });
  }

  bar.querySelector(".diff-of").addEventListener("change", (event) => {
    const pair = event.target.value;
    for (const each of all(".grid")) each.hidden = Boolean(pair);
    for (const each of all(".diff")) each.hidden = each.dataset.pair !== pair;
  });

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
    const cell = anchor && cells.find((each) => each.dataset.anchor === anchor);
    if (!cell) return;
    cell.closest("details").open = true;
    cell.focus();
    pin(cell);
  }
  addEventListener("hashchange", follow);
  // Later than the browser, which goes to an address by itself, and takes the focus along.
  addEventListener("load", () => setTimeout(follow));
}
