// Waiting: events between two attempts, delayed events, schedules, paused handlers.

import { get, post } from "./api.js";
import { allowed, ask } from "./actions.js";
import { command, h, put, text, toast, word } from "./dom.js";
import { clock, count, everything, fits, plural } from "./format.js";
import { age, lasting } from "./time.js";

const SCHEDULES = { armed: "ok", paused: "", late: "bad", held: "warn", over: "", disarmed: "warn", unarmed: "warn" };

export function waiting(main, _path, query) {
  const events = h("section", { class: "card", "aria-label": "Between two attempts" });
  const others = h("div", { class: "stack" });
  put(main, h("div", { class: "title" }, h("h1", {}, "Waiting"), h("span", { class: "space" }), h("button", { type: "button", class: "plain", onclick: () => load() }, "Read again")), h("div", { class: "stack" }, others, events));
  const load = () => Promise.all([showOthers(others, load), showRetrying(events, query.handler, load)]);
  put(others, h("p", { class: "loading" }, "Reading…"));
  load();
}

const failure = (what, failed) => h("p", { class: `note ${failed.status === 404 ? "info" : "bad"}`, role: "alert" }, `${what}: ${failed.message}`);

async function showRetrying(card, handler, load) {
  try {
    const { retrying, count: all, unreadable } = await get("retrying", { handler });
    const chosen = new Set();
    const now = h("button", { type: "button", onclick: () => retryNow([...chosen], load) }, "Run now");
    const give = h("button", { type: "button", class: "danger", onclick: () => giveUp([...chosen], load) }, "Give up");
    const told = h("span", { class: "soft" });
    const show = () => {
      now.disabled = give.disabled = chosen.size === 0;
      text(told, chosen.size ? `${chosen.size} selected` : "");
    };
    show();
    const row = (one) => h("tr", {},
      h("td", { class: "c-box" }, h("input", { type: "checkbox", "aria-label": `Select ${one.id}`, onchange: (event) => { (event.target.checked ? chosen.add(one.id) : chosen.delete(one.id)); show(); } })),
      h("td", {}, h("a", { class: "mono", href: `#/where?id=${encodeURIComponent(one.event)}` }, one.id)),
      h("td", { class: "num", "data-name": "attempt" }, `${one.attempts} of ${one.max_attempts ?? "?"}`),
      h("td", { class: "nowrap", "data-name": "next" }, one.given_up ? "given up" : one.running_on ? `runs on ${one.running_on}` : one.paused ? "when resumed" : age(one.next)),
      h("td", { class: "mono soft c-subject" }, one.subject), h("td", {}, one.code ? h("span", { class: "tag" }, one.code) : null), h("td", { class: "cut", title: one.error ?? "" }, one.error ?? ""));
    put(card, h("div", { class: "head" }, h("h2", {}, `Between two attempts${handler ? ` of ${handler}` : ""}`), told, h("span", { class: "space" }), handler ? h("a", { href: "#/waiting" }, "All handlers") : null, now, give),
      retrying.length ? h("div", { class: "scroll" }, h("table", { class: "retrying cards" }, h("thead", {}, h("tr", {}, ["", "Event", "Attempt", "Next", "Subject", "Code", "Last error"].map((name, at) => h("th", { scope: "col", class: at === 2 ? "num" : at === 4 ? "c-subject" : "" }, name || h("span", { class: "sr" }, "select"))))), h("tbody", {}, retrying.map(row))))
        : h("div", { class: "empty" }, h("strong", {}, "Nothing is being retried"), "No event has failed and waits for its next attempt."),
      h("div", { class: "foot" }, retrying.length < all ? `The next ${retrying.length} of ${count(all)} are shown.` : `${everything(all, "record")}.`, unreadable.map((why) => h("span", { class: "warn" }, why))));
  } catch (failed) {
    put(card, h("div", { class: "head" }, h("h2", {}, "Between two attempts")), h("div", { class: "body" }, failure("It is not known what is being retried", failed)));
  }
}

function retryNow(ids, load) {
  ask({
    title: "Run now", verb: "Run now", order: "retry-now", on: { handlers: ids.map((id) => id.split(".")[0]) },
    body: [h("p", {}, ids.length === 1 ? "The next attempt at the event begins now, and not when it is due." : `The next attempts at ${ids.length} events begin now, and not when they are due.`), command(`jetmesh retrying now ${ids.map(word).join(" ")} --yes`)],
    act: async () => acted(await post("retry-now", { ids, reason: null }), "Asked for the next attempt at", load),
  });
}

function giveUp(ids, load) {
  const reason = h("input", { id: "g-reason", maxlength: "300" });
  ask({
    title: "Give up", verb: "Give up", danger: true, order: "give-up", on: { handlers: ids.map((id) => id.split(".")[0]) },
    body: [h("p", {}, `No attempt follows at ${plural(ids.length, "event")}: ${fits(ids.length, "it", "each")} becomes a dead letter.`), h("div", { class: "field" }, h("label", { for: "g-reason" }, "Reason, which is stored"), reason), command(`jetmesh retrying give-up ${ids.map(word).join(" ")} --yes`)],
    act: async () => acted(await post("give-up", { ids, reason: reason.value.trim() || null }), "Gave up", load),
  });
}

