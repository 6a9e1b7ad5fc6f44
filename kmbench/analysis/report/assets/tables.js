// --- tables ---

const LOWER = "lower";
const sorting = {}; // table id -> [column, 1 up or -1 down]

/** Fill a table.  Columns: {key, head, note, word, value(row) to sort by, cell(row)}. */
function fill(id, columns, rows, rowAttributes = () => ({})) {
  const [key, way] = sorting[id] || [];
  const by = columns.find((c) => c.key === key);
  if (by) {
    rows = [...rows].sort((a, b) => {
      const [x, y] = [by.value(a), by.value(b)];
      if (x === y) return 0;
      if (x === null || x === undefined) return 1; // what is missing comes last, both ways
      if (y === null || y === undefined) return -1;
      return (x < y ? -1 : 1) * way;
    });
  }
  const head = element("tr", {}, ...columns.map((c) => element("th", {
    scope: "col", class: c.word ? "word" : "",
    "aria-sort": c.key === key ? (way > 0 ? "ascending" : "descending") : undefined,
  }, element("button", {
    type: "button", title: c.title, "data-key": c.key,
    onclick: () => {
      sorting[id] = [c.key, c.key === key ? -way : (c.word || c.up ? 1 : -1)];
      renderTables();
      document.querySelector(`#${id} button[data-key="${CSS.escape(c.key)}"]`)?.focus();
    },
  }, c.head, c.note ? element("small", {}, c.note) : null))));
  const body = rows.map((r) => element("tr", rowAttributes(r), ...columns.map((c, i) => {
    const cell = c.cell(r);
    if (cell instanceof HTMLTableCellElement) return cell;
    return element(i ? "td" : "th", i ? { class: c.word ? "word" : "" } : { scope: "row" },
      cell ?? "-");
  })));
  $(id).replaceChildren(element("thead", {}, head), element("tbody", {}, ...body));
}

/** How good a ratio is: a colour and its strength, none within two per cent. */
function shade(ratio, direction) {
  if (!direction || !(ratio > 0) || Math.abs(ratio - 1) < 0.02) return "";
  const better = (ratio < 1) === (direction === LOWER);
  const strength = Math.min(0.34, 0.08 + 0.2 * Math.abs(Math.log2(ratio)));
  return `background: rgba(var(--${better ? "good" : "bad"}), ${strength.toFixed(2)})`;
}

function summaryRows() {
  const rows = new Map();
  for (const r of chosen("summary")) {
    if (!rows.has(r.strategy)) rows.set(r.strategy, { strategy: r.strategy });
    rows.get(r.strategy)[r.metric] = r;
  }
  return strategies.filter((s) => rows.has(s)).map((s) => rows.get(s));
}

function summaryCell(cell, metric, strategy) {
  if (!cell || cell.value === null) return "-";
  const base = strategy === data.facts.baseline;
  const parts = [cell.text];
  if (cell.ratio !== null) {
    const interval = cell.ratio_low === null || cell.pairs < 2 || base ? ""
      : ` [${cell.ratio_low.toFixed(2)} ${cell.ratio_high.toFixed(2)}]`;
    const mark = cell.significant ? "*" : "";
    parts.push(element("small", {}, element("span", {
      class: "ratio", style: base ? "" : shade(cell.ratio, metric.direction),
    }, ratioText(cell.ratio) + mark), interval));
  }
  return element("td", { class: base ? "base" : "" }, ...parts);
}

