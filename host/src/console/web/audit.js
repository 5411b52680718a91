// Audit: what people have changed, with commands or here.

import { get } from "./api.js";
import { command, h, put } from "./dom.js";
import { clock, fits, plural } from "./format.js";

export function audit(main, _path, query) {
  const list = h("section", { class: "card", "aria-label": "Actions" }, h("p", { class: "loading pad" }, "Reading…"));
  const filters = h("div");
  const load = async () => {
    try {
      const answer = await get("audit", query);
      put(filters, form(answer.actions, query));
      put(list, table(answer), foot(answer.looked, answer.records.length));
    } catch (failed) {
      put(list, h("p", { class: `note ${failed.status === 404 ? "info" : "bad"}`, role: "alert" }, `What was changed could not be read: ${failed.message}`));
    }
  };
  put(main, h("div", { class: "title" }, h("h1", {}, "Audit"), h("span", { class: "soft" }, "who has changed what, and why"), h("span", { class: "space" }), h("button", { type: "button", class: "plain", onclick: load }, "Read again")), filters, list);
  load();
}

function form(actions, query) {
  const action = h("select", { id: "a-action" }, h("option", { value: "" }, "any"), actions.map((name) => h("option", { value: name, selected: name === query.action }, name)));
  const by = h("input", { id: "a-by", value: query.by ?? "", placeholder: "a part of the name", spellcheck: "false" });
  const on = h("input", { id: "a-on", value: query.on ?? "", placeholder: "a handler, for instance", spellcheck: "false" });
  const since = h("input", { id: "a-since", value: query.since ?? "", placeholder: "such as 90m, 2days", spellcheck: "false" });
  const go = (event) => {
    event.preventDefault();
    const given = { action: action.value, by: by.value.trim(), on: on.value.trim(), since: since.value.trim() };
    location.hash = `#/audit?${new URLSearchParams(Object.entries(given).filter(([, value]) => value))}`;
  };
  const field = (name, label, input) => h("div", { class: "field" }, h("label", { for: name }, label), input);
  return h("form", { class: "filters", role: "search", onsubmit: go }, field("a-action", "Action", action), field("a-by", "By", by), field("a-on", "On", on), field("a-since", "Since", since), h("button", { type: "submit" }, "Apply"));
}

function table({ records, ended }) {
  if (records.length === 0) return h("div", { class: "empty" }, h("strong", {}, "No such action"), "No record of those that were read meets the conditions.");
  const kind = (end) => (end === null ? "warn" : end.ok ? "ok" : "bad");
  const row = (one, at) => h("tr", {},
    h("td", { class: "nowrap", title: one.at }, clock(one.at)), h("td", { class: "break" }, one.by, one.user ? null : [" ", h("span", { class: "tag", title: "the server has authenticated no user for it" }, "claimed")], one.user && one.user !== one.by && !one.by.startsWith(`${one.user} (`) ? h("div", { class: "mono soft" }, `user ${one.user}`) : null, h("div", { class: "soft" }, one.from === "cli" ? "by command" : "at a console")),
    h("td", {}, h("strong", {}, one.action), h("div", { class: "mono soft break" }, one.on.join(" "))), h("td", { class: "break full" }, one.what, one.reason ? h("div", { class: "soft" }, one.reason) : null),
    h("td", { class: "break" }, h("span", { class: `tag ${kind(one.end)}` }, one.end === null ? "not ended" : one.end.ok ? "done" : "failed"), " ", one.end === null ? "it goes on, or was broken off" : ended[at] === "done" ? "" : ended[at]),
    h("td", { class: "c-subject" }, one.command ? h("details", {}, h("summary", {}, "Command"), command(one.command)) : null));
  return h("div", { class: "scroll" }, h("table", { class: "audit cards" }, h("thead", {}, h("tr", {}, ["When", "By", "Action", "What, and why", "Ended"].map((name) => h("th", { scope: "col" }, name)), h("th", { scope: "col", class: "c-subject" }, "The same by command"))), h("tbody", {}, records.map(row))));
}

const foot = (looked, shown) => h("div", { class: "foot" },
  looked.back_to ? `${plural(looked.looked_at, "record")} ${fits(looked.looked_at, "was", "were")} read, back to ${clock(looked.back_to)}. ` : "There is no record. ",
  looked.meant > shown ? `Shown: the newest ${shown} of ${looked.meant}; use conditions. ` : null,
  looked.more ? "There are older ones: jetmesh audit reads all." : null,
  looked.unreadable ? h("span", { class: "warn" }, `${plural(looked.unreadable, "message")} could not be read.`) : null);