function acted(done, verb, load) {
  const more = [[done.running.length, "runs at this moment", "run at this moment"], [done.missing.length, "is decided already", "are decided already"]].filter(([n]) => n).map(([n, one, more]) => `${n} ${fits(n, one, more)}.`);
  toast([`${verb} ${plural(done.acted, "event")}.`, ...more, ...done.waits.map((one) => `Events of ${one.handler} wait: ${one.why}.`)].join(" "));
  setTimeout(load, 800);
}

async function showOthers(node, load) {
  try {
    const all = await get("waiting");
    const delayed = h("section", { class: "card", "aria-label": "Delayed events" });
    put(node, h("div", { class: "two" }, pausedCard(all, load), delayedFacts(all.delayed)), schedulesCard(all, load), delayed);
    await showDelayed(delayed, load);
  } catch (failed) {
    put(node, failure("Pauses, delayed events and schedules could not be read", failed));
  }
}

function pausedCard({ handlers, paused }, load) {
  const names = Object.keys(paused);
  const running = handlers.filter((name) => !(name in paused));
  const choice = h("select", { "aria-label": "Handler" }, running.map((name) => h("option", { value: name }, name)));
  const rows = names.map((name) => h("li", {}, h("span", { class: "dot hold" }), h("div", { class: "part" },
    h("div", { class: "line" }, h("strong", {}, name), h("span", { class: "soft" }, "for ", lasting(paused[name].since), ` by ${paused[name].by}${paused[name].until ? `, until ${clock(paused[name].until)}` : ""}`), h("span", { class: "space" }),
      handlers.includes(name) ? allowed(h("button", { type: "button", class: "small", onclick: () => resume(name, load) }, "Resume"), "resume", { handlers: [name] }) : null),
    paused[name].reason ? h("div", { class: "break" }, paused[name].reason) : null)));
  return h("section", { class: "card", "aria-label": "Paused handlers" },
    h("div", { class: "head" }, h("h2", {}, "Paused handlers"), h("span", { class: "space" }), running.length ? [choice, h("button", { type: "button", onclick: () => pause(choice.value, load) }, "Pause…")] : null),
    rows.length ? h("ul", { class: "timeline" }, rows) : h("div", { class: "empty" }, "No handler is paused."));
}

function pause(name, load) {
  const reason = h("input", { id: "p-reason", maxlength: "300", placeholder: "for the next person who looks" });
  const lasts = h("input", { id: "p-lasts", placeholder: "until it is resumed; or such as 1h", size: "12" });
  const line = h("div");
  const show = () => put(line, command(`jetmesh pause ${name}${reason.value.trim() ? ` --reason ${word(reason.value.trim())}` : ""}${lasts.value.trim() ? ` --for ${word(lasts.value.trim())}` : ""}`));
  for (const one of [reason, lasts]) one.addEventListener("input", show);
  show();
  ask({
    title: `Pause ${name}`, verb: "Pause", order: "pause", on: { handlers: [name] },
    body: [h("p", {}, "No event of it begins on any host, and no attempt is counted, until it is resumed. What runs ends as usual."),
      h("div", { class: "pair" }, h("div", { class: "field" }, h("label", { for: "p-reason" }, "Reason"), reason), h("div", { class: "field" }, h("label", { for: "p-lasts" }, "For how long"), lasts)), line],
    act: async () => {
      const [done] = await post("pause", { handler: name, reason: reason.value.trim() || null, lasts: lasts.value.trim() || null });
      toast(`${name} is paused.${behind(done.hosts_behind)}`);
      load();
    },
  });
}

function behind(hosts) {
  if (!hosts) return " It is not known whether the hosts obey already: they cannot be asked.";
  return hosts.length ? ` Hosts that have not reported yet that they obey: ${hosts.join(", ")}.` : "";
}

function resume(name, load) {
  ask({
    title: `Resume ${name}`, verb: "Resume", order: "resume", on: { handlers: [name] },
    body: [h("p", {}, "Its events are taken again, on all hosts."), command(`jetmesh resume ${name}`)],
    act: async () => {
      const [done] = await post("resume", { handler: name });
      toast(done.resumed ? `${name} is resumed.` : `${name} was not paused.`);
      load();
    },
  });
}

