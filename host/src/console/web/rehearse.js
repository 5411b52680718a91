// Rehearsals: what would become of dead letters with a module, while nothing happens.

import { me, newest, post, postLines } from "./api.js";
import { denied, handlersOf, missing, replay } from "./actions.js";
import { command, h, put, text } from "./dom.js";
import { bytes, count, digest, fits, plural } from "./format.js";
import { value } from "./letter.js";

const FILE_MAX = 128 * 1024 * 1024;
/** Ids in one order. */
const IDS_MAX = 2000;
const KINDS = { "would succeed": "ok", skipped: "", "could not be run": "warn" };

export function rehearse(selection) {
  const configured = h("input", { type: "radio", name: "module", id: "h-configured", checked: true });
  const given = h("input", { type: "radio", name: "module", id: "h-given" });
  const file = h("input", { type: "file", id: "h-file", accept: ".wasm", "aria-label": "Module file" });
  const line = h("div");
  const problem = h("p", { class: "note bad hidden", role: "alert" });
  const say = (message) => {
    text(problem, message);
    problem.classList.toggle("hidden", !message);
  };
  const registered = h("input", { type: "radio", name: "module", id: "h-registered" });
  const version = h("input", { type: "text", id: "h-version", size: 16, autocomplete: "off", "aria-label": "Version of the registry", placeholder: "digest or version" });
  const chosen = () => (given.checked ? file.files[0] : null);
  const order = () => ({ selection, module: chosen()?.name ?? null, version: registered.checked ? version.value.trim() || null : null });
  const show = newest(() => post("rehearse-plan", order()), (plan) => put(line, command(plan.command)), (failed) => say(failed.message));
  file.addEventListener("change", () => {
    given.checked = true;
    show();
  });
  version.addEventListener("input", () => {
    registered.checked = true;
    show();
  });
  for (const one of [configured, registered, given]) one.addEventListener("change", show);
  const refuse = (why) => {
    given.disabled = file.disabled = true;
    put(reason, why);
  };
  const reason = h("p", { class: "soft" });
  // Before a file is chosen, it is known whether it would be taken.
  if (!me.session.uploads) refuse("This console takes no file: `uploads = true` under [admin] of its configuration switches it on. `jetmesh console` on your machine takes one.");
  else missing("rehearse-upload", { handlers: handlersOf(selection) }).then((subject) => subject && refuse(`For a file of yours you need the right to replay these letters. ${denied(subject)}`));
  const body = h("div", { class: "body" },
    h("p", {}, "Each event runs once, as its replay would at first, with the state as it is now. Writes and emitted events are held back. Two rehearsed events do not see each other's writes."),
    h("div", { class: "choices" }, h("div", { class: "line" }, configured, h("label", { for: "h-configured" }, "On the modules that the configuration names")), h("div", { class: "line" }, registered, h("label", { for: "h-registered" }, "On a version of the registry:"), version), h("div", { class: "line" }, given, h("label", { for: "h-given" }, "On a file of yours:"), file), reason),
    h("span", { class: "soft" }, "The same by command:"), line, problem);
  const foot = h("div", { class: "foot" });
  const go = h("button", { type: "submit", class: "main" }, "Rehearse");
  const stop = new AbortController();
  const close = h("button", { type: "button", onclick: () => dialog.close() }, "Cancel");
  const form = h("form", { method: "dialog" }, h("div", { class: "head" }, h("h1", {}, "Rehearse dead letters")), body, put(foot, close, go));
  const dialog = h("dialog", { class: "wide", "aria-label": "Rehearse dead letters", onclose: () => {
    stop.abort();
    dialog.remove();
  } }, form);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const own = chosen();
    if (given.checked && !own) return say("Choose a file, or the modules that the configuration names.");
    if (registered.checked && !version.value.trim()) return say("Name a version: 6 or more digits of its digest, or what its author calls it.");
    if (own && own.size > FILE_MAX) return say(`${own.name} has ${bytes(own.size)}: a module has ${bytes(FILE_MAX)} at most.`);
    run(selection, order(), own, { dialog, body, foot, stop });
  });
  document.body.append(dialog);
  dialog.showModal();
  show();
}

