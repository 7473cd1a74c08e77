// Follows the recorder's events, and comes back whenever it or another one is there again.

import { $, Track, drawCurve, setStatus, setText } from "./parts.js";
import { Streams, troubles } from "./streams.js";
import { Datasets } from "./datasets.js";
import { clearWarnings, showEnding, showReadings, showWarnings } from "./readings.js";
import * as f from "./format.js";

const OVER = ["finished", "failed"];
const STILL = [...OVER, "closing"]; // nothing more comes in
const PAUSES = [1000, 2000, 3000, 5000];

const streams = new Streams();
const datasets = new Datasets();
let whole = new Track();
let tracks = new Map();
let state = null;
let received = 0;
let live = false;
let ended = false;
let attempts = 0;

function isNew(next) {
  return !state || state.server !== next.server || state.run.number !== next.run.number;
}

function reset() {
  whole = new Track();
  tracks = new Map();
  streams.clear();
  datasets.clear();
  clearWarnings();
}

function remember(next) {
  if (next.history) {
    whole = new Track(next.history.all);
    tracks = new Map(Object.entries(next.history.streams).map(([name, history]) => [name, new Track(history)]));
  }
  if (!STILL.includes(next.run.state)) whole.note(next.now, next.run.bytes_per_second);
  for (const stream of next.streams) {
    if (!tracks.has(stream.name)) tracks.set(stream.name, new Track());
    if (!STILL.includes(next.run.state)) tracks.get(stream.name).note(next.now, stream.rows_per_second);
  }
}

function take(next) {
  if (state && state.page !== next.page) { location.reload(); return; } // another version serves now
  if (isNew(next)) reset();
  state = next;
  received = performance.now();
  remember(next);
  draw();
}

function seconds() {
  const running = live && !OVER.includes(state.run.state) && state.run.number;
  return state.run.seconds + (running ? (performance.now() - received) / 1000 : 0);
}

function draw() {
  const { run } = state;
  const begun = run.number > 0;
  document.body.dataset.kind = run.kind;
  setText($("kind"), !begun ? "nwbflow" : run.kind === "recording" ? "nwbflow recording" : "nwbflow write");
  setText($("file"), begun ? run.file : "No run yet");
  setText($("path"), begun ? run.path : "The page fills as soon as something is written.");
  $("summary").hidden = !begun;
  if (begun) {
    showReadings(state, seconds());
    drawCurve($("curve"), whole);
    setText($("peak"), whole.peak ? `peak ${f.rateText(whole.peak)}` : "");
  }
  streams.show(state.streams, tracks);
  datasets.show(state);
  showEnding(state);
  showWarnings(state);
  drawState();
}

function drawState() {
  const run = state ? state.run : { state: "waiting", number: 0 };
  const cut = !live && !OVER.includes(run.state);
  const key = cut && run.number ? "ended" : run.state;
  setStatus($("state"), key);
  document.body.classList.toggle("stale", cut && run.number > 0);
  const word = $("state").textContent;
  const look = state && live ? troubles(state.streams) : 0;
  document.title = run.number ? `${look ? `▲ ${look} · ` : ""}${word} · ${run.file}` : "nwbflow";
  setText($("link"), live ? "Live" : ended ? "Ended; waiting for a recorder" : "No connection; trying again");
  const still = (performance.now() - received) / 1000;
  const quiet = live && run.number && !OVER.includes(run.state) && still > 5;
  setText($("news"), quiet ? `nothing new for ${f.about(still)}` : "");
}

function say(text) {
  setText($("banner"), text);
  $("banner").hidden = !text;
}

async function explain() {
  try {
    const answer = await fetch("state.json");
    if (answer.status === 403) return "Another recorder is here now. Open the address that it printed.";
  } catch { /* nobody there */ }
  if (ended) return "The recorder has ended. This is its last state; the page waits for another one here.";
  return state ? "The connection is lost. This is the last state that was seen; the page tries again." : "";
}

function connect() {
  const source = new EventSource("events");
  source.addEventListener("state", (message) => {
    [live, ended, attempts] = [true, false, 0];
    say("");
    take(JSON.parse(message.data));
  });
  source.addEventListener("bye", () => { ended = true; });
  source.addEventListener("error", async () => {
    source.close(); // the browser's own way of coming back gives up after some answers; this one doesn't
    live = false;
    setTimeout(connect, PAUSES[Math.min(attempts, PAUSES.length - 1)]);
    attempts += 1;
    drawState();
    const text = await explain();
    if (!live) say(text);
  });
}

setInterval(() => {
  if (!state || !live) return;
  if (state.run.number && !OVER.includes(state.run.state)) showReadings(state, seconds());
  drawState();
}, 1000);

connect();
