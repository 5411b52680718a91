// Dead letters: the faults, and the letters of one.

import { get, getLines } from "./api.js";
import { h, put, s, text, toast } from "./dom.js";
import { clock, count, digest, everything, fits, plural, whole } from "./format.js";
import { allowed, discard, note, replay } from "./actions.js";
import { download } from "./exports.js";
import { rehearse } from "./rehearse.js";
import { age } from "./time.js";

const CAUSES = ["exhausted", "rejected", "max-deliver", "terminated", "lost", "gave-up", "undeliverable"];
const FIELDS = [
  ["handler", "Handler", "inventory"],
  ["code", "Code", "out-of-stock"],
  ["since", "Since", "2h, or a time"],
  ["text", "Text", "in error, header or payload"],
];

/** The address of a list with these conditions. */
const place = (conditions) => {
  const given = Object.entries(conditions).filter(([, value]) => value);
  return given.length ? `#/letters?${new URLSearchParams(given)}` : "#/letters";
};

/** How far it was looked, in words. */
export function looked({ looked_at, in_stream, back_to, unread }, what, goes_on) {
  const far = in_stream === null && !goes_on ? everything(looked_at, "letter") : `${goes_on ? "Reading: " : "Read "}${whole(looked_at)} of ${whole(in_stream)} (with resolved ones), newest first, back to ${clock(back_to)}`;
  return [h("span", {}, `${far}${what ? `; ${what}` : ""}.`), unread ? h("span", { class: "warn" }, unread) : null];
}

export function letters(main, _path, query) {
  const list = h("div", { class: "stack" }, h("p", { class: "loading" }, "Reading dead letters…"));
  const asList = Boolean(query.group || query.list || query.text);
  put(main,
    h("div", { class: "title" }, h("h1", {}, query.group ? `Group ${query.group}` : "Dead letters"),
      query.group ? h("a", { href: "#/letters" }, "All groups") : null, h("span", { class: "space" }),
      asList ? null : h("button", { type: "button", class: "plain", onclick: () => download(Object.keys(query).length ? { conditions: query } : { all: true }) }, "Export all…"),
      h("button", { type: "button", class: "plain", onclick: () => load() }, "Read again")),
    conditionsForm(query), list);
  let going = new AbortController();
  const load = async () => {
    going.abort();
    const own = (going = new AbortController());
    try {
      await (asList ? showLetters : showGroups)(list, query, own.signal);
    } catch (failed) {
      if (own.signal.aborted) return;
      // A failure is no empty list.
      put(list, h("p", { class: "note bad", role: "alert" }, `The dead letters could not be read: ${failed.message}`));
    }
  };
  load();
  // Another viewer, or this one, has changed them.
  const changed = () => load();
  addEventListener("letters-changed", changed);
  return () => {
    going.abort();
    removeEventListener("letters-changed", changed);
  };
}

function conditionsForm(query) {
  const fields = FIELDS.map(([name, label, hint]) => h("div", { class: "field" }, h("label", { for: `c-${name}` }, label),
    h("input", { id: `c-${name}`, name, value: query[name] ?? "", placeholder: hint, spellcheck: "false" })));
  const cause = h("select", { id: "c-cause", name: "cause" }, h("option", { value: "" }, "any"), CAUSES.map((one) => h("option", { value: one, selected: query.cause === one }, one)));
  const go = (event) => {
    event.preventDefault();
    const values = Object.fromEntries([...event.target.elements].filter((one) => one.name).map((one) => [one.name, one.value.trim()]));
    location.hash = place({ ...values, group: query.group, list: query.list });
  };
  return h("form", { class: "filters", role: "search", onsubmit: go }, fields,
    h("div", { class: "field" }, h("label", { for: "c-cause" }, "Cause"), cause),
    h("button", { type: "submit" }, "Apply"),
    Object.keys(query).length ? h("a", { class: "clear", href: "#/letters" }, "Clear") : null);
}

