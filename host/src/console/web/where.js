// Where is it? An event, what each handler has made of it, and what has followed from it.

import { get } from "./api.js";
import { command, h, put, word } from "./dom.js";
import { bytes, clock, count, digest, plural, took } from "./format.js";
import { value } from "./letter.js";
import { age } from "./time.js";

const KINDS = { done: "ok", replayed: "ok", dead: "bad", lost: "bad", retrying: "warn", delivered: "", waiting: "", answered: "ok", forgotten: "" };
const STATES = {
  delivered: "a host has it, and it is not decided",
  waiting: "it was given to no host yet",
  "before-start": "it is not this handler's, which began behind it",
  "no-consumer": "the handler's consumer is not there; a running host makes it",
  forgotten: "it is decided, and the ledger has forgotten when and how",
  replayed: "it is done by a replay of its dead letter; no ledger keeps more of it",
  answered: "the server is through with it; a handler without a ledger leaves nothing else behind",
  lost: "the server is through with it, and the ledger does not have it: a host's sweep has it run again",
  unknown: "nothing of this handler tells of it",
  "not-found": "its decision was not found: the limit of what is read was reached",
};

/** What an event is searched by; the option of the command has the same name. */
const KNOWN = ["key", "subject", "trace_id"];

export function where(main, _path, query) {
  const result = h("div", { class: "stack", "aria-live": "polite" });
  const field = (name, label, hint, wide) => h("div", { class: `field ${wide ? "wide" : ""}` }, h("label", { for: `w-${name}` }, label),
    h("input", { id: `w-${name}`, name, value: query[name] ?? "", placeholder: hint, spellcheck: "false" }));
  const go = (event) => {
    event.preventDefault();
    const given = [...event.target.elements].filter((one) => one.name && one.value.trim()).map((one) => [one.name, one.value.trim()]);
    location.hash = `#/where?${new URLSearchParams(given)}`;
  };
  put(main, h("div", { class: "title" }, h("h1", {}, "Where is it?")),
    h("form", { class: "filters", role: "search", onsubmit: go },
      field("id", "Event", "INCARNATION.SEQUENCE, STREAM:SEQUENCE, or the id of a letter", true),
      field("key", "or a field of its payload", "order_id=42"), field("subject", "or its subject", "orders.*"), field("trace_id", "or its trace", "32 hex digits"), field("since", "searched back to", "24h"),
      h("button", { type: "submit", class: "main" }, "Find")), result);
  const by = KNOWN.find((one) => query[one]);
  if (!query.id && !by) {
    put(result, h("div", { class: "card empty" }, h("strong", {}, "Find an event"), "Logs and the header Mesh-Event have its id. Or name a field of its JSON payload and its value, its subject, or its trace id of OpenTelemetry."));
    return;
  }
  put(result, h("p", { class: "loading" }, "Reading streams and ledgers…"));
  const back = query.since ? ` --since ${word(query.since)}` : "";
  const same = by ? `jetmesh trace --${by.replace("_", "-")} ${word(query[by])}${back}` : `jetmesh trace ${word(query.id)}${back}`;
  get("trace", { [by ?? "id"]: query[by ?? "id"], since: query.since }).then(
    ({ trace, searched, warning }) => put(result,
      warning ? h("p", { class: "note" }, warning) : null,
      trace.limit_reached ? h("p", { class: "note" }, `Not everything was read: the limit was reached after ${count(trace.messages_read)} messages. The command reads more.`) : null,
      trace.events.length ? trace.events.map((one) => h("section", { class: "card trace" }, eventNode(one, Date.parse(one.message?.time)))) : h("div", { class: "card empty" }, h("strong", {}, "No event has this"), "What was searched is told below."),
      searched.map((line) => h("p", { class: "soft" }, line)),
      h("p", { class: "soft" }, `${plural(trace.messages_read, "message")} read.`), command(same)),
    (failed) => put(result, h("p", { class: `note ${failed.status === 404 ? "info" : "bad"}`, role: "alert" }, failed.message), command(same)));
}

/** A time as so much later than the first. */
const later = (time, began) => (time && !Number.isNaN(began) ? `+${took(Math.max(0, Date.parse(time) - began) * 1000)}` : "");

