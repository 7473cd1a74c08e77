// The streams of a recording: a row each, or a card where it is narrow.

import { $, Rows, STATUS, bar, drawCurve, element, setBar, setClass, setStatus, setText } from "./parts.js";
import * as f from "./format.js";

const SVG = "http://www.w3.org/2000/svg";

// What a thing is called, and where it is. A dataset called "data" says nothing without its series.
export function splitName(path) {
  const own = path.match(/[^/]*(\/(data|timestamps))?$/)[0];
  return [path.slice(0, path.length - own.length), own];
}

export function nameCell(path) {
  const [place, name] = splitName(path);
  const status = element("span", { class: "status" });
  const cell = element("div", { class: "name", role: "cell", title: path },
    element("span", { class: "own", text: name }), element("span", { class: "place", text: place }), status);
  return [cell, status];
}

export function cell(label, className = "") {
  const value = element("span", { class: "value" });
  const note = element("span", { class: "note" });
  const node = element("div", { class: `cell ${className}`, role: "cell", "data-label": label }, value, note);
  return { node, value, note };
}

function make(path) {
  const [name, status] = nameCell(path);
  const spark = document.createElementNS(SVG, "svg");
  spark.setAttribute("class", "spark");
  spark.setAttribute("preserveAspectRatio", "none");
  spark.setAttribute("role", "img");
  const curve = element("div", { class: "cell curve", role: "cell" });
  curve.append(spark);
  const [rate, safe, queue, lag, dropped] = [
    cell("Rate", "number"), cell("Safe", "number"), cell("Queue", "queue"), cell("Lag", "number lag"),
    cell("Dropped", "number dropped"),
  ];
  const filled = bar();
  queue.node.prepend(filled);
  const node = element("div", { class: "row", role: "row" },
    name, curve, rate.node, safe.node, queue.node, lag.node, dropped.node);
  return { node, status, spark, rate, safe, queue, lag, dropped, filled };
}

function fill(row, stream, track) {
  setStatus(row.status, stream.status);
  drawCurve(row.spark, track, stream.declared_rate);
  const precision = stream.declared_rate === null ? 2 : 4;
  setText(row.rate.value, stream.status === "closed" ? "–" : f.exactHertz(stream.rows_per_second, precision));
  setText(row.rate.note, stream.declared_rate === null ? "events" : `of ${f.hertzText(stream.declared_rate)}`);
  row.spark.setAttribute("aria-label", `rate now ${row.rate.value.textContent}, ${row.rate.note.textContent}`);
  setText(row.safe.value, f.count(stream.acknowledged));
  setText(row.safe.note, stream.acknowledged_seconds === null ? "rows" : f.clock(stream.acknowledged_seconds));
  const share = stream.queue_limit ? stream.queued_bytes / stream.queue_limit : 0;
  setBar(row.filled, share);
  setClass(row.filled, share > 0.5 ? "bar look" : "bar");
  setText(row.queue.note, `${f.bytesText(stream.queued_bytes)} of ${f.bytesText(stream.queue_limit)}`);
  setText(row.lag.value, f.lag(stream.lag_seconds));
  setText(row.dropped.value, f.count(stream.dropped));
  setClass(row.dropped.node, stream.dropped ? "cell number dropped lost" : "cell number dropped");
}

export function troubles(streams) {
  return streams.filter((stream) => ["look", "bad"].includes(STATUS[stream.status]?.[0])).length;
}

export class Streams {
  constructor() { this.rows = new Rows($("streams"), make); }

  show(streams, tracks) {
    $("stream-part").hidden = streams.length === 0;
    $("stream-part").classList.toggle("many", streams.length > 12);
    const troubled = troubles(streams);
    const many = streams.length === 1 ? "1 stream" : `${streams.length} streams`;
    setText($("stream-head"), troubled ? `${many}, ${troubled} to look at` : many);
    this.rows.update(streams, (row, stream) => fill(row, stream, tracks.get(stream.name)));
  }

  clear() { this.rows.clear(); }
}
