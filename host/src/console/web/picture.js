// The mesh as a picture: streams, the handlers that read them, and the streams that these emit into.

import { h, s } from "./dom.js";
import { rate } from "./format.js";

/** Beyond this a picture shows nothing; the table does. */
const HANDLERS_MAX = 40;
const [WIDTH, HEIGHT, GAP_X, GAP_Y] = [168, 40, 84, 14];

/** Whether some subject matches both patterns. */
export function meet(a, b) {
  const [left, right] = [a.split("."), b.split(".")];
  for (let at = 0; ; at++) {
    const [one, other] = [left[at], right[at]];
    if (one === ">" ? other !== undefined : other === ">" && one !== undefined) return true;
    if (one === undefined || other === undefined) return one === other;
    if (one !== other && one !== "*" && other !== "*") return false;
  }
}

/** Nodes and edges of a mesh. */
function graph(mesh) {
  const nodes = new Map();
  const edges = [];
  const node = (id, kind, name, more) => {
    if (!nodes.has(id)) nodes.set(id, { id, kind, name, more });
    return id;
  };
  const stream = (name) => node(`s:${name}`, "stream", name, mesh.streams.find((one) => one.stream === name)?.subjects.join(", "));
  const capturing = (subject) => mesh.streams.filter((one) => one.subjects.some((own) => meet(own, subject))).map((one) => one.stream);
  for (const one of mesh.handlers) {
    const own = node(`h:${one.handler}`, "handler", one.handler, one.subjects.join(", ") || "all subjects");
    edges.push({ from: stream(one.stream), to: own, handler: one.handler, part: "in" });
    const targets = new Set(one.publish.flatMap((subject) => {
      const found = capturing(subject);
      return found.length ? found : [`${subject}`];
    }));
    for (const target of targets) edges.push({ from: own, to: stream(target), handler: one.handler, part: "out" });
  }
  for (const one of mesh.outboxes) edges.push({ from: node(`o:${one.name}`, "source", one.name, "outbox"), to: stream(one.to) });
  for (const one of mesh.schedules) {
    const from = node(`c:${one.name}`, "source", one.name, "schedule");
    for (const target of capturing(one.to)) edges.push({ from, to: stream(target) });
  }
  return { nodes, edges };
}

/** Edges that lead back to where a way has come from. Ways begin where little comes in and much is read. */
function backwards({ nodes, edges }) {
  const [back, done, open] = [new Set(), new Set(), new Set()];
  const walk = (id) => {
    if (done.has(id)) return;
    open.add(id);
    for (const edge of edges) {
      if (edge.from !== id) continue;
      if (open.has(edge.to)) back.add(edge);
      else walk(edge.to);
    }
    open.delete(id);
    done.add(id);
  };
  const degree = (id, end) => edges.filter((edge) => edge[end] === id).length;
  const first = [...nodes.keys()].sort((a, b) => degree(a, "to") - degree(b, "to") || degree(b, "from") - degree(a, "from"));
  const sources = first.filter((id) => degree(id, "to") === 0 && !id.startsWith("h:"));
  const streams = first.filter((id) => id.startsWith("s:"));
  for (const id of [...sources.filter((one) => one.startsWith("s:")), ...streams, ...first]) walk(id);
  return back;
}

/** A column for each node: as far from the beginning as its longest way; an edge that leads back does not count. */
function columns({ nodes, edges }) {
  const column = new Map();
  const back = backwards({ nodes, edges });
  const of = (id) => {
    if (column.has(id)) return column.get(id);
    const before = edges.filter((edge) => edge.to === id && !back.has(edge)).map((edge) => of(edge.from) + 1);
    column.set(id, Math.max(0, ...before));
    return column.get(id);
  };
  for (const id of nodes.keys()) of(id);
  // What only begins stands just before where it leads.
  for (const id of nodes.keys()) {
    const after = edges.filter((edge) => edge.from === id && !back.has(edge)).map((edge) => column.get(edge.to));
    if (after.length && !edges.some((edge) => edge.to === id)) column.set(id, Math.max(0, Math.min(...after) - 1));
  }
  const list = [];
  for (const [id, at] of column) (list[at] ??= []).push(id);
  return { list: list.map((one) => one ?? []), back };
}

/** Nodes in an order in which few edges cross. */
function order(list, edges) {
  for (let round = 0; round < 4; round++) {
    for (let at = 1; at < list.length; at++) {
      const place = new Map(list[at - 1].map((id, index) => [id, index]));
      const middle = (id) => {
        const from = edges.filter((edge) => edge.to === id && place.has(edge.from)).map((edge) => place.get(edge.from));
        return from.length ? from.reduce((sum, n) => sum + n, 0) / from.length : place.size;
      };
      const key = new Map(list[at].map((id) => [id, middle(id)]));
      list[at].sort((a, b) => key.get(a) - key.get(b));
    }
  }
}

