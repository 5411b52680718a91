// Modules: which host serves which handler with which.

import { get } from "./api.js";
import { h, put } from "./dom.js";
import { count, digest, plural } from "./format.js";
import { registryCards } from "./registry.js";
import { age, lasting } from "./time.js";

export function modules(main) {
  const body = h("div", { class: "stack" }, h("p", { class: "loading" }, "Asking the hosts…"));
  const load = async () => {
    try {
      const answer = await get("modules");
      put(body, handlersCard(answer), registryCards(load), hostsCard(answer));
    } catch (failed) {
      put(body, h("p", { class: "note bad", role: "alert" }, `The hosts could not be asked: ${failed.message}`));
    }
  };
  put(main, h("div", { class: "title" }, h("h1", {}, "Modules"), h("span", { class: "space" }), h("button", { type: "button", class: "plain", onclick: load }, "Ask again")), body);
  load();
}

const head = (names) => h("thead", {}, h("tr", {}, names.map((name) => h("th", { scope: "col" }, name))));

function handlersCard({ handlers, files, hosts }) {
  const names = [...new Set([...Object.keys(files), ...Object.keys(handlers)])].sort();
  const rows = names.flatMap((name) => {
    const all = Object.entries(handlers[name] ?? {});
    if (all.length === 0) return [h("tr", {}, h("td", {}, h("strong", {}, name)), h("td", { class: "soft", colspan: 3 }, "no host that answers serves it"), h("td", { class: "mono soft break c-file" }, files[name] ?? ""))];
    return all.map(([module, { hosts: on }], at) => h("tr", {},
      h("td", {}, at === 0 ? h("strong", {}, name) : null, at === 0 && all.length > 1 ? h("span", { class: "tag warn" }, `${all.length} modules`) : null),
      h("td", { class: "mono", title: module }, digest(module)),
      h("td", {}, plural(on.length, "host"), h("span", { class: "soft" }, ` of ${hosts.length}`), h("div", { class: "mono soft" }, on.slice(0, 6).map((one) => one.host).join(" "), on.length > 6 ? " …" : ""),
        on.filter((one) => one.not_taken).map((one) => h("div", { class: "warn break" }, `${one.host}: ${one.not_taken}`)),
        canary(on.map((one) => one.rollout).filter(Boolean))),
      h("td", { class: "nowrap", "data-name": "for" }, lasting(on.map((one) => one.since).sort().at(-1))),
      h("td", { class: "mono soft break c-file" }, at === 0 ? files[name] ?? "not in the configuration here" : "")));
  });
  return h("section", { class: "card", "aria-label": "Modules by handler" }, h("div", { class: "head" }, h("h2", {}, "By handler"), h("span", { class: "soft" }, "more than one module outside of a rolling update is a mistake")),
    h("div", { class: "scroll" }, h("table", { class: "cards" }, head(["Handler", "Module", "Served by", "For", "From, by the configuration"]), h("tbody", {}, rows))));
}

/** What takes over step by step, by the host that knows most of it. */
function canary(told) {
  const newest = told.sort((a, b) => b.on_canary + b.on_serving - a.on_canary - a.on_serving)[0];
  if (!newest) return null;
  const failed = (failed, all) => `${count(failed)} of ${count(all)}`;
  return h("div", { class: "break" }, h("span", { class: "tag warn" }, newest.stage === "shadow" ? "shadow" : `canary ${newest.share * 100} %`), ` ${digest(newest.canary)}: ${failed(newest.canary_failed, newest.on_canary)} failed on it, ${failed(newest.serving_failed, newest.on_serving)} on this one; evidence ${newest.evidence.toFixed(1)} of ${newest.evidence_needed.toFixed(0)}`);
}

function hostsCard({ hosts }) {
  const rows = hosts.map((one) => h("tr", {}, h("td", { class: "mono" }, one.host), h("td", { "data-name": "version" }, one.version), h("td", { class: "nowrap", "data-name": "started" }, age(one.started)), h("td", { class: "num", "data-name": "handlers" }, count(one.handlers)),
    h("td", { class: `num ${Math.abs(one.clock_ahead_ms) >= 1000 ? "warn" : ""}`, "data-name": "clock ahead" }, `${one.clock_ahead_ms} ms`), h("td", { class: `num ${one.log_lines_lost ? "warn" : ""}`, "data-name": "log lines lost" }, count(one.log_lines_lost)),
    h("td", { "data-name": "defects" }, one.panics.length ? one.panics.map((panic) => h("div", { class: "bad break" }, `${panic.task}, ${plural(panic.count, "time")}, `, age(panic.at), `: ${panic.last}`)) : "–")));
  return h("section", { class: "card", "aria-label": "Hosts" }, h("div", { class: "head" }, h("h2", {}, "Hosts")),
    hosts.length ? h("div", { class: "scroll" }, h("table", { class: "cards" }, h("thead", {}, h("tr", {}, [["Host"], ["Version"], ["Started"], ["Handlers", "num"], ["Clock ahead", "num"], ["Log lines lost", "num"], ["Defects since the start"]].map(([name, kind]) => h("th", { scope: "col", class: kind ?? "" }, name)))), h("tbody", {}, rows))) : h("div", { class: "empty" }, h("strong", {}, "No host answers"), "Figures of hosts are not known."));
}
