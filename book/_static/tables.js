// Tables that a reader sorts, by a button in the head of each column; without this script they are
// plain tables. And what is too wide for the screen scrolls by itself, for the keyboard too.
"use strict";

(() => {
  // A cell that begins with a number counts as that number: "9.4 ± 0.2", "+1.0", "1,234 images".
  const numberOf = (text) => parseFloat(text.trim().replace("−", "-").replace(/,(?=\d{3})/g, ""));

  function order(rows, place, descending) {
    const text = (row) => (row.cells[place] ? row.cells[place].textContent.trim() : "");
    const keyed = rows.map((row) => ({ row, text: text(row), number: numberOf(text(row)) }));
    const numeric = keyed.some((item) => !isNaN(item.number));
    const sign = descending ? -1 : 1;
    // What is no number, such as "not run", comes last either way.
    const compare = numeric
      ? (a, b) => isNaN(a.number) - isNaN(b.number) || sign * (a.number - b.number) || 0
      : (a, b) => !a.text - !b.text || sign * a.text.localeCompare(b.text);
    return keyed.sort(compare).map((item) => item.row);
  }

  function makeSortable(table) {
    const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
    const body = table.tBodies[0];
    heads.forEach((head, place) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      if (!button.textContent.trim()) button.setAttribute("aria-label", "first column");
      head.append(button);
      button.addEventListener("click", () => {
        const rows = [...body.rows];
        const numeric = rows.some((row) => !isNaN(numberOf(row.cells[place]?.textContent ?? "")));
        const before = head.getAttribute("aria-sort");
        // Numbers begin with the largest, words with the first.
        const descending = before ? before === "ascending" : numeric;
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", descending ? "descending" : "ascending");
        body.append(...order(rows, place, descending));
      });
    });
  }

  function makeScrollable(box) {
    const update = () => {
      const wide = box.scrollWidth > box.clientWidth + 1;
      if (wide && !box.hasAttribute("tabindex")) {
        box.tabIndex = 0;
        box.setAttribute("role", "region");
        const caption = box.closest("figure")?.querySelector("figcaption p");
        const kinds = { table: "Table", img: "Figure" };
        const kind = Object.keys(kinds).find((name) => box.querySelector(name));
        box.setAttribute("aria-label", caption ? caption.textContent.trim() : (kinds[kind] ?? "Formula"));
      } else if (!wide && box.getAttribute("role") === "region") {
        for (const name of ["tabindex", "role", "aria-label"]) box.removeAttribute(name);
      }
    };
    new ResizeObserver(update).observe(box);
  }

  // A figure that is wider than a phone scrolls in a box of its own, above its caption.
  function box(picture) {
    const around = document.createElement("div");
    around.className = "mgca-scroll";
    picture.replaceWith(around);
    around.append(picture);
  }

  document.addEventListener("DOMContentLoaded", () => {
    document.querySelectorAll("figure.mgca-figure > :is(a, img)").forEach(box);
    document.querySelectorAll("table.sortable").forEach(makeSortable);
    document
      .querySelectorAll(".output.text_html, .mgca-scroll, .pst-scrollable-table-container, div.math")
      .forEach(makeScrollable);
  });
})();