function renderSummary() {
  const rows = summaryRows();
  const all = $("all-metrics").checked;
  const shown = data.metrics.filter((m) => (all || m.headline)
    && rows.some((r) => r[m.name] && r[m.name].value !== null));
  const arrows = { lower: "\u2193", higher: "\u2191" };
  const columns = [{
    key: "strategy", head: "strategy", word: true, value: (r) => r.strategy,
    cell: (r) => coloured(r.strategy),
  }, ...shown.map((m) => ({
    key: m.name, head: m.label, title: m.definition, up: m.direction === LOWER,
    note: [m.id, arrows[m.direction]].filter(Boolean).join(" "),
    value: (r) => r[m.name]?.value, cell: (r) => summaryCell(r[m.name], m, r.strategy),
  }))];
  fill("t-summary", columns, rows);
  const several = rows.some((r) => Object.values(r).some((c) => c.pairs > 1));
  $("legend").textContent = `1.00x is ${data.facts.baseline}; \u2193 lower is better, \u2191 higher is better: `
    + "green is better, red is worse. "
    + (several ? "[low high]: 95 % bootstrap interval over the pairs; * significant." : "");
}

const CARDS = [
  ["Bills closest to the truth", "charge_error_median"],
  ["Least slab memory", "slab_bytes_mean"],
  ["Least unaccounted", "unaccounted_share"],
  ["Least time for an allocation and its free", "pair_ns"],
];
function renderCards() {
  const rows = summaryRows();
  const base = data.facts.baseline;
  const cards = CARDS.map(([title, name]) => {
    const metric = metrics.get(name);
    // a design that charges nothing here wins by doing nothing
    const found = rows.filter((r) => r.strategy !== base && r[name] && r[name].value !== null
      && r.kmem_charged_mean?.value > 0)
      .sort((a, b) => (a[name].value - b[name].value) * (metric.direction === LOWER ? 1 : -1));
    if (!found.length) return null;
    const best = found[0][name];
    const ties = found.filter((r) => r[name].value === best.value).map((r) => r[name].strategy);
    const who = ties.length > 3 ? `${ties.slice(0, 2).join(", ")} and ${ties.length - 2} more`
      : ties.join(", ");
    const against = rows.find((r) => r.strategy === base)?.[name];
    return element("div", { class: "card" }, element("h3", {}, title),
      element("p", { class: "who", style: `--colour:${data.colours[best.strategy]}` },
        who),
      element("p", { class: "what" }, best.text, " ",
        element("span", {}, against?.value != null ? `${base}: ${against.text}` : "")));
  });
  $("cards").replaceChildren(...cards.filter(Boolean));
}

/** A table with a column per strategy, of rows named by `name`. */
function wide(source, name, value) {
  const rows = new Map();
  for (const r of source) {
    if (!rows.has(r[name])) rows.set(r[name], { ...r, by: {} });
    rows.get(r[name]).by[r.strategy] = value(r);
  }
  return [...rows.values()];
}
function strategyColumns(show, direction) {
  return strategies.filter((s) => state.on.has(s)).map((s) => ({
    key: s, head: coloured(s), value: (r) => r.by[s],
    cell: (r) => {
      const own = r.by[s];
      if (own === undefined) return "-";
      const base = r.by[data.facts.baseline];
      const marked = direction && base > 0 && s !== data.facts.baseline;
      return element("td", {}, element("span", {
        class: "ratio", style: marked ? shade(own / base, direction) : "",
        title: base > 0 ? ratioText(own / base) : undefined,
      }, show(own)));
    },
  }));
}

function renderPaths() {
  const rows = wide(chosen("paths"), "path", (r) => r.taken);
  const number = (n) => n.toLocaleString("en", { maximumSignificantDigits: 3 });
  fill("t-paths", [
    { key: "path", head: "path", word: true, value: (r) => r.path,
      cell: (r) => element("code", {}, r.path) },
    { key: "phase", head: "phase", word: true, value: (r) => r.phase, cell: (r) => r.phase },
    ...strategyColumns(number),
  ], rows);
}

