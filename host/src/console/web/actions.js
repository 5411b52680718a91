// What a viewer does. Each order is shown with the command that does the same, before it is given.

import { get, me, newest, post } from "./api.js";
import { command, h, put, text, toast, word } from "./dom.js";
import { count, fits, plural } from "./format.js";

/** What the viewer may not do: by handler or schedule, the missing permission of each order, or null. */
const rights = { of: null, answers: new Map() };
/** Handlers whose rights are asked for, for one order. What is not known is tried. */
const ASKED_MAX = 8;

async function lacks(order, query) {
  if (rights.of !== me.session) {
    rights.of = me.session;
    rights.answers.clear();
  }
  const key = JSON.stringify(query);
  if (!rights.answers.has(key)) rights.answers.set(key, get("rights", query));
  try {
    return (await rights.answers.get(key))[order] ?? null;
  } catch {
    rights.answers.delete(key);
    return null;
  }
}

/** The subject that the viewer may not publish to and that an order needs, or null. `on`: `{ handlers }`, `{ schedule }`, or nothing. */
export async function missing(order, on = {}) {
  if (!on.handlers) return lacks(order, on);
  const all = [...new Set(on.handlers)].slice(0, ASKED_MAX);
  return (await Promise.all(all.map((handler) => lacks(order, { handler })))).find((subject) => subject) ?? null;
}

export const denied = (subject) => `You may not do this: your user of NATS lacks the permission to publish to ${subject}.`;

/** What is asked about a button when it is seen. */
const unseen = new WeakMap();
const seen = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (!isIntersecting) continue;
    seen.unobserve(target);
    unseen.get(target)?.();
    unseen.delete(target);
  }
});

/** A button for an order. When it is seen, it is disabled if the viewer may not give the order, and says what is missing. */
export function allowed(button, order, on) {
  unseen.set(button, () => missing(order, on).then((subject) => {
    if (!subject) return;
    // It can still be reached, so that the reason is heard.
    button.setAttribute("aria-disabled", "true");
    button.title = denied(subject);
    button.addEventListener("click", (event) => {
      event.stopImmediatePropagation();
      event.preventDefault();
      toast(denied(subject));
    }, { capture: true });
  }));
  seen.observe(button);
  return button;
}

/** The handlers of a selection of letters, as far as it names them. */
export const handlersOf = ({ ids, conditions }) => ids ? ids.map((id) => id.split(".")[0]) : [conditions?.handler].filter(Boolean);

/** A dialog that asks before something is done. `act` returns when it is done, or throws the reason why it is not. */
export function ask({ title, body, verb, danger, order, on, act }) {
  const problem = h("p", { class: "note bad hidden", role: "alert" });
  const say = (message) => {
    text(problem, message);
    problem.classList.toggle("hidden", !message);
  };
  const go = h("button", { type: "submit", class: danger ? "danger" : "main" }, verb);
  const form = h("form", { method: "dialog" },
    h("div", { class: "head" }, h("h1", {}, title)), h("div", { class: "body" }, body, problem),
    h("div", { class: "foot" }, h("button", { type: "button", onclick: () => dialog.close() }, "Cancel"), go));
  const dialog = h("dialog", { "aria-label": title, onclose: () => dialog.remove() }, form);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    go.disabled = true;
    say("");
    try {
      await act(form);
      dialog.close();
    } catch (failed) {
      say(failed.message);
      go.disabled = false;
    }
  });
  document.body.append(dialog);
  dialog.showModal();
  if (order) missing(order, on).then((subject) => {
    if (!subject) return;
    go.disabled = true;
    say(denied(subject));
  });
  return { dialog, go, say };
}

const changed = () => dispatchEvent(new Event("letters-changed"));

/** Replays letters: first it is shown what would be replayed. */
export function replay(selection) {
  const info = h("div", { class: "stack" }, h("p", { class: "loading" }, "Looking for what is meant…"));
  const rate = h("input", { id: "r-rate", type: "number", min: "0.1", step: "any", placeholder: "as fast as the handlers are" });
  const failures = h("input", { id: "r-failures", type: "number", min: "0", max: "100", step: "any", value: "10" });
  const line = h("div");
  const order = () => ({ selection, rate: rate.value ? Number(rate.value) : null, max_failures: Number(failures.value || 0) });
  const fields = h("div", { class: "pair" },
    h("div", { class: "field" }, h("label", { for: "r-rate" }, "At most this many a second"), rate),
    h("div", { class: "field" }, h("label", { for: "r-failures" }, "Stop if more than this percentage failed again"), failures));
  const { go, say } = ask({
    title: "Replay dead letters", verb: "Replay", order: "replay", on: { handlers: handlersOf(selection) },
    body: [info, fields, h("span", { class: "soft" }, "The same by command:"), line],
    act: async () => {
      const { run } = await post("replay", order());
      toast(`Replay ${run} has begun.`);
    },
  });
  go.disabled = true;
  const plans = async () => {
    const found = await post("replay-plan", order());
    return { ...found, subject: await missing("replay", { handlers: found.plan.groups.map((one) => one.handler) }) };
  };
  const look = newest(plans, ({ plan, unserved, command: same, resolved, subject }) => {
    put(info, h("p", {}, h("strong", {}, plural(plan.would_replay, "dead letter")), fits(plan.would_replay, " goes back to the handler that failed on it.", " go back to the handlers that failed on them.")),
      h("ul", { class: "kinds" }, plan.groups.slice(0, 8).map((one) => h("li", {}, `${count(one.count)} of ${one.handler}, ${one.cause}${one.code ? `, ${one.code}` : ""}`))),
      plan.groups.length > 8 ? h("p", { class: "soft" }, `and of ${plural(plan.groups.length - 8, "more group")}`) : null,
      plan.lost ? h("p", { class: "note" }, `${plural(plan.lost, "letter")} ${fits(plan.lost, "is left out: its event was lost with its payload", "are left out: their events were lost with their payloads")}.`) : null,
      resolved ? h("p", { class: "soft" }, `${plural(resolved, "letter")} ${fits(resolved, "is", "are")} resolved already.`) : null,
      unserved.map((why) => h("p", { class: "note" }, why)));
    put(line, command(same));
    go.disabled = !plan.would_replay || subject !== null;
    say(subject ? denied(subject) : "");
  }, (failed) => {
    put(info);
    say(failed.message);
  });
  for (const field of [rate, failures]) field.addEventListener("change", look);
  look();
}