/** The groups of the newest letters at once, and of all letters while they are being read. */
async function showGroups(list, query, signal) {
  const table = groupsTable(query);
  let [stopped, last] = [false, null];
  const own = new AbortController();
  signal.addEventListener("abort", () => own.abort());
  const stop = h("button", { type: "button", class: "small", onclick: () => {
    stopped = true;
    own.abort();
    show(last);
  } }, "Stop counting");
  const show = (page) => {
    last = page;
    const { groups, groups_in_all, uncounted, looked: far, notes_unread, over } = page;
    if (groups.length === 0) return put(list, over ? none(query) : h("p", { class: "loading" }, "Reading dead letters…"), h("div", { class: "foot soft" }, looked(far, null, !over && !stopped)));
    if (!table.node.isConnected) put(list, table.node);
    table.update(groups);
    put(table.foot, looked(far, groups.length < groups_in_all ? `the largest ${groups.length} of ${count(groups_in_all)} groups are shown` : plural(groups.length, "group"), !over && !stopped), over || stopped ? null : stop,
      uncounted ? h("span", { class: "warn" }, `${plural(uncounted, "letter")} ${fits(uncounted, "is", "are")} of further groups.`) : null, notes_unread ? h("span", { class: "warn" }, `Notes could not be read: ${notes_unread}`) : null);
  };
  try {
    await getLines("groups", query, (page) => {
      if (page.error) throw new Error(page.error);
      show(page);
    }, own.signal);
  } catch (failed) {
    if (stopped) return;
    if (signal.aborted || !last) throw failed;
    // What was read till then stays.
    table.foot.append(h("span", { class: "bad" }, `The others could not be read: ${failed.message}`));
  }
}

/** A row stays the same element while more letters are read, so that a finger or a reader on it keeps its place. */
function groupsTable(query) {
  const rows = new Map();
  const body = h("tbody");
  const foot = h("div", { class: "foot" });
  const heads = [["Group"], ["Letters", "num"], ["Last 24 h", "c-share"], ["Handler"], ["Why"], ["Newest error"], ["First", "c-first"], ["Last"], ["Failed again", "num c-again"], ["Module", "c-module"], ["", ""]];
  const node = h("section", { class: "card", "aria-label": "Groups of dead letters" },
    h("div", { class: "scroll" }, h("table", { class: "groups" }, h("caption", { class: "sr" }, "Dead letters by fault, the largest first"),
      h("thead", {}, h("tr", {}, heads.map(([name, kind]) => h("th", { scope: "col", class: kind ?? "" }, name || h("span", { class: "sr" }, "more"))))), body)), foot);
  const update = (groups) => {
    const nodes = groups.map((one) => {
      let row = rows.get(one.group);
      if (!row) rows.set(one.group, (row = groupRow(one, query)));
      row.update(one);
      return row.node;
    });
    nodes.forEach((row, at) => {
      if (body.children[at] !== row) body.insertBefore(row, body.children[at] ?? null);
    });
    while (body.children.length > nodes.length) body.lastChild.remove();
  };
  return { node, foot, update };
}

