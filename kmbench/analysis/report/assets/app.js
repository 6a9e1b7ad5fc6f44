"use strict";
// State, controls and figures.  tables.js, below, fills the tables.
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const metrics = new Map(data.metrics.map((m) => [m.name, m]));
const strategies = Object.keys(data.colours);
const state = {
  context: 0, on: new Set(strategies), group: "", metric: "pair_ns", parameter: "",
  cache: "", theme: remembered("theme") || "auto",
};

function remembered(key) {
  try { return localStorage.getItem("kmbench-" + key); } catch { return null; }
}
function remember(key, value) {
  try { localStorage.setItem("kmbench-" + key, value); } catch { /* private window */ }
}

// --- data: columns into rows, once ---

function unpack(columns) {
  const names = Object.keys(columns);
  const read = names.map((name) => {
    const c = columns[name];
    return Array.isArray(c) ? (i) => c[i] : (i) => c.words[c.codes[i]];
  });
  const first = columns[names[0]];
  const height = (Array.isArray(first) ? first : first.codes).length;
  return Array.from({ length: height }, (_, i) =>
    Object.fromEntries(names.map((name, j) => [name, read[j](i)])));
}
const tables = {};
function table(name) {
  return (tables[name] ??= unpack(data.tables[name]));
}
/** Rows of a table that belong to the chosen context and strategies. */
function chosen(name) {
  return table(name).filter((r) => r.context === state.context && state.on.has(r.strategy));
}

// --- numbers ---

const UNITS = [["TiB", 2 ** 40], ["GiB", 2 ** 30], ["MiB", 2 ** 20], ["KiB", 2 ** 10]];
function unitOf(largest) {
  return UNITS.find(([, size]) => largest >= size) || ["B", 1];
}
function bytes(value) {
  const [name, size] = unitOf(Math.abs(value));
  const n = value / size;
  return `${n >= 100 || size === 1 ? n.toFixed(0) : n.toFixed(n >= 10 ? 1 : 2)} ${name}`;
}
function ratioText(ratio) {
  return Math.abs(ratio) < 1000 ? `${ratio.toFixed(2)}x` : `${ratio.toPrecision(3)}x`;
}

// --- small helpers for the page ---

function element(name, attributes = {}, ...children) {
  const e = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) e.addEventListener(key.slice(2), value);
    else if (value !== undefined && value !== null) e.setAttribute(key, value);
  }
  e.append(...children.filter((c) => c !== null && c !== undefined));
  return e;
}
function options(select, pairs, current) {
  select.replaceChildren(...pairs.map(([value, text]) => element("option", { value }, text)));
  select.value = current;
}
function coloured(strategy, kind = "span") {
  return element(kind, { class: "name", style: `--colour:${data.colours[strategy]}` }, strategy);
}

// --- theme ---

const dark = matchMedia("(prefers-color-scheme: dark)");
function isDark() {
  return state.theme === "dark" || (state.theme === "auto" && dark.matches);
}
function applyTheme() {
  document.documentElement.toggleAttribute("data-dark", isDark());
  const words = { auto: "as the system", light: "light", dark: "dark" };
  $("theme").textContent = { auto: "\u25d0 ", light: "\u2600 ", dark: "\u263e " }[state.theme]
    + words[state.theme];
}
function chartConfig() {
  const css = getComputedStyle(document.documentElement);
  const [ink, soft, line] = ["--ink", "--soft", "--line"].map((v) => css.getPropertyValue(v).trim());
  const { axis, legend, ...rest } = data.config;
  return {
    ...rest, background: "transparent",
    axis: {
      ...axis, labelColor: soft, titleColor: soft, gridColor: line, domainColor: line,
      tickColor: line,
    },
    legend: { ...legend, labelColor: soft },
    text: { fill: ink }, rule: { color: ink },
  };
}

// --- figures ---

/** The specification of a figure for these rows, every dollar word replaced. */
function specOf(figure, rows, more = {}) {
  const present = strategies.filter((s) => state.on.has(s) && (more.all || rows.some((r) => r.strategy === s)));
  const columns = more.columns || figure.bytes;
  const largest = more.largest ??
    rows.reduce((most, r) => columns.reduce((m, c) => Math.max(m, r[c] || 0), most), 0);
  const [unit, divisor] = columns.length ? unitOf(largest) : ["", 1];
  const words = {
    COLOURS: { domain: present, range: present.map((s) => data.colours[s]) },
    ORDER: present, UNIT: unit, DIVISOR: divisor, DOMAIN: [0, largest / divisor || 1],
    FORMAT: ".4~r", LABEL: "", PARAMETER: "", COLUMNS: innerWidth < 640 ? 2 : 0, ...more.words,
  };
  if (more.label) words.LABEL = more.label + (unit ? `, ${unit}` : "");
  let text = JSON.stringify(figure.spec);
  for (const [word, value] of Object.entries(words)) {
    const plain = typeof value === "string" ? value : JSON.stringify(value);
    text = text.replaceAll(`"$${word}"`, () => JSON.stringify(value));
    text = text.replaceAll(`$${word}`, () => JSON.stringify(plain).slice(1, -1));
  }
  const spec = JSON.parse(text);
  return {
    ...spec, width: "container",
    height: more.height || (figure.lines ? data.step * present.length : 300),
    autosize: { type: "fit-x", contains: "padding" },
    data: { values: rows }, config: chartConfig(),
  };
}

