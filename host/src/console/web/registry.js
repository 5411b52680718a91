// The registry: the versions of modules, what each name serves, and what a viewer does about it.

import { allowed, ask } from "./actions.js";
import { get, post } from "./api.js";
import { command, h, put, toast, word } from "./dom.js";
import { bytes, digest, plural } from "./format.js";
import { age } from "./time.js";

const ACTS = { promoted: "promoted", "rollout-begun": "kept beside a canary", "canary-failed": "kept, as the canary failed", "rolled-back": "rolled back", held: "held", resumed: "resumed" };

/** `reload`: reads the whole page again, when something was changed. */
export function registryCards(reload) {
  const body = h("div", { class: "stack" }, h("p", { class: "loading" }, "Reading the registry…"));
  const load = async () => {
    try {
      const { names } = await get("registry");
      put(body, names.length ? names.map((one) => card(one, reload)) : h("section", { class: "card", "aria-label": "Registry" }, h("div", { class: "head" }, h("h2", {}, "Registry")), h("div", { class: "empty" }, h("strong", {}, "The registry is empty."), " ", command("jetmesh modules push FILE --as NAME"))));
    } catch (failed) {
      put(body, h("p", { class: "note bad", role: "alert" }, `The registry could not be read: ${failed.message}`));
    }
  };
  load();
  return body;
}

const told = (one) => `${digest(one.digest)}${one.version ? ` (${one.version})` : ""}`;

function card(one, load) {
  const { name, promoted, versions } = one;
  const serves = versions.find((version) => version.digest === promoted?.digest);
  const act = (order, verb, version, hint) => allowed(h("button", { type: "button", onclick: () => change({ order, verb, name, version, hint, upon: one.revision }, load) }, `${verb}…`), order, { module: name });
  const buttons = promoted ? [
    act("modules-rollback", "Roll back", null, promoted.rollout ? "The rollout ends, and the version that serves now serves all events." : "The version that served before serves again, on all hosts."),
    promoted.rollout ? null : promoted.hold ? act("modules-resume", "End the hold", null, "Versions can be promoted again.") : act("modules-hold", "Hold", null, "No version is promoted until the hold ends. A rollback is possible."),
  ] : [];
  const rows = versions.map((version) => h("tr", {},
    h("td", { class: "mono", title: version.digest }, digest(version.digest)),
    h("td", { "data-name": "version" }, version.version ?? "–"),
    h("td", { "data-name": "size" }, bytes(version.size)),
    h("td", { "data-name": "pushed" }, age(version.at), h("div", { class: "soft break" }, `by ${version.by}`)),
    h("td", { "data-name": "signatures" }, String(version.signatures.length)),
    h("td", { class: "break", "data-name": "note" }, version.note ?? "–"),
    h("td", {}, version.digest === promoted?.digest ? h("span", { class: "tag ok" }, "serves") : promoted?.rollout && version.digest !== promoted.rollout.canary ? null : act("modules-promote", "Promote", version, "It serves on all hosts that follow the name. Running events finish on the old module."))));
  const history = h("details", { ontoggle: (event) => event.target.open && shown(name, history) }, h("summary", {}, "What it has served"), h("div", { class: "loading" }, "Reading…"));
  return h("section", { class: "card", "aria-label": `Registry: ${name}` },
    h("div", { class: "head" }, h("h2", {}, name), h("span", { class: "soft" }, "in the registry", one.handlers?.length ? `, followed by ${one.handlers.join(", ")}` : ", followed by no handler of this configuration"), h("span", { class: "space" }), buttons),
    one.unreadable?.length ? one.unreadable.map((why) => h("p", { class: "pad bad break" }, why)) : null,
    promoted ? h("p", { class: "pad soft break" }, `${ACTS[promoted.act] ?? promoted.act} to ${serves ? told(serves) : digest(promoted.digest)} `, age(promoted.at), ` by ${promoted.by}${promoted.note ? `: ${promoted.note}` : ""}`) : h("p", { class: "pad warn" }, "Nothing is promoted: hosts that follow this name wait."),
    promoted?.rollout ? h("p", { class: "pad warn break" }, `Version ${digest(promoted.rollout.canary)} takes over step by step. `, command(`jetmesh modules why ${name}`)) : null,
    promoted?.hold ? h("p", { class: "pad warn break" }, `Held by ${promoted.hold.by} `, age(promoted.hold.at), promoted.hold.reason ? `: ${promoted.hold.reason}` : "") : null,
    rows.length ? h("div", { class: "scroll" }, h("table", { class: "cards" }, h("thead", {}, h("tr", {}, ["Digest", "Version", "Size", "Pushed", "Signatures", "Note", ""].map((title) => h("th", { scope: "col" }, title)))), h("tbody", {}, rows))) : null,
    one.count > versions.length ? h("p", { class: "pad soft" }, `The newest ${versions.length} of ${plural(one.count, "version")}.`) : null,
    promoted ? h("div", { class: "foot" }, history) : null);
}

async function shown(name, node) {
  const list = node.lastElementChild;
  try {
    const { names: [one] } = await get("registry", { name });
    put(list, h("ul", { class: "timeline" }, one.history.map(({ revision, record }) => h("li", {}, h("span", { class: `dot ${["rolled-back", "canary-failed"].includes(record.act) ? "warn" : record.act === "held" ? "hold" : "ok"}` }), h("div", {}, h("div", { class: "line" }, h("strong", {}, ACTS[record.act] ?? record.act), h("span", { class: "mono" }, digest(record.digest)), h("span", { class: "soft" }, age(record.at), ` by ${record.by}, revision ${revision}`)), record.note ? h("div", { class: "break" }, record.note) : null)))));
    list.className = "";
  } catch (failed) {
    put(list, h("p", { class: "note bad", role: "alert" }, failed.message));
  }
}

function change({ order, verb, name, version, hint, upon }, load) {
  const note = h("input", { type: "text", id: "m-note", autocomplete: "off" });
  const line = h("div");
  const means = version ? (version.version ?? version.digest.slice(0, 12)) : null;
  const show = () => put(line, command(`jetmesh modules ${order.replace("modules-", "")} ${name}${means ? ` ${word(means)}` : ""}${note.value.trim() ? ` --note ${word(note.value.trim())}` : ""}`));
  note.addEventListener("input", show);
  show();
  ask({
    title: version ? `${verb} ${told(version)}` : `${verb}: ${name}`, verb, order, on: { module: name },
    body: [h("p", {}, hint), h("label", { for: "m-note" }, "Why"), note, h("span", { class: "soft" }, "The same by command:"), line],
    act: async () => {
      const done = await post(order, { name, version: version ? version.digest : null, note: note.value.trim() || null, upon });
      const behind = done.behind.map((one) => `${one.handler} on ${one.host}${one.why ? `: ${one.why}` : ""}`);
      toast(`${name} ${done.changed ? "is changed" : "was so before"}${done.hosts === null ? "" : `; served with ${digest(done.digest)} by ${plural(done.hosts, "host")}`}.${behind.length ? ` Not yet: ${behind.join("; ")}` : ""}`);
      load();
    },
  });
}
