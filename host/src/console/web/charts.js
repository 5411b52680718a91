// Small charts, drawn by hand.

import { s } from "./dom.js";

/** A line of the last values, with the area below it. `update` draws it again. */
export function spark(width, height, label) {
  const area = s("path", { class: "area" });
  const line = s("path", { class: "stroke" });
  const svg = s("svg", { class: "spark", viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", role: "img", "aria-label": label }, area, line);
  const update = (values, least = 1) => {
    const known = values.filter((value) => !Number.isNaN(value));
    const top = Math.max(least, ...known);
    const step = width / Math.max(1, values.length - 1);
    const y = (value) => (height - 1 - (value / top) * (height - 3)).toFixed(1);
    let path = "";
    let shape = "";
    let open = null;
    values.forEach((value, at) => {
      const x = (at * step).toFixed(1);
      if (Number.isNaN(value)) {
        if (open !== null) shape += `L${open} ${height}Z`;
        open = null;
        return;
      }
      path += `${open === null ? "M" : "L"}${x} ${y(value)}`;
      shape += `${open === null ? `M${x} ${height}L` : "L"}${x} ${y(value)}`;
      open = x;
    });
    if (open !== null) shape += `L${open} ${height}Z`;
    line.setAttribute("d", path);
    area.setAttribute("d", shape);
  };
  return { svg, update };
}