const drawn = new Map(); // plot -> what stops it
async function draw(plot, spec, actions = true) {
  drawn.get(plot)?.();
  drawn.delete(plot);
  const result = await vegaEmbed(plot, spec, {
    renderer: "svg", tooltip: { theme: "custom" },
    actions: actions && { export: true, source: false, compiled: false, editor: false },
  });
  drawn.set(plot, () => result.finalize());
}

/** Caption and plot of a figure; nothing when there are no rows. */
function frame(holder, title, caption) {
  holder.classList.remove("empty");
  let plot = holder.querySelector(".plot");
  if (!plot) {
    plot = element("div", { class: "plot" });
    holder.replaceChildren(element("figcaption", {}, element("h3", {}, title),
      caption ? element("p", {}, caption) : null), plot);
  }
  holder.querySelector("h3").textContent = title;
  return plot;
}
function clear(holder) {
  const plot = holder.querySelector(".plot");
  if (plot) drawn.get(plot)?.();
  holder.classList.add("empty");
  holder.replaceChildren();
}

const FIGURES = {
  scaling() {
    const metric = metrics.get(state.metric);
    const rows = table("scaling").filter((r) => r.parameter === state.parameter
      && r.metric === state.metric && r.scenario === scalingScenario() && state.on.has(r.strategy));
    return [rows, {
      columns: metric.unit === "B" ? ["value"] : [], label: metric.label,
      words: { PARAMETER: state.parameter, FORMAT: metric.unit === "1" ? ".0%" : ".4~r" },
      height: 340, title: `${metric.label} over ${state.parameter}`,
    }];
  },
  latency() {
    const rows = chosen("latency").filter((r) => r.group === state.group);
    return [rows, { title: `Latency, ${state.group || "all groups together"}` }];
  },
  cache() {
    const rows = chosen("caches").filter((r) => r.cache === state.cache);
    return [rows, { title: rows.length ? state.cache : "" }];
  },
};
function scalingScenario() {
  const here = data.contexts[state.context];
  return [here.scenario, here.allocator, here.era].filter((w) => w !== null).join(", ");
}

function renderFigure(holder) {
  const name = holder.dataset.figure;
  const figure = data.figures[name];
  const [rows, more] = FIGURES[name]?.() || [chosen(figure.table), {}];
  if (!rows.length) return clear(holder);
  const plot = frame(holder, more.title || figure.title, figure.caption);
  return draw(plot, specOf(figure, rows, more));
}

/** One small picture per strategy, all with the same axes. */
function renderEach(holder) {
  const figure = data.figures[holder.dataset.each];
  const source = state.group ? chosen("groups").filter((r) => r.group === state.group)
    : chosen(figure.table);
  const largest = source.reduce((m, r) => Math.max(m, r.used, r.charged), 0);
  const present = strategies.filter((s) => state.on.has(s));
  const old = new Map([...holder.children].map((c) => [c.dataset.strategy, c]));
  const kept = present.map((s) => old.get(s) || element("figure", { "data-strategy": s }));
  for (const [s, e] of old) if (!state.on.has(s)) clear(e);
  holder.replaceChildren(...kept);
  return Promise.all(kept.map((small) => {
    const rows = source.filter((r) => r.strategy === small.dataset.strategy);
    if (!rows.length) return clear(small);
    const plot = frame(small, small.dataset.strategy, "");
    small.style.setProperty("--colour", data.colours[small.dataset.strategy]);
    return draw(plot, specOf(figure, rows, { largest, height: 120 }), false);
  }));
}

// Figures are drawn when they come near the screen, and again only when they must.
const stale = new Set();
const near = new Set();
const watcher = new IntersectionObserver((entries) => {
  for (const e of entries) {
    if (e.isIntersecting) near.add(e.target); else near.delete(e.target);
  }
  refresh();
}, { rootMargin: "400px" });
let pending = Promise.resolve();
function refresh() {
  for (const holder of near) {
    if (!stale.has(holder)) continue;
    stale.delete(holder);
    pending = pending.then(() => (holder.dataset.each ? renderEach(holder) : renderFigure(holder)));
  }
}
/** For programs that drive the page: resolves when what is near the screen has been drawn. */
window.drawn = () => pending;
const holders = [...document.querySelectorAll("[data-figure], [data-each]")];
function invalidate(names) {
  for (const holder of holders) {
    const name = holder.dataset.figure || holder.dataset.each;
    if (!names || names.includes(name)) {
      stale.add(holder);
      if (holder.classList.contains("empty")) near.add(holder); // it cannot come near by itself
    }
  }
  refresh();
}