function groupRow(one, query) {
  const conditions = { ...query, group: one.group };
  const [letters, unit, share, again] = [h("strong"), h("span", { class: "unit" }), h("td", { class: "c-share" }), h("td", { class: "num c-again" })];
  const [error, first, last] = [h("td", { class: "cut" }), h("td", { class: "nowrap soft c-first" }), h("td", { class: "nowrap" })];
  const node = h("tr", {},
    h("td", {}, h("a", { class: "mono", href: place(conditions) }, one.group)), h("td", { class: "num c-count" }, letters, unit), share,
    h("td", {}, one.handler), h("td", { class: "c-why" }, h("span", { class: "tag bad" }, one.cause), " ", one.code ? h("span", { class: "tag" }, one.code) : null),
    error, first, last, again, h("td", { class: "mono soft c-module" }, digest(one.module)),
    h("td", { class: "right nowrap" }, h("button", { type: "button", class: "small c-rehearse", onclick: () => rehearse({ conditions }) }, "Rehearse"), " ", allowed(h("button", { type: "button", class: "small", onclick: () => replay({ conditions }) }, "Replay"), "replay", { handlers: [one.handler] }), " ", h("button", { type: "button", class: "small c-export", onclick: () => download({ conditions }) }, "Export")));
  let known = "";
  const update = (now) => {
    const next = JSON.stringify(now);
    if (known === next) return;
    known = next;
    text(letters, count(now.count));
    text(unit, fits(now.count, " letter", " letters"));
    put(share, hours(now));
    error.title = now.error;
    put(error, now.error, now.note ? h("div", { class: "noted", title: `${words(now.note)} (${now.note.by}, ${clock(now.note.at)})` }, noted(now.note)) : null);
    put(first, age(now.first));
    put(last, age(now.last));
    text(again, now.failed_again ? count(now.failed_again) : "–");
  };
  return { node, update };
}

/** A note on a group, on one line. */
export const noted = (note) => [`${words(note)} (${note.by}, `, age(note.at), ")"];

const words = (note) => [note.owner ? `owner ${note.owner}` : null, note.text].filter(Boolean).join(": ");

/** How many died in each of the last 24 hours, as bars. */
function hours(one) {
  const most = Math.max(1, ...one.hours);
  const all = one.hours.reduce((sum, n) => sum + n, 0);
  const bars = one.hours.map((n, at) => s("rect", { class: n ? "" : "none", x: at * 4, width: 3, y: n ? 22 - Math.max(2, (n / most) * 22) : 21, height: n ? Math.max(2, (n / most) * 22) : 1 }));
  return s("svg", { class: "hours", viewBox: "0 0 96 22", width: 96, height: 22, role: "img", "aria-label": `${count(all)} in the last 24 hours, ${count(one.hours.at(-1))} in the last hour` }, s("title", {}, `${count(all)} in the last 24 hours, ${count(one.hours.at(-1))} in the last hour`), bars);
}

function none(query) {
  const any = Object.keys(query).length > 0;
  return h("div", { class: "card empty" }, h("strong", {}, any ? "No dead letters of this kind" : "No dead letters"),
    any ? "No letter that was read meets all of the conditions." : "Every event that was decided is done, or was resolved.");
}

/** Letters in one go. */
const PAGE = 100;

