// One dead letter, with all that is known of it.

import { get } from "./api.js";
import { command, h, put } from "./dom.js";
import { bytes, clock, digest, plural } from "./format.js";
import { allowed, correct, discard, replay } from "./actions.js";
import { download } from "./exports.js";
import { noted } from "./letters.js";
import { rehearse } from "./rehearse.js";
import { age, lasting } from "./time.js";

const WHY = {
  exhausted: "all of its attempts failed",
  rejected: "the handler rejected the event, or the host found that no attempt can succeed",
  "max-deliver": "the server gave up delivering it",
  terminated: "a person or a program terminated it",
  lost: "its stream had removed it before it was decided",
  "gave-up": "a person gave it up between two attempts",
  undeliverable: "its target stream does not accept it, or there is none",
};

export function letter(main, [id]) {
  const load = async () => {
    try {
      const page = await get(`letter/${encodeURIComponent(id)}`);
      put(main, show(page));
    } catch (failed) {
      put(main, h("div", { class: "title" }, h("h1", { class: "mono" }, id)),
        h("p", { class: `note ${failed.status === 404 ? "info" : "bad"}`, role: "alert" }, failed.message), h("p", {}, h("a", { href: "#/letters" }, "All dead letters")));
    }
  };
  put(main, h("p", { class: "loading" }, "Reading the letter…"));
  load();
  const changed = () => load();
  addEventListener("letters-changed", changed);
  return () => removeEventListener("letters-changed", changed);
}

function show({ letter: one, note_unread, payload_bytes, payload_cut }) {
  const last = one.history.at(-1);
  const on = { handlers: [one.handler] };
  const canReplay = one.cause !== "lost";
  const canRehearse = canReplay && one.cause !== "undeliverable";
  return [
    h("div", { class: "title" },
      h("div", {}, h("h1", { class: "mono break" }, one.id), h("div", { class: "line soft" }, h("span", { class: "tag bad" }, one.cause), one.code ? h("span", { class: "tag" }, one.code) : null, h("span", {}, "dead for ", lasting(one.dead_since)))),
      h("span", { class: "space" }),
      h("a", { class: "button-like", href: `#/where?id=${encodeURIComponent(one.event)}` }, "Where is it?"),
      canReplay && !payload_cut && one.payload.encoding === "text" ? allowed(h("button", { type: "button", onclick: () => correct(one) }, "Correct…"), "edit", on) : null,
      canRehearse ? h("button", { type: "button", onclick: () => rehearse({ ids: [one.id] }) }, "Rehearse") : null,
      canReplay ? allowed(h("button", { type: "button", class: "main", onclick: () => replay({ ids: [one.id] }) }, "Replay"), "replay", on) : null,
      h("button", { type: "button", onclick: () => download({ ids: [one.id] }) }, "Export"),
      allowed(h("button", { type: "button", class: "danger", onclick: () => discard({ ids: [one.id] }) }, "Discard"), "discard", on)),
    h("p", { class: "error-text break" }, one.error || "no error is known"),
    h("div", { class: "two" },
      h("section", { class: "card", "aria-label": "Facts" }, h("div", { class: "head" }, h("h2", {}, "What is known")), h("div", { class: "body" }, facts(one, note_unread))),
      h("section", { class: "card", "aria-label": "Attempts" }, h("div", { class: "head" }, h("h2", {}, "Attempts"), h("span", { class: "soft" }, `${one.attempts || "none that is known"}`)), attempts(one.history, one.attempts))),
    h("section", { class: "card", "aria-label": "Payload" },
      h("div", { class: "head" }, h("h2", {}, "Payload"), h("span", { class: "soft" }, `${bytes(payload_bytes)}${payload_cut ? `, of which the first ${bytes(262144)} are shown; jetmesh dlq show --json prints all` : ""}`)),
      payload(one.payload)),
    one.headers.length ? h("section", { class: "card", "aria-label": "Headers" }, h("div", { class: "head" }, h("h2", {}, "Headers")),
      h("div", { class: "body" }, h("dl", { class: "facts mono" }, one.headers.map((own) => [h("dt", {}, own.name), h("dd", { class: "break" }, own.value)])))) : null,
    last?.backtrace?.length ? lines("Functions of the last attempt, innermost first", last.backtrace) : null,
    last?.log?.length ? lines("Log of the last attempt", last.log) : null,
    h("section", { class: "card", "aria-label": "Commands" }, h("div", { class: "head" }, h("h2", {}, "The same by command")), h("div", { class: "body stack" },
      command(`jetmesh dlq show ${one.id}`),
      canReplay ? command(`jetmesh dlq edit ${one.id}`) : null,
      canRehearse ? command(`jetmesh dlq rehearse ${one.id} --module FIXED.wasm`) : null,
      canReplay ? command(`jetmesh dlq replay ${one.id}`) : null,
      command(`jetmesh dlq export ${one.id} --output FILE`),
      command(`jetmesh dlq discard ${one.id} --reason TEXT`))),
  ];
}

