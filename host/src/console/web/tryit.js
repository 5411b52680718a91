// Try it: publish an event, and break a handler with one. Only where `jetmesh dev` runs the mesh.

import { post } from "./api.js";
import { command, h, put, toast, word } from "./dom.js";
import { meet } from "./picture.js";

const SAMPLE = "orders.created";
let number = 0;

/** An order as the sample handlers know it. */
const order = (sku, qty) => JSON.stringify({ order_id: `c-${Date.now()}-${++number}`, user_id: "u-7", locale: "en", lines: [{ sku, qty, price_cents: 1250 }], total_cents: 2500 });

export function tryIt(mesh) {
  const reads = mesh.handlers.flatMap((one) => (one.subjects.length ? one.subjects : mesh.streams.find((own) => own.stream === one.stream)?.subjects ?? []));
  const sample = reads.some((own) => meet(own, SAMPLE));
  const example = (reads[0] ?? "events.example").replace(/[*>]/g, "example");
  const subject = h("input", { id: "t-subject", value: sample ? SAMPLE : example, spellcheck: "false", required: true });
  const payload = h("textarea", { id: "t-payload", rows: 2, spellcheck: "false" });
  payload.value = sample ? order("sku-1", 1) : "{}";
  const line = h("div");
  const show = () => put(line, command(`nats pub ${word(subject.value.trim())} ${word(payload.value)}`));
  for (const one of [subject, payload]) one.addEventListener("input", show);
  show();
  const send = async (text) => {
    show();
    try {
      const { sequence } = await post("publish", { subject: subject.value.trim(), payload: text });
      toast(`Stored as message ${sequence}.`);
    } catch (failed) {
      toast(failed.message);
    }
  };
  const quick = (name, text) => h("button", { type: "button", class: "small", onclick: () => { subject.value = SAMPLE; payload.value = text(); send(payload.value); } }, name);
  return h("section", { class: "card", "aria-label": "Try it" },
    h("div", { class: "head" }, h("h2", {}, "Try it"), h("span", { class: "soft" }, "this mesh is for development"), h("span", { class: "space" }),
      sample ? [quick("An order", () => order("sku-1", 1)), quick("One that is out of stock", () => order("sku-3", 500)), quick("Break all handlers", () => "not an order")] : null),
    h("div", { class: "body stack" }, h("p", { class: "soft" }, "An event goes to the handlers below. What none of them can handle becomes a dead letter: find it under Dead letters, rehearse it with a fix, and replay it."), h("form", { onsubmit: (event) => { event.preventDefault(); send(payload.value); } },
      h("div", { class: "field" }, h("label", { for: "t-subject" }, "Subject"), subject),
      h("div", { class: "field" }, h("label", { for: "t-payload" }, "Payload"), payload),
      h("button", { type: "submit", class: "main" }, "Publish")), h("span", { class: "soft" }, "The same by command:"), line));
}
