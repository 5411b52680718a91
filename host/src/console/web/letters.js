// Dead letters: the faults, and the letters of one.

import { get } from "./api.js";
import { h, put, s, text, toast } from "./dom.js";
import { ago, clock, count, digest, plural } from "./format.js";
import { discard, download, note, replay } from "./actions.js";
import { rehearse } from "./rehearse.js";

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
export function looked({ looked_at, in_stream, back_to, unread }, what) {
  const far = in_stream === null ? `All ${plural(looked_at, "letter")} were read` : `Read ${count(looked_at)} of ${count(in_stream)} (with resolved ones), newest first, back to ${clock(back_to)}`;
  return [h("span", {}, `${far}${what ? `; ${what}` : ""}.`), unread ? h("span", { class: "warn" }, unread) : null];
}

export function letters(main, _path, query) {
  const list = h("div", { class: "stack" }, h("p", { class: "loading" }, "Reading dead letters…"));
  put(main,
    h("div", { class: "title" }, h("h1", {}, query.group ? `Group ${query.group}` : "Dead letters"),
      query.group ? h("a", { href: "#/letters" }, "All groups") : null, h("span", { class: "space" }),
      h("button", { type: "button", class: "plain", onclick: () => load() }, "Read again")),
    conditionsForm(query), list);
  const asList = Boolean(query.group || query.list || query.text);
  const load = async () => {
    try {
      if (asList) await showLetters(list, query);
      else await showGroups(list, query);
    } catch (failed) {
      // A failure is no empty list.
      put(list, h("p", { class: "note bad", role: "alert" }, `The dead letters could not be read: ${failed.message}`));
    }
  };
  load();
  // Another viewer, or this one, has changed them.
  const changed = () => load();
  addEventListener("letters-changed", changed);
  return () => removeEventListener("letters-changed", changed);
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

async function showGroups(list, query) {
  const { groups, groups_in_all, looked: far, notes_unread } = await get("groups", query);
  if (groups.length === 0) return put(list, none(query), h("div", { class: "soft" }, looked(far)));
  const rows = groups.map((one) => h("tr", {},
    h("td", {}, h("a", { class: "mono", href: place({ ...query, group: one.group }) }, one.group)),
    h("td", { class: "num" }, h("strong", {}, count(one.count))),
    h("td", { class: "c-share" }, hours(one)),
    h("td", {}, one.handler),
    h("td", {}, h("span", { class: "tag bad" }, one.cause), " ", one.code ? h("span", { class: "tag" }, one.code) : null),
    h("td", { class: "cut", title: one.error }, one.error, one.note ? h("div", { class: "noted", title: noted(one.note) }, noted(one.note)) : null),
    h("td", { class: "nowrap soft c-first", title: one.first }, ago(one.first)),
    h("td", { class: "nowrap", title: one.last }, ago(one.last)),
    h("td", { class: "num c-again" }, one.failed_again ? count(one.failed_again) : "–"),
    h("td", { class: "mono soft c-module" }, digest(one.module)),
    h("td", { class: "right nowrap" }, h("button", { type: "button", class: "small c-rehearse", onclick: () => rehearse({ conditions: { ...query, group: one.group } }) }, "Rehearse"), " ", h("button", { type: "button", class: "small", onclick: () => replay({ conditions: { ...query, group: one.group } }) }, "Replay"))));
  const heads = [["Group"], ["Letters", "num"], ["Last 24 h", "c-share"], ["Handler"], ["Why"], ["Newest error"], ["First", "c-first"], ["Last"], ["Failed again", "num c-again"], ["Module", "c-module"], ["", ""]];
  put(list, h("section", { class: "card", "aria-label": "Groups of dead letters" },
    h("div", { class: "scroll" }, h("table", { class: "groups" }, h("caption", { class: "sr" }, "Dead letters by fault, the largest first"),
      h("thead", {}, h("tr", {}, heads.map(([name, kind]) => h("th", { scope: "col", class: kind ?? "" }, name || h("span", { class: "sr" }, "more"))))), h("tbody", {}, rows))),
    h("div", { class: "foot" }, looked(far, groups.length < groups_in_all ? `the largest ${groups.length} of ${count(groups_in_all)} groups are shown` : plural(groups.length, "group")), notes_unread ? h("span", { class: "warn" }, `Notes could not be read: ${notes_unread}`) : null)));
}

/** A note on a group, on one line. */
export const noted = (note) => `${[note.owner ? `owner ${note.owner}` : null, note.text].filter(Boolean).join(": ")} (${note.by}, ${ago(note.at)})`;

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

async function showLetters(list, query) {
  const { list: _list, ...conditions } = query;
  let page = await get("letters", conditions);
  if (page.letters.length === 0) return put(list, none(query), h("div", { class: "soft" }, looked(page.looked)));
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
  const whole = Object.keys(conditions).length > 0;
  const selection = () => (chosen.size ? { ids: [...chosen] } : { conditions });
  const acts = [["Rehearse", rehearse], ["Replay", replay, "main"], ["Export", download], ["Discard", discard, "danger"]].map(([verb, act, kind]) => ({ verb, node: h("button", { type: "button", class: kind ?? "", onclick: () => act(selection()) }) }));
  const told = () => {
    const about = chosen.size ? `${chosen.size} selected` : query.group ? "the group" : "all of these";
    for (const { verb, node } of acts) {
      text(node, `${verb} ${about}`);
      node.disabled = chosen.size === 0 && !whole;
    }
    all.indeterminate = chosen.size > 0 && chosen.size < body.children.length;
  };
  const row = (one) => h("tr", {},
    h("td", { class: "c-box" }, h("input", { type: "checkbox", value: one.id, "aria-label": `Select ${one.id}`, onchange: (event) => {
      (event.target.checked ? chosen.add(one.id) : chosen.delete(one.id));
      told();
    } })),
    h("td", {}, h("a", { class: "mono", href: `#/letter/${encodeURIComponent(one.id)}` }, one.id)),
    h("td", { class: "nowrap", title: one.dead_since }, ago(one.dead_since)),
    h("td", {}, h("span", { class: "tag bad" }, one.cause), " ", one.code ? h("span", { class: "tag" }, one.code) : null),
    h("td", { class: "num c-attempts" }, one.attempts || "–"),
    h("td", { class: "mono soft c-subject" }, one.event_subject),
    h("td", { class: "cut", title: one.error }, one.error));
  const add = () => {
    body.append(...page.letters.map(row));
    const more = page.before === null ? null : h("button", { type: "button", class: "small", onclick: next }, "Show older ones");
    put(foot, looked(page.looked, `${plural(body.children.length, "letter")} shown`), more);
  };
  const next = async (event) => {
    event.target.disabled = true;
    try {
      page = await get("letters", { ...conditions, before: page.before });
      add();
    } catch (failed) {
      event.target.disabled = false;
      toast(`Older letters could not be read: ${failed.message}`);
    }
  };
  add();
  told();
  put(list, h("section", { class: "card", "aria-label": "Dead letters" },
    h("div", { class: "head" }, acts.map((one) => one.node), h("span", { class: "space" }), query.group ? h("button", { type: "button", onclick: () => note(query.group) }, "Note…") : null),
    h("div", { class: "scroll" }, h("table", { class: "letters" }, h("caption", { class: "sr" }, "Dead letters, the newest first"),
      h("thead", {}, h("tr", {}, [h("th", { scope: "col" }, all), ...["Letter", "Dead", "Why"].map((name) => h("th", { scope: "col" }, name)), h("th", { scope: "col", class: "num c-attempts" }, "Attempts"), h("th", { scope: "col", class: "c-subject" }, "Subject"), h("th", { scope: "col" }, "Error")])), body)),
    foot));
}