function facts(one, note_unread) {
  const rows = [
    ["Why", `${one.cause}: ${WHY[one.cause] ?? ""}`],
    ["Handler", h("span", {}, one.handler, one.module ? h("span", { class: "mono soft" }, ` module ${digest(one.module)}`) : null)],
    ["Event", h("span", { class: "mono break" }, one.event)],
    ["Subject", one.event_subject ? h("span", { class: "mono break" }, one.event_subject) : "it was lost"],
    ["Stored", one.event_time ? `${clock(one.event_time)} in ${one.stream}` : one.stream],
    ["Dead since", [`${clock(one.dead_since)}, `, age(one.dead_since)]],
    ["Group", h("a", { class: "mono", href: `#/letters?group=${one.group}` }, one.group)],
    ["Note", one.note ? noted(one.note) : note_unread ? h("span", { class: "warn" }, `not known: ${note_unread}`) : null],
    ["Corrected", one.edits?.length ? [`${plural(one.edits.length, "time")}, the last by ${one.edits.at(-1).by} `, age(one.edits.at(-1).at), one.edits.at(-1).reason ? `: ${one.edits.at(-1).reason}` : ""] : null],
    ["Decided", one.death ? `by entry ${one.death} of ledger ${one.ledger}` : null],
    ["Redriven", one.redriven ? `${plural(one.redriven, "time")} by the mesh itself` : null],
  ];
  return h("dl", { class: "facts" }, rows.filter(([, value]) => value).map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
}

function attempts(history, all) {
  if (history.length === 0) return h("p", { class: "empty" }, "No attempt is kept word for word.");
  const first = history.find((one) => !one.replay);
  const rows = history.map((one) => h("li", {},
    h("span", { class: `dot ${one.outcome === "done" ? "ok" : "bad"}` }),
    h("div", {},
      h("div", { class: "line" }, h("strong", {}, one.replay ? (one.asked_by?.startsWith("redrive") ? "redrive" : "replay") : `attempt ${one.attempt}`), h("span", { class: "tag bad" }, one.outcome === "running" ? "host ended" : one.outcome), one.code ? h("span", { class: "tag" }, one.code) : null),
      h("div", { class: "break" }, one.message),
      h("div", { class: "soft" }, `${clock(one.at)} on ${one.host}, module ${digest(one.module)}`))));
  return [first && first.attempt > 1 ? h("p", { class: "soft pad" }, `Those before attempt ${first.attempt} of ${all} are not kept.`) : null, h("ol", { class: "timeline" }, rows)];
}

function payload({ encoding, data }) {
  return encoding === "base64" ? h("pre", { class: "code" }, hex(data)) : value({ encoding, data });
}

/** A payload or a value as it is shown among others. */
export function value({ encoding, data }) {
  if (encoding === "base64") return h("pre", { class: "code" }, `(no text, base64) ${data}`);
  try {
    // Numbers and order stay as they are: it is laid out by its characters, and not read.
    JSON.parse(data);
    return h("pre", { class: "code" }, laidOut(data));
  } catch {
    return h("pre", { class: "code" }, data || "(empty)");
  }
}

/** JSON with a line for each value. */
export function laidOut(json) {
  let [out, depth, quoted] = ["", 0, false];
  const line = () => `\n${"  ".repeat(depth)}`;
  for (let at = 0; at < json.length; at++) {
    const c = json[at];
    if (quoted) {
      out += c;
      if (c === "\\") out += json[++at];
      else if (c === '"') quoted = false;
    } else if (c === '"') {
      quoted = true;
      out += c;
    } else if (c === "{" || c === "[") {
      const empty = json.slice(at + 1).match(/^\s*[}\]]/);
      if (empty) {
        out += c + empty[0].trim();
        at += empty[0].length;
      } else {
        depth++;
        out += c + line();
      }
    } else if (c === "}" || c === "]") {
      depth--;
      out += line() + c;
    } else if (c === ",") out += c + line();
    else if (c === ":") out += ": ";
    else if (!/\s/.test(c)) out += c;
  }
  return out;
}

/** As `hexdump -C` shows the beginning. */
function hex(base64) {
  const all = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
  const shown = [...all.subarray(0, 1024)];
  const rows = [];
  for (let at = 0; at < shown.length; at += 16) {
    const row = shown.slice(at, at + 16);
    const codes = row.map((byte) => byte.toString(16).padStart(2, "0")).join(" ");
    const signs = row.map((byte) => (byte >= 32 && byte < 127 ? String.fromCharCode(byte) : ".")).join("");
    rows.push(`${at.toString(16).padStart(8, "0")}  ${codes.padEnd(47)}  |${signs}|`);
  }
  if (all.length > shown.length) rows.push(`… and ${plural(all.length - shown.length, "more byte")}`);
  return rows.join("\n");
}

const lines = (title, all) => h("section", { class: "card", "aria-label": title }, h("div", { class: "head" }, h("h2", {}, title)), h("pre", { class: "code" }, all.join("\n")));
