// Exports: the browser writes a file, and it is told here how far it is and what the file lacks.

import { get, post } from "./api.js";
import { ask } from "./actions.js";
import { byId, command, h, look, put, text } from "./dom.js";
import { count, fits, plural } from "./format.js";

/** How long the account of a whole export stays. */
const RESULT = 60000;

/** Downloads letters: those of ids, those that meet conditions, or all. */
export function download(selection) {
  const line = h("div");
  const what = selection.ids ? plural(selection.ids.length, "dead letter") : selection.all ? "All dead letters" : "All dead letters that meet the conditions";
  const { say } = ask({
    title: "Export dead letters", verb: "Download",
    body: [h("p", {}, h("strong", {}, what), ": a file with a line of JSON for each. `jetmesh dlq import FILE` puts back what is not there any more."), h("span", { class: "soft" }, "The same by command:"), line],
    act: async () => {
      const { ticket } = await post("export", { selection });
      const link = h("a", { href: `/api/export/${ticket}`, download: "" });
      document.body.append(link);
      link.click();
      link.remove();
      follow(ticket);
    },
  });
  post("export-plan", { selection }).then((plan) => put(line, command(`${plan.command} --output FILE`)), (failed) => say(failed.message));
}

/** A card that tells how far an export is, and how it has ended. */
function follow(ticket) {
  const state = h("span", { class: "tag" }, "runs");
  const figures = h("div", { class: "figures" });
  const node = h("section", { class: "card run", "aria-label": "Export" },
    h("div", { class: "line" }, h("strong", {}, "Export"), state, h("span", { class: "space" }), h("button", { type: "button", class: "plain small", "aria-label": "Close", onclick: () => node.remove() }, "×")), figures);
  byId("runs").append(node);
  const ended = (word, kind, ...more) => {
    text(state, word);
    look(state, `tag ${kind}`);
    figures.append(...more.flat());
    if (kind === "ok") setTimeout(() => node.remove(), RESULT);
  };
  const next = async () => {
    if (!node.isConnected) return;
    try {
      const { letters, end } = await get("export", { ticket });
      put(figures, h("span", {}, `${plural(letters, "letter")} in the file`));
      if (!end) return setTimeout(next, 1000);
      if (end.broken) return ended("broken off", "bad", h("span", { class: "bad break" }, `The file is not whole: ${end.broken}`));
      const lacks = [];
      if (end.missing) lacks.push(h("span", { class: "warn break" }, `${count(end.missing)} ${fits(end.missing, "is", "are")} not there, or resolved: ${end.first_missing.join(" ")}${end.missing > end.first_missing.length ? " …" : ""}`));
      if (end.unread) lacks.push(h("span", { class: "warn break" }, end.unread));
      if (lacks.length) ended("incomplete", "warn", lacks, h("span", { class: "soft" }, "The last line of the file says so, too."));
      else ended("whole", "ok");
    } catch (failed) {
      ended("not known", "warn", h("span", { class: "warn break" }, `It is not known how far it is: ${failed.message}`));
    }
  };
  next();
}
