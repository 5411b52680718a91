// Now: how each handler stands, and what flows where.

import { get, getLines, me } from "./api.js";
import { spark } from "./charts.js";
import { h, look, put, text } from "./dom.js";
import { count, digest, fits, plural, rate, took } from "./format.js";
import { live } from "./live.js";
import { picture } from "./picture.js";
import { lasting } from "./time.js";
import { tryIt } from "./tryit.js";

/** How often it is asked what waits. */
const EVERY = 5000;
// A mesh that takes long to ask is asked less often: at most a tenth of the time goes into it.
const SHARE = 10;
/** Rows that are shown; a filter finds the others. */
const ROWS_MAX = 200;
const STATES = { serving: "ok", paused: "hold", degraded: "warn", connecting: "warn", starting: "warn", stopped: "bad", unserved: "bad", unknown: "warn" };

const COLUMNS = [
  ["handler", "Handler", (row) => row.name],
  ["chart", "Last 5 min"],
  ["rate", "Events/s", (row) => row.live?.rate.last || 0, true],
  ["p50", "p50", (row) => row.live?.p50 || 0, true],
  ["p99", "p99", (row) => row.live?.p99 || 0, true],
  ["waiting", "Waiting", (row) => row.status?.pending ?? 0, true],
  ["oldest", "Oldest", (row) => (row.status?.oldest ? -Date.parse(row.status.oldest) : -Infinity), true],
  ["retrying", "Retrying", (row) => row.status?.retrying ?? 0, true],
  ["dead", "Dead", (row) => row.dead ?? 0, true],
  ["module", "Module", (row) => row.status?.module ?? ""],
];

export function now(main) {
  const tiles = ["Events/s", "Failed attempts/s", "Waiting", "Dead letters"].map(tile);
  tiles[2].set("–", null, "", "being asked…");
  tiles[3].set("–", null, "", "being counted…");
  const notes = h("div", { class: "stack notes" });
  const drawing = h("div", { class: "body" }, h("p", { class: "loading" }, "Loading…"));
  const table = handlers();
  const read = h("span", {}, "");
  put(main,
    h("div", { class: "title" }, h("h1", {}, "Now"), h("span", { class: "space" }), h("span", { class: "soft", id: "hosts" })),
    notes,
    h("div", { class: "tiles" }, tiles.map((one) => one.node)),
    me.session.publishes ? h("div", { id: "try" }) : null,
    h("section", { class: "card", "aria-label": "Handlers" }, h("div", { class: "head" }, h("h2", {}, "Handlers"), table.filter), h("div", { class: "scroll" }, table.node), h("div", { class: "foot" }, table.foot, h("span", { class: "space" }), read)),
    h("section", { class: "card", "aria-label": "The mesh" }, h("div", { class: "head" }, h("h2", {}, "The mesh"), h("span", { class: "soft" }, "by the configuration: streams, handlers, and where these emit")), drawing));
  let [status, dead, drawn, mesh] = [null, null, null, null];
  const ending = new AbortController();
  const sampled = () => {
    const unknown = live.state !== "live";
    const [done, failed] = unknown ? [NaN, NaN] : [live.rate.last, live.failed.last];
    tiles[0].set(rate(done), live.rate.list());
    tiles[1].set(rate(failed), live.failed.list(), failed > 0 ? "warn" : "");
    const hosts = main.querySelector("#hosts");
    if (hosts) text(hosts, unknown ? live.why : live.hosts.length ? `${plural(live.hosts.length, "host")} answer${live.hosts.length === 1 ? "s" : ""}` : "no host answers");
    table.update(status, dead, mesh);
    drawn?.update(live);
  };
  const stop = [rhythm(async () => {
    try {
      // What waits for each handler comes as it is known; the others keep their figures from before.
      const part = new Map();
      await getLines("status", {}, (line) => {
        if (line.error) throw new Error(line.error);
        if (line.status) status = line.status;
        else {
          for (const one of line.handlers) part.set(one.handler, one);
          const before = status?.handlers.filter((one) => !part.has(one.handler)) ?? [];
          table.update({ handlers: [...before, ...part.values()] }, dead, mesh);
        }
      }, ending.signal);
      text(read, `What waits was asked ${new Date().toISOString().slice(11, 19)}Z`);
      look(read, "");
      const sum = (key) => total(status.handlers.map((one) => one[key]));
      const oldest = status.handlers.map((one) => one.oldest).filter(Boolean).sort()[0];
      tiles[2].set(sum("pending"), null, "", oldest ? ["oldest ", lasting(oldest)] : `${sum("in_flight")} in flight`);
      put(notes, attention(status, dead));
    } catch (failed) {
      if (ending.signal.aborted) return;
      text(read, `What waits is not known: ${failed.message}`);
      look(read, "bad");
    }
    sampled();
  }), rhythm(async () => {
    try {
      dead = await get("dead");
      if (!dead.dead) throw new Error(dead.unknown[0].why);
      const all = Object.values(dead.dead).reduce((sum, one) => sum + one, 0);
      tiles[3].set(count(all), null, all > 0 ? "bad" : "", `counted ${new Date().toISOString().slice(11, 19)}Z`);
      dispatchEvent(new CustomEvent("dead", { detail: all }));
    } catch (failed) {
      dead = null;
      tiles[3].set("–", null, "", `not known: ${failed.message}`);
    }
    sampled();
  })];
  get("mesh").then((answer) => {
    mesh = answer;
    drawn = picture(mesh);
    const place = main.querySelector("#try");
    if (place) put(place, tryIt(mesh));
    put(drawing, drawn.node);
    sampled();
  }, (failed) => put(drawing, h("p", { class: "note bad" }, failed.message)));
  live.addEventListener("sample", sampled);
  return () => {
    for (const end of stop) end();
    ending.abort();
    live.removeEventListener("sample", sampled);
  };
}