/** Shows what comes, until it ends or is stopped. */
async function run(selection, order, file, { dialog, body, foot, stop }) {
  const bar = h("progress", { max: 1 });
  const state = h("div", { role: "status" }, file ? "The module is sent and compiled…" : "The modules are compiled…");
  const notes = h("div", { class: "stack" });
  const list = h("ol", { class: "rehearsed" });
  const effects = sums();
  const halt = h("button", { type: "button", onclick: () => stop.abort() }, "Stop");
  put(body, bar, state, notes, effects.node, list);
  put(foot, halt);
  const [verdicts, good] = [new Map(), []];
  let [begun, ran, end] = [null, 0, null];
  const figures = () => [...verdicts].map(([verdict, n]) => `${count(n)} ${verdict}`).join(", ");
  const took = (one) => {
    if (one.error && !one.id) throw new Error(one.error);
    if (one.begun) {
      begun = one.begun;
      bar.max = Math.max(1, begun.letters);
      bar.value = 0;
      for (const [n, why] of [[begun.resolved, "resolved already"], [begun.unknown.length, "not known"]]) if (n) notes.append(h("p", { class: "note" }, `${plural(n, "letter")} ${fits(n, "is", "are")} left out: ${why}.`));
      if (begun.most) notes.append(h("p", { class: "note" }, `At most ${count(begun.most)} letters are rehearsed here: these are the newest that are meant.`));
      if (begun.unread) notes.append(h("p", { class: "note" }, begun.unread));
    } else if (one.summary) end = one;
    else {
      ran++;
      bar.value = ran;
      verdicts.set(one.verdict, (verdicts.get(one.verdict) ?? 0) + 1);
      if (one.succeeds) good.push(one.id);
      // The effects of the only letter are what its viewer wants to see; those of many are summed up above them.
      const only = begun?.letters === 1;
      list.append(letter(one, only));
      if (!only) effects.add(one);
      text(state, `${count(ran)} of ${count(begun?.letters)}: ${figures()}`);
    }
  };
  let broke = null;
  try {
    await postLines("rehearse", [JSON.stringify(order), "\n", ...(file ? [file] : [])], took, stop.signal);
    if (!end) broke = "The console has ended before the rehearsal.";
  } catch (failed) {
    broke = stop.signal.aborted ? "Stopped." : failed.message;
  }
  if (!dialog.isConnected) return;
  if (broke) notes.prepend(h("p", { class: `note ${stop.signal.aborted ? "" : "bad"}`, role: "alert" }, broke));
  bar.remove();
  if (end) told(end, ran, [...verdicts], { state, notes, file });
  put(foot, h("button", { type: "button", onclick: () => dialog.close() }, "Close"), next(selection, begun, ran, good, dialog));
}

/** What it comes to. */
function told({ summary, whole, seconds }, ran, verdicts, { state, notes, file }) {
  text(state, ran ? `${ran === 1 ? one(summary, verdicts[0][0]) : many(summary, verdicts)} Nothing has happened.` : "There is no such dead letter.");
  if (!whole) notes.append(h("p", { class: "note" }, `The rehearsal has ended after ${seconds} seconds: not all letters were run.`));
  const modules = Object.entries(summary.modules).map(([handler, module]) => `${handler} on module ${digest(module)}`);
  if (modules.length) notes.append(h("p", { class: "soft" }, `Rehearsed: ${modules.join(", ")}${file ? ` (${file.name})` : ""}.`));
  if (file && ran) notes.append(h("p", { class: "note info" }, "A replay runs on the module that the hosts serve: put the file in the place of the old one first."));
  if (summary.faults.length) notes.append(h("div", {}, h("h3", {}, "What would go wrong"), h("ul", { class: "kinds" }, summary.faults.slice(0, 20).map((one) => h("li", { class: "break" }, h("strong", {}, count(one.count)), ` ${one.handler}, ${one.outcome}, ${one.code}: ${one.error}`)))));
}

/** What would become of the only letter, in a sentence. */
function one(summary, verdict) {
  if (summary.undelivered) return "It would succeed, but emit an event that no stream stores.";
  const words = verdict === "skipped" ? "was skipped" : verdict;
  return `It ${words}${summary.as_before ? " with the same error as before" : ""}.`;
}

function many(summary, verdicts) {
  const more = [[summary.as_before, "would fail with the same error as before"], [summary.undelivered, "would emit an event that no stream stores"]].filter(([n]) => n).map(([n, what]) => `${count(n)} of them ${what}.`);
  return [`${verdicts.map(([verdict, n]) => `${count(n)} ${verdict}`).join(", ")}.`, ...more].join(" ");
}

/** Names that a sum shows. */
const NAMES_MAX = 6;

