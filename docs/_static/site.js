// What the theme leaves out for keyboards and screen readers.
addEventListener("load", () => {
  // Code, tables and drawings that are wider than the page are scrolled with the arrow keys, once focused.
  for (const each of document.querySelectorAll("article :is(pre, p, .table-wrapper)")) {
    if (each.scrollWidth > each.clientWidth) each.tabIndex = 0;
  }
  const labels = { ".sidebar-drawer": "Pages", ".toc-drawer": "This page" };
  for (const [selector, label] of Object.entries(labels)) {
    document.querySelector(selector)?.setAttribute("aria-label", label);
  }
  // The theme's search page has its heading for browsers without scripts only.
  const results = document.querySelector("#search-results");
  if (results && !document.querySelector("article h1")) {
    results.before(Object.assign(document.createElement("h1"), { textContent: "Search" }));
  }
  for (const each of document.querySelectorAll(".sidebar-tree .caption")) {
    each.setAttribute("aria-level", "2");
  }
});
