// Replays that run, whichever console makes them: every viewer sees how far they are.

import { post } from "./api.js";
import { byId, h, put, text, toast } from "./dom.js";
import { count, plural, span } from "./format.js";
import { live } from "./live.js";

/** Without news for this time, a run is not known to go on. */
const SILENT = 5000;
/** How long the result of a run stays. */
const RESULT = 60000;
const ENDS = { over: "done", "too-many-failures": "stopped: too many failed again", interrupted: "stopped", unserved: "waits for a host", broken: "broken off" };

const runs = new Map();

live.addEventListener("progress", ({ detail }) => {
  if (typeof detail?.run !== "string") return;
  let run = runs.get(detail.run);
  if (!run) {
    // More than a person can follow.
    if (runs.size >= 12) return;
    runs.set(detail.run, (run = card(detail)));
    byId("runs").append(run.node);
  }
  run.update(detail);
  if (detail.end) dispatchEvent(new Event("letters-changed"));
});

setInterval(() => {
  for (const [name, run] of runs) {
    const quiet = Date.now() - run.heard;
    if (run.ended && quiet > RESULT) remove(name);
    else if (!run.ended && quiet > SILENT) run.lost();
  }
}, 1000);

function remove(name) {
  runs.get(name)?.node.remove();
  runs.delete(name);
}

function card(first) {
  const title = h("strong", {}, "");
  const what = h("span", { class: "soft break" });
  const bar = h("progress", { max: "1", value: 0 });
  const figures = h("div", { class: "figures" });
  const state = h("span", { class: "tag" });
  const stop = h("button", { type: "button", class: "small", onclick: () => post("replay-stop", { run: first.run }).catch((failed) => toast(failed.message)) }, "Stop");
  const close = h("button", { type: "button", class: "plain small", "aria-label": "Close", onclick: () => remove(first.run) }, "×");
  const node = h("section", { class: "card run", "aria-label": `Replay ${first.run}` },
    h("div", { class: "line" }, title, state, h("span", { class: "space" }), stop, close), what, bar, figures);
  const run = {
    node, heard: Date.now(), ended: false,
    update(now) {
      run.heard = Date.now();
      run.ended = Boolean(now.end);
      const decided = now.succeeded + now.failed + now.otherwise;
      text(title, `Replay of ${plural(now.meant, "dead letter")}`);
      text(what, `${now.what} · by ${now.by}`);
      bar.max = Math.max(1, now.meant);
      bar.value = decided;
      const rate = now.seconds > 0.5 ? `${count(Math.round(decided / now.seconds))}/s` : "";
      put(figures, [[now.succeeded, "succeeded", "ok"], [now.failed, "failed again", "bad"], [now.otherwise, "by others", "soft"], [now.undecided, "undecided", "soft"], [now.not_sent, "not sent", "soft"]]
        .filter(([n, name]) => n > 0 || name === "succeeded").map(([n, name, kind]) => h("span", { class: kind }, `${count(n)} ${name}`)), h("span", { class: "soft" }, `${span(now.seconds * 1000)} ${rate}`));
      text(state, run.ended ? ENDS[now.end] ?? now.end : "runs");
      state.className = `tag ${now.end === "over" ? (now.failed ? "warn" : "ok") : run.ended ? "bad" : ""}`;
      node.title = now.command ?? "";
      if (now.why) figures.append(h("span", { class: "bad break" }, now.why));
      stop.classList.toggle("hidden", run.ended);
    },
    lost() {
      text(state, "no news");
      state.className = "tag warn";
    },
  };
  return run;
}
