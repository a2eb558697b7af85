// What furo's pages lack for keyboards and screen readers.
"use strict";

for (const [side, label] of [[".sidebar-drawer", "All pages"], [".toc-drawer", "This page"]]) {
  document.querySelector(side)?.setAttribute("aria-label", label);
}

for (const caption of document.querySelectorAll(".caption[role=heading]")) caption.ariaLevel = "2";

// What scrolls can be reached by key; what fits is no stop on the way.
const boxes = [...document.querySelectorAll(".highlight > pre, .table-wrapper")].filter((box) => !box.closest(".columns"));
function reach() {
  for (const box of boxes) {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  }
}
// Windows, pictures, fonts and what is folded change widths at any time, of a box or of what is in it.
const widths = new ResizeObserver(reach);
for (const each of boxes.flatMap((box) => [box, ...box.querySelectorAll("table")])) widths.observe(each);