// --- controls ---

function toggle(strategy, alone) {
  if (alone) {
    const only = state.on.size === 1 && state.on.has(strategy);
    state.on = new Set(only ? strategies : [strategy]);
  } else if (state.on.has(strategy)) state.on.delete(strategy);
  else state.on.add(strategy);
  everything();
}
function renderChips() {
  const box = $("chips");
  if (!box.children.length) {
    box.append(...strategies.map((s) => element("button", {
      type: "button", class: "chip", style: `--colour:${data.colours[s]}`,
      title: "show or hide; with Shift: only this one",
      onclick: (event) => toggle(s, event.shiftKey),
    }, s)), element("button", {
      type: "button", class: "chip all", style: "--colour:transparent",
      onclick: () => { state.on = new Set(strategies); everything(); },
    }, "all"));
  }
  [...box.children].forEach((chip, i) => {
    if (i < strategies.length) chip.setAttribute("aria-pressed", state.on.has(strategies[i]));
  });
}

function renderControls() {
  const groups = [...new Set(table("groups").filter((r) => r.context === state.context)
    .map((r) => r.group))];
  if (!groups.includes(state.group)) state.group = "";
  options($("group"), [["", "all together"], ...groups.map((g) => [g, g])], state.group);
  const here = table("scaling").filter((r) => r.scenario === scalingScenario());
  const parameters = [...new Set(here.map((r) => r.parameter))];
  if (!parameters.includes(state.parameter)) state.parameter = parameters[0] || "";
  options($("parameter"), parameters.map((p) => [p, p]), state.parameter);
  const measured = new Set(here.map((r) => r.metric));
  options($("metric"), data.metrics.filter((m) => measured.has(m.name))
    .map((m) => [m.name, m.label]), state.metric);
  for (const id of ["parameter", "metric"]) $(id).parentElement.hidden = !parameters.length;
  $("no-scaling").textContent = parameters.length ? ""
    : "The runs of this scenario vary no number. Repeat kmbench run with another --set "
      + "workload.groups=N, and the curves are drawn here.";
}

function everything() {
  const context = data.contexts[state.context];
  renderChips();
  renderControls();
  $("shown").textContent = `${context.allocator.toUpperCase()} of Linux ${context.era}, `
    + `${context.cpus} CPUs, costs of ${context.hardware}. ${context.pairs || 0} pair${context.pairs === 1 ? "" : "s"} of runs per `
    + `strategy. Timelines, operations and caches: seed ${context.seed}, ${parameterText(context)}.`;
  for (const section of document.querySelectorAll("[data-needs]")) {
    section.hidden = !table(section.dataset.needs).some((r) => r.context === state.context);
  }
  renderTables();
  invalidate();
  $("status").textContent = `${state.on.size} of ${strategies.length} strategies, ${context.label}`;
}
function parameterText(context) {
  const p = JSON.parse(context.shown || "{}");
  const words = Object.entries(p).map(([k, v]) => `${k} ${Array.isArray(v) ? v.join("+") : v}`);
  return words.join(", ") || "no parameters";
}

function start() {
  applyTheme();
  const f = data.facts;
  $("about").textContent = `${f.runs.toLocaleString("en")} runs of ${strategies.length} strategies, `
    + `${f.events.toLocaleString("en")} events, from ${f.folder}`;
  options($("context"), data.contexts.map((c) => [c.context, c.label]), 0);
  $("context").onchange = (e) => { state.context = Number(e.target.value); everything(); };
  $("group").onchange = (e) => { state.group = e.target.value; invalidate(["charged", "latency"]); };
  $("metric").onchange = (e) => { state.metric = e.target.value; invalidate(["scaling"]); };
  $("parameter").onchange = (e) => { state.parameter = e.target.value; invalidate(["scaling"]); };
  $("theme").onclick = () => {
    const order = ["auto", "light", "dark"];
    state.theme = order[(order.indexOf(state.theme) + 1) % 3];
    remember("theme", state.theme);
    applyTheme();
    invalidate();
  };
  dark.onchange = () => { applyTheme(); invalidate(); };
  for (const p of document.querySelectorAll("[data-caption]")) {
    p.textContent = data.figures[p.dataset.caption].caption;
  }
  startTables();
  everything();
  holders.forEach((holder) => watcher.observe(holder));
}
