// Sorts tables, filters records, and explains the points of the charts. The page reads without it.
"use strict";
const records = JSON.parse(document.getElementById("records").textContent);
const known = new Map(records.map((record) => [record.record, record]));

// A cell's own value, or its text; what is missing stands last in either direction.
function valueOf(row, column) {
  const cell = row.cells[column];
  const text = cell.dataset.v ?? cell.textContent.trim();
  if (text === "" || text === "–") return null;
  return Number.isNaN(Number(text)) ? text : Number(text);
}

function compare(a, b) {
  if (typeof a === "number" && typeof b === "number") return a - b;
  return String(a).localeCompare(String(b), "en", { numeric: true });
}

function sortBy(head) {
  const down = head.getAttribute("aria-sort") === "ascending";
  for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const body = head.closest("table").tBodies[0];
  const rows = [...body.rows].map((row) => [valueOf(row, head.cellIndex), row]);
  rows.sort(([a], [b]) => {
    if (a === null || b === null) return (a === null) - (b === null);
    return down ? compare(b, a) : compare(a, b);
  });
  body.append(...rows.map(([, row]) => row));
}

for (const head of document.querySelectorAll("table.sort thead th")) {
  const button = document.createElement("button");
  button.type = "button";
  button.append(...head.childNodes);
  button.addEventListener("click", () => sortBy(head));
  head.append(button);
}

const form = document.getElementById("filter");
function filter() {
  const words = form.elements.text.value.toLowerCase().split(/\s+/).filter(Boolean);
  const status = form.elements.status.value;
  let shown = 0;
  for (const section of document.querySelectorAll("section.group")) {
    const where = section.querySelector("h2").textContent;
    let here = 0;
    for (const row of section.querySelectorAll("table.records tbody tr")) {
      const text = (where + " " + row.textContent).toLowerCase();
      const fits = words.every((word) => text.includes(word));
      row.hidden = !(fits && (status === "" || row.dataset.status === status));
      here += row.hidden ? 0 : 1;
    }
    section.hidden = here === 0;
    shown += here;
  }
  form.querySelector("output").textContent = `${shown} of ${records.length} records`;
}
if (form) {
  form.hidden = false;
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  filter();
}

const tip = document.getElementById("tip");
function show(point) {
  const record = known.get(point.dataset.key);
  if (!record) return;
  tip.replaceChildren(
    ...record.tip.map((line, number) => {
      const part = document.createElement(number ? "div" : "b");
      part.textContent = line;
      return part;
    }),
  );
  tip.hidden = false;
  const box = point.getBoundingClientRect();
  const left = box.left + box.width / 2 - tip.offsetWidth / 2;
  const room = document.documentElement.clientWidth - tip.offsetWidth - 8;
  tip.style.left = `${Math.max(8, Math.min(left, room)) + window.scrollX}px`;
  const above = box.top - tip.offsetHeight - 8;
  tip.style.top = `${(above > 0 ? above : box.bottom + 8) + window.scrollY}px`;
}
function hide() {
  tip.hidden = true;
}
for (const point of document.querySelectorAll(".tip")) {
  point.addEventListener("pointerenter", () => show(point));
  point.addEventListener("pointerleave", hide);
  point.addEventListener("click", () => show(point));
}
document.addEventListener("keydown", (event) => event.key === "Escape" && hide());
