"use strict";
// Sorting, filtering and details. Text from records enters the page as text nodes only, never as markup.
const data = JSON.parse(document.getElementById("data").textContent);

function el(tag, attributes, ...children) {
  const svg = ["svg", "polyline", "circle", "line", "text"].includes(tag);
  const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) node.setAttribute(name, value);
  for (const child of children.flat(Infinity)) if (child !== null && child !== undefined) node.append(child);
  return node;
}

// Sorting: numbers highest first, text A to Z; a second click turns the order; what has no value stays last.
function sortBy(table, column) {
  const head = table.tHead.rows[0].cells[column];
  const number = head.dataset.kind === "number";
  const usual = number ? "descending" : "ascending";
  const order = head.getAttribute("aria-sort") === usual ? (number ? "ascending" : "descending") : usual;
  const sign = order === "ascending" ? 1 : -1;
  for (const other of table.tHead.rows[0].cells) other.setAttribute("aria-sort", other === head ? order : "none");
  const body = table.tBodies[0];
  const keyed = Array.from(body.rows, (row) => ({ row, value: row.cells[column].dataset.v }));
  keyed.sort((a, b) => {
    if (a.value === "" || b.value === "") return (a.value === "") - (b.value === "");
    return sign * (number ? a.value - b.value : a.value.localeCompare(b.value, "en", { numeric: true }));
  });
  body.append(...keyed.map((item) => item.row));
  table.classList.add("sorted");
}

const tables = Array.from(document.querySelectorAll("table.results"));
for (const table of tables) {
  Array.from(table.tHead.rows[0].cells).forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => sortBy(table, column));
  });
}

// Filtering: every word of the search, and the ticked numbers of shots.
const form = document.querySelector("form.filter");
function filter() {
  const words = form.elements.find.value.toLowerCase().split(/\s+/).filter(Boolean);
  const boxes = Array.from(form.querySelectorAll("input[name=shots]"));
  const shots = new Set(boxes.filter((box) => box.checked).map((box) => box.value));
  let shown = 0;
  let all = 0;
  for (const table of tables) {
    for (const row of table.tBodies[0].rows) {
      const fits = words.every((word) => row.dataset.words.includes(word));
      row.hidden = !(fits && (boxes.length === 0 || shots.has(row.dataset.shots)));
      all += 1;
      shown += row.hidden ? 0 : 1;
    }
  }
  form.elements.count.value = shown === all ? "" : `${shown} of ${all} rows`;
}
form.hidden = false;
form.addEventListener("input", filter);
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("reset", () => setTimeout(filter));
filter();

// Details.
const fixed = (x, digits) => (x === null || x === undefined ? "–" : Number(x).toFixed(digits));
function show(value) {
  if (value === null || value === undefined) return "none";
  if (typeof value === "number") return String(Number(value.toPrecision(6)));
  if (Array.isArray(value)) return value.map(show).join(", ");
  if (typeof value === "object") return Object.entries(value).map(([k, v]) => `${k} ${show(v)}`).join(", ");
  return String(value);
}
const time = (s) => (s < 1 ? `${(1000 * s).toFixed(0)} ms` : s < 120 ? `${s.toFixed(1)} s` : `${(s / 60).toFixed(1)} min`);
const facts = (entries) =>
  el("table", { class: "facts" }, el("tbody", {}, entries.map(([k, v]) => el("tr", {}, el("th", { scope: "row" }, k), el("td", {}, show(v))))));
const folded = (name, entries) => el("details", {}, el("summary", {}, name), facts(entries));

function curve(seed) {
  const checks = seed.curve.flatMap((line) => line.checks);
  if (checks.length < 2) return null;
  const [w, h, left, right, top, bottom] = [440, 170, 34, 8, 10, 24];
  const steps = checks.map((c) => c[0]);
  const values = checks.map((c) => c[1]);
  const last = Math.max(...steps, 1);
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const x = (step) => left + (step / last) * (w - left - right);
  const y = (value) => h - bottom - ((value - low) / (high - low || 1)) * (h - top - bottom);
  const label = (text, px, py, anchor) => el("text", { x: px, y: py, "text-anchor": anchor }, text);
  const svg = el("svg", { class: "curve", viewBox: `0 0 ${w} ${h}`, role: "img", "aria-label": `Validation accuracy by step, from ${low} to ${high} %` });
  svg.append(el("line", { class: "axis", x1: left, x2: w - right, y1: h - bottom, y2: h - bottom }));
  svg.append(label(low.toFixed(1), left - 5, y(low) + 3, "end"));
  if (high > low) svg.append(label(high.toFixed(1), left - 5, y(high) + 3, "end"));
  svg.append(label("0", left, h - 8, "middle"), label(`step ${last}`, w - right, h - 8, "end"));
  seed.curve.slice().reverse().forEach((line) => {
    const own = line === seed.curve[0];
    const points = line.checks.map(([step, value]) => `${x(step).toFixed(1)},${y(value).toFixed(1)}`).join(" ");
    svg.append(el("polyline", { class: own ? "own" : "other", points }));
  });
  const at = seed.curve[0].checks.find(([step]) => step === seed.step);
  if (at) svg.append(el("circle", { cx: x(at[0]), cy: y(at[1]), r: 3.5 }));
  const others = seed.curve.length - 1;
  const named = seed.curve[0].name ? ` (${seed.curve[0].name})` : "";
  const note = `The blue line is the chosen configuration${named}; its dot is the kept step.${others ? ` Grey lines are the other ${others}.` : ""}`;
  return [el("h3", {}, "Validation accuracy, %"), svg, el("p", {}, note)];
}