async function showLetters(list, query, signal) {
  const { list: _list, ...conditions } = query;
  const chosen = new Set();
  const body = h("tbody");
  const foot = h("div", { class: "foot" });
  const all = h("input", { type: "checkbox", "aria-label": "Select all that are shown", onchange: () => {
    for (const box of body.querySelectorAll("input")) {
      box.checked = all.checked;
      (all.checked ? chosen.add(box.value) : chosen.delete(box.value));
    }
    told();
  } });
  // What the buttons are about: the letters that are selected, or all that meet the conditions.
  const named = Object.keys(conditions).length > 0;
  const selection = () => (chosen.size ? { ids: [...chosen] } : named ? { conditions } : { all: true });
  const acts = [["Rehearse", rehearse], ["Replay", replay, "main"], ["Export", download], ["Discard", discard, "danger"]].map(([verb, act, kind]) => ({ verb, node: h("button", { type: "button", class: kind ?? "", onclick: () => act(selection()) }) }));
  // The letters of a group, or of a handler, are of one handler: the first tells which.
  let asked = !(query.group || query.handler);
  const ask = (handlers) => {
    if (asked) return;
    asked = true;
    for (const { verb, node } of acts) if (verb === "Replay" || verb === "Discard") allowed(node, verb.toLowerCase(), { handlers });
  };
  const told = () => {
    const about = chosen.size ? `${chosen.size} selected` : query.group ? "the group" : "all of these";
    for (const { verb, node } of acts) {
      text(node, `${verb} ${about}`);
      node.disabled = chosen.size === 0 && !named && verb !== "Export";
    }
    all.indeterminate = chosen.size > 0 && chosen.size < body.children.length;
  };
  const row = (one) => h("tr", {},
    h("td", { class: "c-box" }, h("input", { type: "checkbox", value: one.id, "aria-label": `Select ${one.id}`, onchange: (event) => {
      (event.target.checked ? chosen.add(one.id) : chosen.delete(one.id));
      told();
    } })),
    h("td", {}, h("a", { class: "mono", href: `#/letter/${encodeURIComponent(one.id)}` }, one.id)),
    h("td", { class: "nowrap" }, age(one.dead_since)),
    h("td", { class: "c-why" }, h("span", { class: "tag bad" }, one.cause), " ", one.code ? h("span", { class: "tag" }, one.code) : null),
    h("td", { class: "num c-attempts" }, one.attempts || "–"),
    h("td", { class: "mono soft c-subject" }, one.event_subject),
    h("td", { class: "cut", title: one.error }, one.error));
  const card = h("section", { class: "card", "aria-label": "Dead letters" },
    h("div", { class: "head" }, acts.map((one) => one.node), h("span", { class: "space" }), query.group ? allowed(h("button", { type: "button", onclick: () => note(query.group) }, "Note…"), "note") : null),
    h("div", { class: "scroll" }, h("table", { class: "letters" }, h("caption", { class: "sr" }, "Dead letters, the newest first"),
      h("thead", {}, h("tr", {}, [h("th", { scope: "col" }, all), ...["Letter", "Dead", "Why"].map((name) => h("th", { scope: "col" }, name)), h("th", { scope: "col", class: "num c-attempts" }, "Attempts"), h("th", { scope: "col", class: "c-subject" }, "Subject"), h("th", { scope: "col" }, "Error")])), body)),
    foot);
  told();
  const far = { looked_at: 0, in_stream: null, back_to: null, unread: null };
  let [before, going] = [null, null];
  const show = () => {
    const shown = body.children.length;
    if (shown && !card.isConnected) put(list, card);
    const parts = [looked(far, shown ? `${plural(shown, "letter")} shown` : null, Boolean(going)),
      going ? h("button", { type: "button", class: "small", onclick: () => going.abort() }, "Stop looking") : before === null ? null : h("button", { type: "button", class: "small", onclick: () => next().catch((failed) => toast(failed.message)) }, shown ? "Show older ones" : "Look further")];
    if (shown) put(foot, parts);
    else put(list, going ? h("p", { class: "loading" }, "Looking for letters of this kind…") : none(query), h("div", { class: "foot soft" }, parts));
  };
  /** Looks until a page is full, a moment at a time, so that it is seen how far it is and can be stopped. */
  const next = async () => {
    const own = (going = new AbortController());
    const ended = () => own.abort();
    signal.addEventListener("abort", ended);
    const full = body.children.length + PAGE;
    try {
      do {
        const page = await get("letters", { ...conditions, before }, own.signal);
        body.append(...page.letters.map(row));
        if (page.letters.length) ask([page.letters[0].id.split(".")[0]]);
        before = page.before;
        Object.assign(far, page.looked, { looked_at: far.looked_at + page.looked.looked_at, in_stream: before === null ? null : page.looked.in_stream ?? far.in_stream, back_to: page.looked.back_to ?? far.back_to, unread: far.unread ?? page.looked.unread });
        show();
      } while (before !== null && body.children.length < full && !own.signal.aborted);
    } catch (failed) {
      if (signal.aborted || (!own.signal.aborted && body.children.length === 0)) throw failed;
      if (!own.signal.aborted) toast(`Older letters could not be read: ${failed.message}`);
    } finally {
      signal.removeEventListener("abort", ended);
      going = null;
    }
    show();
    told();
  };
  await next();
}
