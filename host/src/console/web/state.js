// State: the keys of a bucket, and one with its value and how it came to be. Read only.

import { get } from "./api.js";
import { command, h, put, toast, word } from "./dom.js";
import { bytes, clock, digest, plural } from "./format.js";
import { value } from "./letter.js";
import { age } from "./time.js";

export function state(main, _path, query) {
  const list = h("div", { class: "stack" }, h("p", { class: "loading" }, "Reading…"));
  const one = h("div", { class: "stack" });
  put(main, h("div", { class: "title" }, h("h1", {}, "State"), h("span", { class: "soft" }, "read only")), list, one);
  start(list, one, query).catch((failed) => put(list, h("p", { class: `note ${failed.status === 404 ? "info" : "bad"}`, role: "alert" }, `The keys could not be read: ${failed.message}`)));
}

async function start(list, one, query) {
  const { buckets } = await get("buckets");
  if (buckets.length === 0) return put(list, h("div", { class: "card empty" }, h("strong", {}, "No handler has state"), "No handler of the configuration has a bucket."));
  const bucket = query.bucket ?? buckets[0];
  const go = (event) => {
    event?.preventDefault();
    const given = { bucket: choice.value, keys: keys.value.trim() };
    location.hash = `#/state?${new URLSearchParams(Object.entries(given).filter(([, value]) => value))}`;
  };
  const choice = h("select", { id: "s-bucket", onchange: () => go() }, buckets.map((name) => h("option", { value: name, selected: name === bucket }, name)));
  const keys = h("input", { id: "s-keys", value: query.keys ?? "", placeholder: "stock.>, or a whole key", spellcheck: "false" });
  const form = h("form", { class: "filters", role: "search", onsubmit: go }, h("div", { class: "field" }, h("label", { for: "s-bucket" }, "Bucket"), choice), h("div", { class: "field wide" }, h("label", { for: "s-keys" }, "Keys"), keys), h("button", { type: "submit" }, "Apply"));
  const card = h("section", { class: "card", "aria-label": "Keys" }, h("p", { class: "loading pad" }, "Reading…"));
  put(list, form, h("div", { class: "two" }, card, one));
  put(one, h("div", { class: "card empty" }, "Choose a key."));
  const body = h("tbody");
  const foot = h("div", { class: "foot" });
  const more = async (before) => {
    const page = await get("keys", { bucket, keys: query.keys, before });
    body.append(...page.keys.map((key) => h("tr", {}, h("td", { class: "break" }, h("button", { type: "button", class: "link mono", onclick: () => show(one, bucket, key.key) }, key.key), key.deleted ? h("span", { class: "tag" }, "deleted") : null), h("td", { class: "nowrap soft" }, age(key.written)), h("td", { class: "num mono soft" }, key.revision))));
    put(foot, `${plural(body.children.length, "key")} shown, the newest writes first.`, page.before === null ? null : h("button", { type: "button", class: "small", onclick: () => more(page.before).catch((failed) => toast(failed.message)) }, "Show older ones"));
  };
  try {
    await more();
    put(card, body.children.length ? h("div", { class: "scroll" }, h("table", {}, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Key"), h("th", { scope: "col" }, "Written"), h("th", { scope: "col", class: "num" }, "Revision"))), body)) : h("div", { class: "empty" }, h("strong", {}, "No such key")), foot);
    if (query.key) await show(one, bucket, query.key);
  } catch (failed) {
    put(card, h("p", { class: `note ${failed.status === 404 ? "info" : "bad"}`, role: "alert" }, `The keys could not be read: ${failed.message}`));
  }
}

async function show(node, bucket, key) {
  put(node, h("p", { class: "loading" }, "Reading…"));
  try {
    const one = await get("key", { bucket, key });
    put(node, h("section", { class: "card", "aria-label": "Value" },
      h("div", { class: "head" }, h("h2", { class: "mono break" }, one.key), h("span", { class: "soft" }, one.deleted ? "deleted" : [`${bytes(one.bytes)}, revision ${one.revision}, `, age(one.written)])),
      one.deleted ? null : value(one.value), one.cut ? h("p", { class: "note" }, "Only the beginning is shown.") : null),
    h("section", { class: "card", "aria-label": "History" }, h("div", { class: "head" }, h("h2", {}, "How it came to be"), h("span", { class: "soft" }, "by the ledger, the newest first")),
      h("ol", { class: "timeline" }, one.history.map(written)), h("div", { class: "foot" }, h("span", {}, `${one.history_ends}.`))),
    command(`nats kv get ${bucket} ${word(key)}`));
  } catch (failed) {
    put(node, h("p", { class: "note bad", role: "alert" }, failed.message));
  }
}

const written = (one) => h("li", {}, h("span", { class: "dot ok" }), h("div", { class: "part" },
  h("div", { class: "line" }, h("span", { class: "mono" }, `revision ${one.revision}`), h("span", { class: "soft" }, `${clock(one.at)}, entry ${one.entry}, host ${one.host}`)),
  one.events.map((event) => h("div", { class: "line" }, h("strong", {}, event.handler), h("a", { class: "mono", href: `#/where?id=${encodeURIComponent(event.event)}` }, event.event), h("span", { class: "soft" }, `attempt ${event.attempt}, module ${digest(event.module)}`))),
  one.bytes === null ? h("div", { class: "soft" }, "deleted") : one.value ? value(one.value) : h("div", { class: "soft" }, `${bytes(one.bytes)}, which the ledger does not repeat`)));
