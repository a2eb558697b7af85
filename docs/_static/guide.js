// What furo's pages lack for keyboards and screen readers.
"use strict";

for (const [side, label] of [[".sidebar-drawer", "All pages"], [".toc-drawer", "This page"]]) {
  document.querySelector(side)?.setAttribute("aria-label", label);
}

for (const caption of document.querySelectorAll(".caption[role=heading]")) caption.ariaLevel = "2";

// What scrolls can be reached by key; what fits is no stop on the way.
function reach() {
  for (const box of document.querySelectorAll(".highlight > pre, .table-wrapper")) {
    if (box.closest(".columns")) continue;
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  }
}
reach();
// Pictures bring a scroll bar, and make all else narrower.
for (const event of ["load", "resize"]) addEventListener(event, reach);
