// The datasets of a write: how far each one is.

import { $, Rows, bar, element, setBar, setStatus, setText } from "./parts.js";
import { cell, nameCell } from "./streams.js";
import * as f from "./format.js";

function make(path) {
  const [name, status] = nameCell(path);
  const [progress, done, rate, ratio, left] = [
    cell("Progress", "progress"), cell("Done", "number"), cell("Rate", "number"), cell("Ratio", "number"),
    cell("Left", "number"),
  ];
  const filled = bar();
  progress.node.prepend(filled);
  const node = element("div", { class: "row", role: "row" },
    name, progress.node, done.node, rate.node, ratio.node, left.node);
  return { node, status, filled, progress, done, rate, ratio, left };
}

function share(dataset) {
  if (["written", "verified"].includes(dataset.state)) return 1;
  if (dataset.raw_total === null) return dataset.state === "writing" ? null : 0;
  return dataset.raw_total ? dataset.raw_done / dataset.raw_total : 0;
}

function about(dataset) {
  if (!dataset.shape) return "";
  return `${dataset.shape.map((n) => (n === null ? "?" : f.count(n))).join(" × ")} ${dataset.dtype}`;
}

function fill(row, dataset) {
  const part = share(dataset);
  setStatus(row.status, dataset.state);
  setBar(row.filled, part);
  setText(row.progress.value, part === null ? "length unknown" : `${Math.floor(part * 100)}\u00a0%`);
  setText(row.progress.note, about(dataset));
  setText(row.done.value, f.bytesText(dataset.raw_done));
  setText(row.done.note, dataset.raw_total === null ? "" : `of ${f.bytesText(dataset.raw_total)}`);
  setText(row.rate.value, dataset.bytes_per_second ? f.rateText(dataset.bytes_per_second) : "–");
  setText(row.ratio.value, f.ratio(dataset.ratio));
  const going = dataset.state === "writing" && dataset.left_seconds !== null;
  setText(row.left.value, going ? f.about(dataset.left_seconds) : "–");
}

export class Datasets {
  constructor() { this.rows = new Rows($("datasets"), make); }

  show(state) {
    const shown = state.run.kind === "write" ? state.datasets : [];
    $("dataset-part").hidden = shown.length === 0;
    this.rows.update(shown, fill);
    const total = state.datasets_total;
    setText($("dataset-head"), total === 1 ? "Dataset" : `${state.datasets_done} of ${f.count(total)} datasets written`);
    $("dataset-more").hidden = shown.length === 0 || total === shown.length;
    setText($("dataset-more"), `${f.count(total - shown.length)} more are not shown.`);
  }

  clear() { this.rows.clear(); }
}