async function showDelayed(card, load) {
  try {
    const { delayed, count: all, unread } = await get("delayed");
    const act = (one, call, verb, what, fields, reason) => ask({
      title: `${verb} ${one.id}`, verb, order: `delayed-${call}`, on: { handlers: [one.handler] }, danger: call === "cancel", body: [h("p", {}, what), ...fields, command(`jetmesh delayed ${call} ${one.id} --yes`)],
      act: async () => {
        const done = await post(`delayed-${call}`, { ids: [one.id], reason: reason?.value.trim() || null });
        toast(done.acted ? (call === "cancel" ? "It is cancelled." : "It is due now.") : "It does not wait any more: it is due, published or cancelled.");
        setTimeout(load, 800);
      },
    });
    const cancel = (one) => {
      const reason = h("input", { id: "d-reason", maxlength: "300" });
      act(one, "cancel", "Cancel", `The event to ${one.subject} is never published.`, [h("div", { class: "field" }, h("label", { for: "d-reason" }, "Reason, which is stored"), reason)], reason);
    };
    const row = (one) => h("tr", {},
      h("td", { class: "mono break" }, one.id), h("td", { class: "nowrap", "data-name": "due" }, age(one.due)), h("td", { class: "mono soft c-subject" }, one.subject), h("td", {}, one.timer ? h("span", { class: "tag" }, "timer") : null),
      h("td", { class: "right nowrap" }, h("button", { type: "button", class: "small", onclick: () => act(one, "now", "Publish now", `The event to ${one.subject} is published now, and not when it is due.`, []) }, "Publish now"), " ",
        one.timer ? null : h("button", { type: "button", class: "small danger", onclick: () => cancel(one) }, "Cancel")));
    put(card, h("div", { class: "head" }, h("h2", {}, "Delayed events")),
      delayed.length ? h("div", { class: "scroll" }, h("table", { class: "cards" }, h("thead", {}, h("tr", {}, ["Event", "Due", "Subject", "", ""].map((name, at) => h("th", { scope: "col", class: at === 2 ? "c-subject" : "" }, name || h("span", { class: "sr" }, at === 3 ? "kind" : "actions"))))), h("tbody", {}, delayed.map(row))))
        : h("div", { class: "empty" }, "No event waits for its time."),
      h("div", { class: "foot" }, unread ? h("span", { class: "warn" }, `${count(unread)} more ${fits(unread, "was", "were")} not read.`) : null, delayed.length < all ? `The next ${delayed.length} of ${count(all)} are shown.` : `${everything(all, "event")}. Timers of schedules are not among them.`));
  } catch (failed) {
    put(card, h("div", { class: "head" }, h("h2", {}, "Delayed events")), h("div", { class: "body" }, failure("It is not known which events are delayed", failed)));
  }
}

const delayedFacts = ({ waiting: n, due, oldest_due }) => h("section", { class: "card", "aria-label": "Delayed events, counted" },
  h("div", { class: "head" }, h("h2", {}, "Delayed events, counted")),
  h("div", { class: "body" }, h("dl", { class: "facts" }, h("dt", {}, "Wait for their time"), h("dd", {}, count(n)), h("dt", {}, "Due and not published"), h("dd", { class: due ? "warn" : "" }, due ? [`${count(due)}, the oldest `, age(oldest_due)] : "0")), h("p", { class: "soft" }, "Timers of handlers and of schedules are among them.")));

function schedulesCard({ schedules, unread }, load) {
  const step = (one, call, verb, what) => ask({
    title: `${verb} ${one.schedule}`, verb, order: `schedule-${call}`, on: { schedule: one.schedule }, body: [h("p", {}, what), command(`jetmesh schedule ${call} ${one.schedule}`)],
    act: async () => {
      toast(`${(await post(`schedule-${call}`, { schedule: one.schedule })).told}.`);
      load();
    },
  });
  const button = (one, call, verb, what) => allowed(h("button", { type: "button", class: "small", onclick: () => step(one, call, verb, what) }, verb), `schedule-${call}`, { schedule: one.schedule });
  const row = (one) => h("tr", {},
    h("td", {}, h("strong", {}, one.schedule)), h("td", {}, h("span", { class: `tag ${SCHEDULES[one.state] ?? ""}` }, one.state), one.why ? h("div", { class: "soft break" }, one.why) : null),
    h("td", { class: "mono" }, one.when), h("td", { class: "mono soft c-subject" }, one.subject), h("td", { class: "nowrap", "data-name": "next" }, one.next ? age(one.next) : "–"), h("td", { class: "nowrap", "data-name": "last" }, one.last ? age(one.last) : "–"),
    h("td", { class: "num", "data-name": "runs" }, count(one.runs)), h("td", { class: `num ${one.missed ? "warn" : ""}`, "data-name": "missed" }, count(one.missed)),
    h("td", { class: "right nowrap" }, button(one, "run", "Run now", "One event of it is emitted now, besides those of its due times."), " ",
      one.state === "paused" ? button(one, "resume", "Resume", "Due times during the pause stay without an event.") : button(one, "pause", "Pause", "No event comes of it until it is resumed.")));
  return h("section", { class: "card", "aria-label": "Schedules" }, h("div", { class: "head" }, h("h2", {}, "Schedules")),
    schedules.length ? h("div", { class: "scroll" }, h("table", { class: "cards" }, h("thead", {}, h("tr", {}, ["Schedule", "State", "When", "Subject", "Next", "Last", "Runs", "Missed", ""].map((name, at) => h("th", { scope: "col", class: at === 6 || at === 7 ? "num" : at === 3 ? "c-subject" : "" }, name || h("span", { class: "sr" }, "actions"))))), h("tbody", {}, schedules.map(row)))) : h("div", { class: "empty" }, "There is no schedule."),
    unread.length ? h("div", { class: "foot" }, unread.map((why) => h("span", { class: "warn" }, why))) : null);
}