function renderCaches() {
  const wanted = $("find-cache").value.toLowerCase();
  const rows = wide(chosen("caches"), "cache", (r) => r.slabs)
    .filter((r) => r.cache.toLowerCase().includes(wanted));
  const spread = (r) => Math.max(...Object.values(r.by)) - Math.min(...Object.values(r.by));
  if (!sorting["t-caches"]) rows.sort((a, b) => spread(b) - spread(a));
  if (!rows.some((r) => r.cache === state.cache)) state.cache = rows[0]?.cache || "";
  fill("t-caches", [
    { key: "cache", head: "cache", word: true, value: (r) => r.cache,
      cell: (r) => element("button", {
        type: "button", class: "link", "aria-pressed": r.cache === state.cache,
        onclick: () => {
          state.cache = r.cache;
          renderCaches();
          invalidate(["cache"]);
          document.querySelector("#t-caches .link[aria-pressed=true]")?.focus();
        },
      }, r.cache) },
    { key: "size", head: "object", value: (r) => r.object_size, cell: (r) => `${r.object_size} B` },
    ...strategyColumns(bytes, LOWER),
  ], rows, (r) => ({ "aria-selected": r.cache === state.cache }));
}

function renderRuns() {
  const wanted = $("find-run").value.toLowerCase();
  const rows = table("runs").filter((r) =>
    Object.values(r).some((v) => String(v ?? "").toLowerCase().includes(wanted)));
  const plain = (key, head, cell) => ({
    key, head, word: true, value: (r) => r[key], cell: cell || ((r) => String(r[key] ?? "-")),
  });
  const code = (key, head) => plain(key, head, (r) =>
    element("code", { title: r[key] }, r[key] || "-"));
  const count = (key, head) => ({
    key, head, value: (r) => r[key], cell: (r) => (r[key] ?? 0).toLocaleString("en"),
  });
  fill("t-runs", [
    code("run_id", "run"),
    plain("scenario", "scenario"), plain("strategy", "strategy"), count("seed", "seed"),
    count("events", "events"), plain("status", "status"),
    code("scenario_params", "workload"), code("strategy_params", "parameters"),
    code("workload_hash", "workload hash"), code("trace_hash", "trace hash"),
    plain("hardware", "hardware"), plain("era", "era"), count("cpus", "CPUs"),
    code("versions", "versions"),
  ], rows);
}

function renderSpeed() {
  const rows = table("speed");
  $("speed").hidden = !rows.length;
  const plain = (key, head) => ({
    key, head, word: true, value: (r) => r[key], cell: (r) => String(r[key] ?? "-"),
  });
  const number = (key, head, show) => ({ key, head, value: (r) => r[key], cell: (r) => show(r[key]) });
  fill("t-speed", [
    plain("benchmark", "benchmark"), plain("parameters", "parameters"), plain("machine", "machine"),
    { ...plain("commit", "commit"), cell: (r) => element("code", {}, r.commit.slice(0, 10)) },
    number("value", "value", (v) => v.toLocaleString("en", { maximumSignificantDigits: 4 })),
    plain("unit", "unit"), number("ratio", "ratio", (v) => (v === null ? "-" : ratioText(v))),
  ], rows);
}

function renderTables() {
  renderSummary();
  renderCards();
  renderPaths();
  renderCaches();
  renderRuns();
  renderSpeed();
}

function startTables() {
  $("all-metrics").onchange = renderSummary;
  $("find-cache").oninput = () => { renderCaches(); invalidate(["cache"]); };
  $("find-run").oninput = renderRuns;
  const f = data.facts;
  $("notes").replaceChildren(...f.notes.map((n) => element("li", {}, n)));
  const listed = table("runs").length;
  $("provenance").textContent = `Written by kmbench ${f.version} from ${f.folder}. The same run_id is `
    + "the same scenario, strategy, seed, versions and trace, and gives the same bytes again."
    + (listed < f.runs ? ` The first ${listed} runs of ${f.runs} are listed.` : "");
  $("definitions").replaceChildren(...data.metrics.flatMap((m) => [
    element("dt", {}, `${m.label} (${m.id})`), element("dd", {}, m.definition),
  ]));
}

start();