function one(seed) {
  const budget = seed.budget;
  const cell = data.shared[seed.cell];
  const spent = Object.values(seed.seconds).reduce((a, b) => a + b, 0);
  const phases = Object.entries(seed.seconds).map(([k, v]) => `${k} ${time(v)}`).join(", ");
  const tuning = [
    budget.configurations ? `${budget.configurations} configurations` : null,
    budget.search_points ? `${budget.search_points} search points` : null,
    budget.steps ? `${budget.steps} steps` : null,
    budget.val_images ? `${budget.val_images} validation images` : null,
  ].filter(Boolean);
  return [
    el("h3", {}, "Choices"),
    facts([
      ...Object.entries(seed.chosen),
      ...(seed.step === null || seed.step === undefined ? [] : [["step", seed.step]]),
      ["tuning", tuning.join(", ") || "none"],
      ...(phases ? [["seconds", `${time(spent)}: ${phases}`]] : []),
      ...(seed.memory ? [["peak memory", `${(seed.memory / 1e6).toFixed(0)} MB`]] : []),
      ...(seed.notes.length ? [["notes", seed.notes.join("; ")]] : []),
    ]),
    curve(seed),
    folded("Settings", [...Object.entries(cell), ...Object.entries(data.shared[seed.settings])]),
    folded("Provenance", [
      ...Object.entries(data.shared[seed.provenance]),
      ...Object.entries(data.shared[seed.digests]).map(([k, v]) => [`${k} digest`, v]),
      ["fit key", seed.fit],
      ["evaluation key", seed.evaluation],
      ["written", seed.written],
    ]),
  ];
}

function content(cell) {
  const parts = [];
  if (cell.note) parts.push(el("p", { class: "wrong" }, cell.note));
  if (!cell.seeds) return parts;
  parts.push(el("p", { class: "big" }, `${cell.text} %`));
  const varies = cell.seeds.length > 1 ? "other draws of the support set and other test images" : "other test images alone";
  if (cell.interval) parts.push(el("p", {}, `95 % interval ${fixed(cell.interval[0], 2)} to ${fixed(cell.interval[1], 2)}; it covers ${varies}`));
  if (cell.no_interval) parts.push(el("p", {}, `There is no 95 % interval: ${cell.no_interval}`));
  const heads = ["seed", "accuracy", "top 5", "validation", "images"].map((name) => el("th", { scope: "col" }, name));
  const rows = cell.seeds.map((s) =>
    el("tr", {}, el("td", {}, s.seed === 0 ? "none" : String(s.seed)), [fixed(s.accuracy, 2), fixed(s.top5, 2), fixed(s.validation, 2), s.images].map((v) => el("td", {}, String(v)))),
  );
  parts.push(el("div", { class: "scroll" }, el("table", {}, el("thead", {}, el("tr", {}, heads)), el("tbody", {}, rows))));
  if (cell.seeds.length === 1) return [...parts, ...one(cell.seeds[0])];
  for (const seed of cell.seeds) parts.push(el("details", { class: "seed" }, el("summary", {}, `Seed ${seed.seed}`), one(seed)));
  parts.find((part) => part.className === "seed").open = true;
  return parts;
}

const dialog = document.getElementById("details");
function open(number) {
  const cell = data.cells[number];
  document.getElementById("details-title").textContent = [cell.row, cell.shots, cell.column].filter(Boolean).join(", ");
  document.getElementById("details-body").replaceChildren(...content(cell).flat().filter(Boolean));
  dialog.showModal();
  dialog.scrollTop = 0;
  document.getElementById("details-title").focus();
}
document.addEventListener("click", (event) => {
  const button = event.target.closest("button.cell");
  if (button) open(Number(button.dataset.cell));
  else if (event.target === dialog || event.target.closest("dialog .close")) dialog.close();
});