/** What the letters that would succeed would write and emit, added up. */
function sums() {
  const [written, emitted] = [new Map(), new Map()];
  let [deletes, cut] = [0, 0];
  const list = h("ul", { class: "kinds" });
  const node = h("section", { class: "sums hidden", "aria-label": "Effects" }, h("h3", {}, "What all of them would do"), list);
  const more = (map, name) => map.set(name, (map.get(name) ?? 0) + 1);
  const sum = (map) => [...map.values()].reduce((all, n) => all + n, 0);
  const named = (map, what) => {
    const all = [...map].sort(([, a], [, b]) => b - a);
    const names = all.slice(0, NAMES_MAX).map(([name, n], at) => [at ? ", " : "", h("span", { class: "mono break" }, name), n > 1 ? ` (${count(n)})` : ""]);
    return [names, all.length > NAMES_MAX ? `, and ${plural(all.length - NAMES_MAX, `more ${what}`)}` : ""];
  };
  const show = () => {
    const writes = sum(written);
    const emits = sum(emitted);
    node.classList.remove("hidden");
    put(list,
      writes ? h("li", {}, `${plural(writes, "write")} to ${plural(written.size, "key")}${deletes ? `, of which ${plural(deletes, "delete")}` : ""}: `, named(written, "key")) : null,
      emits ? h("li", {}, `${plural(emits, "event")} emitted to ${plural(emitted.size, "subject")}: `, named(emitted, "subject")) : null,
      writes + emits === 0 && cut === 0 ? h("li", {}, "Nothing would be written or emitted.") : null,
      cut ? h("li", {}, `The effects of ${plural(cut, "letter")} are not among them: they are too long to be shown here.`) : null);
  };
  const add = (own) => {
    if (own.outcome !== "done") return;
    // Of what is long only the verdict is told.
    if (own.cut && own.writes.length + own.emits.length === 0) cut++;
    for (const change of own.writes) {
      more(written, change.key);
      if (!change.new) deletes++;
    }
    for (const emit of own.emits) more(emitted, emit.subject);
    show();
  };
  return { node, add };
}

/** The replay of what has succeeded. */
function next(selection, begun, ran, good, dialog) {
  if (good.length === 0) return null;
  const all = good.length === begun?.letters && ran === good.length && !begun.most;
  const ids = good.slice(0, IDS_MAX);
  return h("button", { type: "button", class: "main", onclick: () => {
    dialog.close();
    replay(all ? selection : { ids });
  } }, all ? `Replay ${good.length === 1 ? "it" : `all ${count(good.length)}`}…` : `Replay the ${count(ids.length)} that would succeed…`);
}

/** `open`: its effects are shown at once. */
function letter(one, open) {
  const kind = KINDS[one.verdict] ?? "bad";
  const why = one.why ?? (one.code ? `${one.code}: ${one.error}` : one.emits?.find((own) => own.problem)?.problem);
  const head = h("summary", {}, h("span", { class: `tag ${one.succeeds ? "ok" : kind === "ok" ? "warn" : kind}` }, one.verdict, one.as_before ? " as before" : ""), h("span", { class: "mono" }, one.id), why ? h("span", { class: "why break" }, why) : null, h("span", { class: "soft" }, inShort(one)));
  // What has neither effects nor a log is not opened.
  const bare = one.outcome === "skipped" || (!one.succeeds && !one.cut && [one.writes, one.emits, one.log, one.backtrace].every((all) => all.length === 0));
  return h("li", {}, bare ? h("div", { class: "skipped" }, [...head.childNodes]) : h("details", { open }, head, effects(one)));
}

/** What a letter would do, counted. */
const inShort = ({ outcome, writes, emits }) => outcome === "done" ? [[writes.length, "write"], [emits.length, "event"]].filter(([n]) => n).map(([n, what]) => plural(n, what)).join(", ") : "";

/** A value before or after; null: there is none. */
const shown = (own) => (own ? value(own) : h("span", { class: "soft" }, "(no value)"));

function effects(one) {
  const changes = one.writes.map((own) => h("div", { class: "written" }, h("div", {}, `${own.new ? "write" : "delete"} `, h("span", { class: "mono break" }, own.key)), h("div", { class: "pair" }, h("div", {}, h("span", { class: "soft" }, "now"), shown(own.old)), h("div", {}, h("span", { class: "soft" }, "then"), shown(own.new)))));
  const emitted = one.emits.map((own) => h("div", { class: "written" }, h("div", {}, "emit ", h("span", { class: "mono break" }, own.subject), own.due ? ` at ${own.due}` : "", own.problem ? h("div", { class: "bad break" }, `it would become a dead letter: ${own.problem}`) : null), shown(own.payload)));
  return h("div", { class: "effects" }, one.cut ? h("p", { class: "note" }, "What is long is cut or left out: the command tells all.") : null, changes, emitted,
    one.log.length ? [h("h3", {}, "Log"), h("pre", { class: "code" }, one.log.join("\n"))] : null,
    one.backtrace.length ? [h("h3", {}, "Functions, innermost first"), h("pre", { class: "code" }, one.backtrace.join("\n"))] : null,
    one.succeeds && !one.cut && changes.length + emitted.length === 0 ? h("p", { class: "soft" }, "no effects") : null);
}
