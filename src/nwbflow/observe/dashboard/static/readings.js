// The figures at the top, the receipt, the warnings.

import { $, element, setText } from "./parts.js";
import { splitName } from "./streams.js";
import * as f from "./format.js";

const VERIFIED = { stored: "stored bytes read back", full: "every value read back", no: "nothing read back" };

function disk(run) {
  if (run.disk_free === null) return ["–", "", ""];
  const full = run.disk_seconds;
  const note = full === null ? "" : full < 8.64e6 ? `full in about ${f.about(full)}` : "lasts for months";
  return [...f.bytes(run.disk_free), note, full !== null && full < 3600 ? "look" : ""];
}

function progress(run) {
  if (run.raw_total === null) return [...f.bytes(run.raw_done), "length unknown"];
  const share = run.raw_total ? run.raw_done / run.raw_total : 1;
  return [String(Math.floor(share * 100)), "%", `${f.bytesText(run.raw_done)} of ${f.bytesText(run.raw_total)}`];
}

function totals(run, receipt) {
  const mean = receipt.seconds > 0 ? receipt.raw_bytes / receipt.seconds : 0;
  return [["Took", f.clock(receipt.seconds), "", `since ${f.timeOfDay(run.began)}`],
    ["Data", ...f.bytes(receipt.raw_bytes), "before compression"], ["Stored", ...f.bytes(receipt.stored_bytes), "after it"],
    ["Compression", f.ratio(receipt.ratio), "to 1", ""], ["Data rate", ...f.rate(mean), "on average"],
    ["Disk left", ...disk(run)]];
}

// label, number, unit, note, tone
function readings({ run, receipt }, seconds) {
  if (receipt) return totals(run, receipt);
  const elapsed = ["Elapsed", f.clock(seconds), "", `since ${f.timeOfDay(run.began)}`];
  const rate = ["Data rate", ...f.rate(run.bytes_per_second), "before compression"];
  const ratio = ["Compression", f.ratio(run.ratio), run.ratio === null ? "" : "to 1", `${f.bytesText(run.stored)} stored`];
  const left = ["Disk left", ...disk(run)];
  if (run.kind === "recording") {
    return [elapsed, rate, ["Safe", ...f.bytes(run.raw_done), "acknowledged"],
      ["Queue", ...f.bytes(run.queued_bytes), "not yet safe"], ratio,
      ["Journal", ...f.bytes(run.journal_bytes), "beside the file"], left];
  }
  const rest = run.left_seconds === null || run.state !== "writing" ? "" : `about ${f.about(run.left_seconds)} left`;
  return [elapsed, ["Done", ...progress(run)], [...rate.slice(0, 3), rest || rate[3]], ratio, left];
}

export function showReadings(state, seconds) {
  const list = $("readings");
  const wanted = readings(state, seconds);
  const labels = wanted.map(([label]) => label).join();
  if (list.dataset.labels !== labels) {
    list.dataset.labels = labels;
    list.replaceChildren(...wanted.map(([label]) => element("div", {}, element("dt", { text: label }), element("dd", {},
      element("span", { class: "figure" }), element("span", { class: "unit" }), element("span", { class: "note" })))));
  }
  wanted.forEach(([, number, unit, note, tone], place) => {
    const box = list.children[place];
    const [figure, units, notes] = box.lastChild.children;
    setText(figure, number);
    setText(units, unit);
    setText(notes, note || "");
    if (tone) box.dataset.tone = tone; else delete box.dataset.tone;
  });
}

function receiptRows(receipt) {
  const datasets = `${receipt.datasets} ${receipt.datasets === 1 ? "dataset" : "datasets"}`;
  return [
    ["File", receipt.path + (receipt.file_bytes === null ? "" : `, ${f.bytesText(receipt.file_bytes)}`)],
    ["Stored", `${f.bytesText(receipt.raw_bytes)} in ${datasets} as ${f.bytesText(receipt.stored_bytes)}, ratio ${f.ratio(receipt.ratio)}`],
    ["Verified", VERIFIED[receipt.verified] || receipt.verified],
    ...receipt.notes.map((note) => ["Note", note]),
  ];
}

export function showEnding(state) {
  const { receipt, failure } = state;
  $("ending").hidden = !receipt && !failure;
  if (!receipt && !failure) return;
  const rows = receipt ? receiptRows(receipt) : [
    ["Error", failure.error],
    ["Kept", failure.partial ? `what was written so far, in ${failure.partial}` : "nothing new; an older file is as it was"],
  ];
  $("ending").dataset.tone = receipt ? "good" : "bad";
  setText($("ending-head"), receipt ? "Receipt" : "What went wrong");
  $("ending-list").replaceChildren(...rows.flatMap(([name, text]) => [element("dt", { text: name }), element("dd", { text })]));
}

let lastWarning = 0;

export function clearWarnings() {
  lastWarning = 0;
  $("warnings").replaceChildren();
}

// Only what is new is added, so that a screen reader says each warning once. The newest is on top.
export function showWarnings(state) {
  $("warning-part").hidden = state.warnings_total === 0;
  const hidden = state.warnings_total - state.warnings.length;
  setText($("warning-head"), `Warnings: ${state.warnings_total}${hidden > 0 ? ` (the last ${state.warnings.length})` : ""}`);
  for (const warning of state.warnings.filter((w) => w.number > lastWarning)) {
    lastWarning = warning.number;
    const place = warning.dataset ? `${splitName(warning.dataset)[1]}: ` : "";
    $("warnings").prepend(element("li", {}, element("time", { text: f.timeOfDay(warning.time) }),
      element("span", { text: place + warning.text })));
  }
  while ($("warnings").children.length > 50) $("warnings").lastChild.remove();
}