/** Resolves letters without running them. */
export function discard(selection) {
  const reason = h("input", { id: "d-reason", placeholder: "why they are not needed any more", maxlength: "300" });
  const line = h("div");
  const order = () => ({ selection, reason: reason.value.trim() || null });
  const what = selection.ids ? plural(selection.ids.length, "dead letter") : "All dead letters that meet the conditions";
  const stays = selection.ids?.length === 1 ? "the event stays dead, and no replay brings it back" : "the events stay dead, and no replay brings them back";
  const { say } = ask({
    title: "Discard dead letters", verb: "Discard", danger: true, order: "discard", on: { handlers: handlersOf(selection) },
    body: [h("p", {}, h("strong", {}, what), `: ${stays}. Export saves a copy first.`),
      h("div", { class: "field" }, h("label", { for: "d-reason" }, "Reason, which is stored"), reason), h("span", { class: "soft" }, "The same by command:"), line],
    act: async () => {
      const done = await post("discard", order());
      const left = [[done.changed.length, "has", "have", "changed meanwhile"], [done.missing.length, "is", "are", "resolved already"], [done.failed, "was", "were", "refused"], [done.left, "was", "were", "not tried"]];
      toast([`Discarded ${plural(done.discarded, "dead letter")}.`, ...left.filter(([n]) => n).map(([n, one, more, why]) => `${n} ${fits(n, one, more)} ${why}.`)].join(" "));
      changed();
    },
  });
  const show = newest(() => post("discard-plan", order()), (plan) => put(line, command(plan.command)), (failed) => say(failed.message));
  reason.addEventListener("change", show);
  show();
}

/** Gives a letter another payload: it stays the same event. */
export function correct(letter) {
  const payload = h("textarea", { id: "e-payload", rows: 12, spellcheck: "false" });
  payload.value = letter.payload.data;
  const reason = h("input", { id: "e-reason", maxlength: "300" });
  ask({
    title: "Correct the payload", verb: "Store", order: "edit", on: { handlers: [letter.handler] },
    body: [h("p", {}, "The letter keeps both versions, and who has made the new one. A replay then takes the new one, as the same event."),
      h("div", { class: "field" }, h("label", { for: "e-payload" }, "Payload"), payload), h("div", { class: "field" }, h("label", { for: "e-reason" }, "Reason, which is stored"), reason), command(`jetmesh dlq edit ${letter.id}`)],
    act: async () => {
      const done = await post("edit", { id: letter.id, sequence: letter.sequence, payload: payload.value, reason: reason.value.trim() || null });
      toast(`${done.edited ? "The payload is corrected" : "The payload is the same"}.${done.replay ? " A replay was asked for meanwhile, and may have run the one before." : ""}`);
      changed();
    },
  });
}

/** A note and an owner on a group, for the next person who looks. */
export function note(group) {
  const words = h("textarea", { id: "n-text", rows: 3, maxlength: "500" });
  const owner = h("input", { id: "n-owner", maxlength: "100" });
  const line = h("div");
  const show = () => put(line, command(`jetmesh dlq note ${group}${words.value.trim() ? ` ${word(words.value.trim())}` : ""}${owner.value.trim() ? ` --owner ${word(owner.value.trim())}` : ""}`));
  for (const one of [words, owner]) one.addEventListener("input", show);
  show();
  ask({
    title: `Note on group ${group}`, verb: "Store", order: "note",
    body: [h("p", {}, "It replaces the note before. What is left empty stays as it is."), h("div", { class: "field" }, h("label", { for: "n-text" }, "Note"), words), h("div", { class: "field" }, h("label", { for: "n-owner" }, "Who takes care of the group"), owner), line],
    act: async () => {
      await post("note", { group, text: words.value.trim() || null, owner: owner.value.trim() || null });
      toast("The note is stored.");
      changed();
    },
  });
}