/** A sum; with a `+` if some of it is not known. */
function total(all) {
  const known = all.filter((one) => one !== null);
  if (known.length === 0 && all.length > 0) return "–";
  return count(known.reduce((sum, one) => sum + one, 0)) + (known.length < all.length ? "+" : "");
}

/** Asks every five seconds, or less often where asking takes long; not for a page that is not seen. Returns what ends it. */
function rhythm(ask) {
  let [timer, ended] = [undefined, false];
  const next = async () => {
    const began = performance.now();
    if (!document.hidden) await ask();
    if (!ended) timer = setTimeout(next, Math.max(EVERY, SHARE * (performance.now() - began)));
  };
  next();
  return () => {
    ended = true;
    clearTimeout(timer);
  };
}

function tile(name) {
  const value = h("div", { class: "value" }, "–");
  const more = h("div", { class: "more" });
  const chart = spark(240, 40, `${name}, the last five minutes`);
  const node = h("div", { class: "card tile" }, h("div", { class: "name" }, name), value, more);
  const set = (figure, values, kind = "", under = "") => {
    text(value, figure);
    look(value, `value ${kind}`);
    if (values) {
      if (!chart.svg.isConnected) put(more, chart.svg);
      chart.update(values);
    } else put(more, under);
  };
  return { node, set };
}

/** What a person should look at. */
function attention(status, dead) {
  const lines = [];
  for (const one of status.handlers) {
    const why = one.why ?? one.note;
    if (!["serving", "paused"].includes(one.state)) lines.push(["bad", `${one.handler} is ${one.state}${why ? `: ${why}` : ""}`]);
    if (one.modules.length > 1) lines.push(["", `hosts serve ${one.handler} with ${one.modules.length} modules: ${one.modules.map((m) => `${digest(m.module)} on ${m.hosts}`).join(", ")}`]);
    for (const taken of one.modules_not_taken) lines.push(["", `${one.handler} serves an older module than its file has: ${taken.why}`]);
  }
  for (const one of status.ledgers) {
    if (one.state !== "works") lines.push(["bad", `ledger ${one.ledger} is ${one.state}: ${one.why}`]);
    if (!["works", "blocked"].includes(one.relay.state)) lines.push(["bad", `the relay of ${one.ledger} is ${one.relay.state}: ${one.relay.why}`]);
    for (const target of one.relay.blocked) lines.push(["bad", blocked(one.ledger, target)]);
  }
  for (const one of status.outboxes) if (one.why) lines.push(["", `outbox ${one.outbox} is ${one.state}: ${one.why}`]);
  if (status.delayed?.late_since) lines.push(["bad", ["delayed events have been late for ", lasting(status.delayed.late_since), ": no host publishes them"]]);
  for (const one of status.unknown) lines.push(["bad", `${one.what} is not known: ${one.why}`]);
  for (const one of [...status.warnings, ...(dead?.warnings ?? [])]) lines.push(["", one]);
  return lines.slice(0, 12).map(([kind, line]) => h("p", { class: `note ${kind}` }, h("span", {}, line)))
    .concat(lines.length > 12 ? [h("p", { class: "note" }, `and ${lines.length - 12} more: jetmesh status shows all`)] : []);
}

