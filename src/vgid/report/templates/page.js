"use strict";
// Makes tables sortable and filterable, and unfolds folded parts for printing. The page is complete without this.

const wide = matchMedia("(min-width: 58.01rem)");

function valueOf(row, column) {
  const cell = row.cells[column];
  if (!cell || cell.colSpan > 1) return null;
  const text = (cell.querySelector("b") ?? cell.querySelector("code") ?? cell).textContent.trim();
  const number = Number.parseFloat(text.replace("\u2212", "-"));
  return Number.isNaN(number) ? text.toLowerCase() : number;
}

// Numbers come before words, and missing values last, in either direction.
function compare(a, b, column, sign) {
  const [x, y] = [valueOf(a, column), valueOf(b, column)];
  if (x === y) return a.dataset.place - b.dataset.place;
  if (x === null || y === null) return x === null ? 1 : -1;
  if (typeof x !== typeof y) return typeof x === "number" ? -1 : 1;
  return sign * (typeof x === "number" ? x - y : x.localeCompare(y));
}

function element(name, properties, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

// On a phone rows are laid out as blocks, which would hide from screen readers that they are rows.
function name(table) {
  table.setAttribute("role", "table");
  for (const group of [table.tHead, ...table.tBodies]) group?.setAttribute("role", "rowgroup");
  for (const row of table.rows) {
    row.setAttribute("role", "row");
    for (const cell of row.cells) {
      const head = row.parentElement === table.tHead ? "columnheader" : "rowheader";
      cell.setAttribute("role", cell.tagName === "TH" ? head : "cell");
    }
  }
}

function enhance(table) {
  name(table);
  const bodies = [...table.tBodies].map((body) => ({ body, rows: [...body.rows].filter((row) => !row.classList.contains("group")) }));
  const rows = bodies.flatMap((each) => each.rows);
  if (rows.length < 3 || !table.tHead) return;
  rows.forEach((row, place) => { row.dataset.place = place; });
  const heads = [...table.tHead.rows[0].cells];
  const names = heads.map((head) => head.textContent.trim());
  const state = { column: -1, sign: 1 };
  const status = element("output", { className: "note" });
  const search = element("input", { type: "search", autocomplete: "off", spellcheck: false });
  const order = element("select", {}, element("option", { value: "" }, "default order"));
  names.forEach((name, column) => {
    order.append(element("option", { value: `${column} 1` }, `${name}, ascending`), element("option", { value: `${column} -1` }, `${name}, descending`));
  });

  function sort(column, sign) {
    Object.assign(state, { column, sign });
    for (const each of bodies) {
      const sorted = column < 0 ? [...each.rows].sort((a, b) => a.dataset.place - b.dataset.place)
        : [...each.rows].sort((a, b) => compare(a, b, column, sign));
      each.body.append(...sorted);
    }
    heads.forEach((head, index) => {
      if (index === column) head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      else head.removeAttribute("aria-sort");
    });
    order.value = column < 0 ? "" : `${column} ${sign}`;
    status.textContent = column < 0 ? "" : `Sorted by ${names[column]}, ${sign > 0 ? "ascending" : "descending"}.`;
  }

  function filter() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of rows) row.hidden = !words.every((word) => row.textContent.toLowerCase().includes(word));
    for (const each of bodies) each.body.hidden = each.rows.every((row) => row.hidden);
    status.textContent = words.length ? `${rows.filter((row) => !row.hidden).length} of ${rows.length} rows.` : "";
  }

  const buttons = heads.map((head, column) => {
    const button = element("button", { type: "button", className: "sort" }, ...head.childNodes);
    // Ascending, descending, and back to the order of the page.
    button.addEventListener("click", () => {
      if (state.column !== column) sort(column, 1);
      else if (state.sign > 0) sort(column, -1);
      else sort(-1, 1);
    });
    head.append(button);
    return button;
  });
  const reach = () => buttons.forEach((button) => { button.tabIndex = wide.matches ? 0 : -1; });
  wide.addEventListener("change", reach);
  reach();
  search.addEventListener("input", filter);
  order.addEventListener("change", () => { const [column, sign] = order.value.split(" ").map(Number); sort(order.value ? column : -1, sign || 1); });
  const tools = element("div", { className: "tools" },
    element("label", {}, "Filter rows ", search), element("label", { className: "order" }, "Sort by ", order), status);
  const frame = table.closest(".scroll") ?? table;
  if (table.classList.contains("brief")) frame.after(tools); // the first screen begins with the table
  else frame.before(tools);
}

document.querySelectorAll("table.figures, table.sortable").forEach(enhance);

let folded = [];
addEventListener("beforeprint", () => {
  folded = [...document.querySelectorAll("details:not([open])")];
  folded.forEach((each) => { each.open = true; });
});
addEventListener("afterprint", () => folded.forEach((each) => { each.open = false; }));