function eventNode(one, began) {
  const message = one.message;
  return h("div", { class: "node-event" },
    h("div", { class: "line" }, h("span", { class: "at mono", title: message?.time ?? "" }, message ? later(message.time, began) || "+0" : ""),
      h("strong", { class: "break" }, message?.subject ?? "its stream does not hold it any more"),
      h("span", { class: "mono soft" }, `${one.stream}:${one.sequence}`), message ? h("span", { class: "soft" }, `${clock(message.time)}, `, age(message.time)) : null),
    one.note ? h("p", { class: "soft" }, one.note) : null,
    message ? h("details", {}, h("summary", {}, "Payload and headers"), value(message.payload), message.headers.length ? h("dl", { class: "facts mono" }, message.headers.map((own) => [h("dt", {}, own.name), h("dd", { class: "break" }, own.value)])) : null) : null,
    one.handlers.length ? h("ol", { class: "tree" }, one.handlers.map((part) => partNode(part, began))) : h("p", { class: "soft" }, "No handler reads it."));
}

function partNode(part, began) {
  const { stand } = part;
  const decided = stand.decided;
  return h("li", {}, h("span", { class: `dot ${KINDS[stand.state] ?? ""}` }),
    h("div", { class: "part" },
      h("div", { class: "line" }, h("span", { class: "at mono", title: decided?.at ?? "" }, later(decided?.at, began)), h("strong", {}, part.handler), h("span", { class: `tag ${KINDS[stand.state] ?? ""}` }, stand.state),
        decided ? h("span", { class: "soft" }, `attempt ${decided.attempt} on ${decided.host}, entry ${decided.entry}`) : null,
        decided?.module ? h("span", { class: "mono soft" }, digest(decided.module)) : null),
      STATES[stand.state] ? h("div", { class: "soft" }, stand.why ?? STATES[stand.state]) : null,
      part.edits.map(edited),
      decided?.same_as ? h("div", { class: "soft" }, `it repeats ${decided.same_as}: nothing was run`) : null,
      decided?.error ? h("div", { class: "bad break" }, `${decided.code}: ${decided.error}`) : null,
      stand.state === "retrying" ? retrying(stand.attempts) : null,
      stand.letter?.id ? h("div", {}, h("a", { class: "mono", href: `#/letter/${encodeURIComponent(stand.letter.id)}` }, "its dead letter")) : null,
      part.paused ? h("div", { class: "warn" }, `the handler is paused by ${part.paused.by}${part.paused.reason ? `: ${part.paused.reason}` : ""}`) : null,
      part.hindered.map((one) => h("div", { class: "warn" }, one.why)),
      part.note ? h("div", { class: "soft" }, part.note) : null,
      decided?.writes?.length ? h("details", {}, h("summary", {}, `Wrote ${plural(decided.writes.length, "key")}`), decided.writes.map(written)) : null,
      part.follows.length ? h("ol", { class: "tree" }, part.follows.map((one) => followNode(one, began))) : null));
}

const edited = (edit) => h("div", { class: "soft break" }, `its payload was edited at ${edit.at} by ${edit.by}${edit.reason ? `: ${edit.reason}` : ""}`);

const retrying = (one) => h("div", { class: "warn break" }, `attempt ${one.attempts}${one.max_attempts ? ` of ${one.max_attempts}` : ""}; `, one.running_on ? `one runs on ${one.running_on}` : ["next ", age(one.next)], one.error ? `; ${one.code}: ${one.error}` : "");

const written = (one) => h("div", { class: "written" }, h("span", { class: "mono" }, one.key), h("span", { class: "soft" }, one.bytes === null ? "deleted" : bytes(one.bytes)), one.value ? value(one.value) : null);

function followNode(one, began) {
  const { whereabouts: at } = one;
  const told = {
    delayed: () => ["waits for its time, ", age(at.due)],
    due: () => ["its time has come, ", age(at.due), ", and no host has published it yet"],
    "called-off": () => "a timer that was cancelled or set again, or that has fired",
    cancelled: () => ["was due ", age(at.due), `, and was cancelled ${at.why}`],
    undeliverable: () => "its stream refused it, or there is none",
    absent: () => (at.published ? `was published${at.stream ? ` to ${at.stream}` : ""}, which does not hold it any more` : at.stream ? `not in ${at.stream} yet` : "no stream captures its subject"),
    "not-found": () => "it was not found: the limit of what is read was reached",
  }[at.state];
  return h("li", {}, h("span", { class: `dot ${at.state === "undeliverable" ? "bad" : "hold"}` }),
    at.state === "published" ? h("div", { class: "part" }, h("div", { class: "soft" }, "emitted"), eventNode(at.traced, began))
      : h("div", { class: "part" }, h("div", { class: "line" }, h("span", { class: "soft" }, "emitted"), h("strong", { class: "break" }, one.subject), h("span", { class: "soft" }, told?.() ?? at.state))));
}