/** A target that takes nothing of what a relay publishes, since when, what waits for it, and what to do. */
function blocked(ledger, { target, why, since, waiting, letters }) {
  const what = [];
  if (waiting) what.push(`${plural(waiting, "event")} ${fits(waiting, "waits", "wait")} for it`);
  if (letters) what.push(h("span", {}, `${plural(letters, "event")} became `, h("a", { href: "#/letters?cause=undeliverable" }, fits(letters, "a dead letter", "dead letters"))));
  return [h("strong", {}, target), ` has taken nothing from the relay of ${ledger} for `, lasting(since), `: ${why}. `, what.map((one, at) => [at ? ", and " : "", one]), what.length ? ". " : "",
    why.includes("no stream captures") ? ["Add a stream that captures it (", h("code", {}, "nats stream add"), ")"] : ["Make room, or raise its limits (", h("code", {}, `nats stream edit ${target}`), ")"],
    "; then ", h("code", {}, "jetmesh dlq replay --cause undeliverable"), " publishes what became dead letters."];
}

/** The table. A row stays the same element while it is shown, so that a finger or a reader on it keeps its place. */
function handlers() {
  const rows = new Map();
  const body = h("tbody");
  const foot = h("span");
  const filter = h("input", { type: "search", placeholder: "Filter handlers", "aria-label": "Filter handlers", oninput: () => draw() });
  let [sorted, down, known] = ["handler", false, []];
  const heads = COLUMNS.map(([id, name, key, number]) => h("th", { class: number ? "num" : "", scope: "col" },
    key ? h("button", { type: "button", onclick: () => { down = sorted === id ? !down : Boolean(number); sorted = id; draw(); } }, name) : name));
  const node = h("table", { class: "handlers" }, h("caption", { class: "sr" }, "Handlers"), h("thead", {}, h("tr", {}, heads)), body);
  const draw = () => {
    const wanted = filter.value.trim().toLowerCase();
    const key = COLUMNS.find(([id]) => id === sorted)[2];
    const shown = known.filter((row) => row.name.toLowerCase().includes(wanted));
    shown.sort((a, b) => (key(a) < key(b) ? -1 : key(a) > key(b) ? 1 : a.name < b.name ? -1 : 1) * (down ? -1 : 1));
    COLUMNS.forEach(([id], at) => (id === sorted ? heads[at].setAttribute("aria-sort", down ? "descending" : "ascending") : heads[at].removeAttribute("aria-sort")));
    const first = shown.slice(0, ROWS_MAX);
    const nodes = first.map((row) => {
      if (!rows.has(row.name)) rows.set(row.name, newRow(row.name));
      const one = rows.get(row.name);
      one.update(row);
      return one.node;
    });
    if (nodes.length !== body.children.length || nodes.some((one, at) => body.children[at] !== one)) put(body, nodes);
    text(foot, first.length < shown.length ? `${first.length} of ${plural(shown.length, "handler")}: filter or sort to see the others` : plural(shown.length, "handler"));
  };
  const update = (status, dead, mesh) => {
    const names = new Set([...(mesh?.handlers ?? []).map((one) => one.handler), ...live.handlers.keys()]);
    const by = new Map((status?.handlers ?? []).map((one) => [one.handler, one]));
    known = [...names].map((name) => ({ name, live: live.handlers.get(name), status: by.get(name), dead: dead ? dead.dead[name] ?? 0 : undefined }));
    draw();
  };
  return { node, update, filter, foot };
}

function newRow(name) {
  const chart = spark(120, 24, `${name}: events per second in the last five minutes`);
  const dot = h("span", { class: "dot" });
  const state = h("span", { class: "faint" });
  const cells = Object.fromEntries(COLUMNS.map(([id, , , number]) => [id, h("td", { class: `${number ? "num " : ""}c-${id}` })]));
  put(cells.handler, h("div", { class: "who-is" }, dot, h("strong", {}, name), state));
  put(cells.chart, chart.svg);
  put(cells.dead, h("a", { href: `#/letters?handler=${encodeURIComponent(name)}` }));
  put(cells.retrying, h("a", { href: `#/waiting?handler=${encodeURIComponent(name)}` }));
  const node = h("tr", {}, Object.values(cells));
  let oldest = 0;
  const update = ({ live: one, status, dead }) => {
    const word = status?.state ?? (one?.now.serving ? "serving" : "…");
    look(dot, `dot ${STATES[word] ?? ""}`);
    text(state, word === "serving" ? "" : word);
    node.title = status?.why ?? "";
    if (one) chart.update(one.rate.list());
    text(cells.rate, rate(one?.rate.last));
    text(cells.p50, took(one?.p50));
    text(cells.p99, took(one?.p99));
    text(cells.waiting, count(status?.pending));
    if (oldest !== status?.oldest) put(cells.oldest, (oldest = status?.oldest) ? lasting(oldest) : "–");
    text(cells.retrying.firstChild, count(status?.retrying));
    text(cells.dead.firstChild, count(dead));
    look(cells.dead.firstChild, dead > 0 ? "bad" : "faint");
    look(cells.retrying.firstChild, status?.retrying > 0 ? "warn" : "faint");
    text(cells.module, status?.module ? status.module.split(",").map(digest).join(", ") : "–");
  };
  return { node, update };
}