/** The picture, and what sets the rates on its edges. */
export function picture(mesh) {
  if (mesh.handlers.length > HANDLERS_MAX) {
    const note = `The mesh has ${mesh.handlers.length} handlers. A picture shows at most ${HANDLERS_MAX}; the table below has all.`;
    return { node: h("p", { class: "empty" }, note), update() {} };
  }
  const whole = graph(mesh);
  const { list, back } = columns(whole);
  order(list, whole.edges);
  const rows = Math.max(1, ...list.map((one) => one.length));
  // Ways that lead back go around the others.
  const side = back.size ? 44 : 4;
  const [width, height] = [list.length * (WIDTH + GAP_X) - GAP_X + 2 * side, rows * (HEIGHT + GAP_Y) - GAP_Y + (back.size ? 44 : 8)];
  const place = new Map();
  list.forEach((ids, x) => ids.forEach((id, y) => {
    const top = 4 + ((rows - ids.length) * (HEIGHT + GAP_Y)) / 2 + y * (HEIGHT + GAP_Y);
    place.set(id, { x: side + x * (WIDTH + GAP_X), y: top });
  }));
  const drawn = whole.edges.map((edge) => drawEdge(edge, place, back.has(edge), height));
  const boxes = [...whole.nodes.values()].map((node) => drawNode(node, place.get(node.id)));
  const svg = s("svg", { class: "picture", viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": told(mesh) },
    drawn.map((one) => one.path), drawn.map((one) => one.label), boxes.map((one) => one.group));
  const update = (live) => {
    for (const { edge, path, label } of drawn) {
      const now = edge.handler ? live.handlers.get(edge.handler)?.rate.last : NaN;
      const flows = now > 0;
      path.setAttribute("class", flows ? "edge flows" : "edge");
      path.setAttribute("stroke-width", flows ? Math.min(5, 1.2 + Math.log10(1 + now)).toFixed(2) : "1.2");
      if (edge.part === "in") label.textContent = flows ? `${rate(now)}/s` : "";
    }
    for (const { node, dot } of boxes) if (dot) dot.setAttribute("class", `state ${stateOf(live.handlers.get(node.name))}`);
  };
  return { node: h("div", { class: "scroll" }, svg), update };
}

const stateOf = (handler) => (!handler?.now.serving ? "bad" : handler.failed.last > 0 ? "warn" : "ok");

function told(mesh) {
  const parts = mesh.handlers.map((one) => `${one.handler} reads ${one.stream}${one.publish.length ? ` and emits to ${one.publish.join(", ")}` : ""}`);
  return `The mesh: ${parts.join("; ")}.`;
}

function drawEdge(edge, place, isBack, height) {
  const [from, to] = [place.get(edge.from), place.get(edge.to)];
  const [x1, y1, x2, y2] = [from.x + WIDTH, from.y + HEIGHT / 2, to.x, to.y + HEIGHT / 2];
  const bend = Math.max(30, (x2 - x1) / 2);
  const way = isBack
    ? `M${x1} ${y1}C${x1 + 46} ${y1} ${x1 + 46} ${height - 8} ${x1 - 20} ${height - 8}L${x2 + 20} ${height - 8}C${x2 - 46} ${height - 8} ${x2 - 46} ${y2} ${x2} ${y2}`
    : `M${x1} ${y1}C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}`;
  // On the side of the edge where it does not cross it.
  const label = s("text", { class: "rate", x: x2 - 8, y: y2 > y1 ? y2 + 13 : y2 - 5, "text-anchor": "end" });
  return { edge, path: s("path", { class: "edge", d: way }), label };
}

function drawNode(node, { x, y }) {
  const dot = node.kind === "handler" ? s("circle", { class: "state", cx: x + 14, cy: y + 14, r: 4 }) : null;
  const group = s("g", { class: `node ${node.kind}` },
    s("title", {}, `${node.kind} ${node.name}${node.more ? `: ${node.more}` : ""}`),
    s("rect", { x, y, width: WIDTH, height: HEIGHT, rx: node.kind === "stream" ? 3 : 8 }),
    dot,
    s("text", { class: "name", x: x + (dot ? 26 : 12), y: y + 18 }, cut(node.name, dot ? 19 : 21)),
    s("text", { class: "more", x: x + 12, y: y + 33 }, cut(node.more ?? "", 23)));
  return { node, group, dot };
}

const cut = (text, length) => (text.length > length ? `${text.slice(0, length - 1)}…` : text);
