// Small pieces of the page. Whatever comes from a file is set as text, never as markup.

const SVG = "http://www.w3.org/2000/svg";
export const HISTORY = 120;

export const $ = (id) => document.getElementById(id);

export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "text") made.textContent = value;
    else if (key === "class") made.className = value;
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

// Touches the page only where something changed: what stands still costs nothing, and can be selected.
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function setClass(node, name) {
  if (node.className !== name) node.className = name;
}

// An icon and a word: the colour alone says nothing.
export const STATUS = {
  steady: ["good", "i-steady", "steady"],
  starting: ["idle", "i-work", "starting"],
  waiting: ["idle", "i-idle", "waiting"],
  silent: ["look", "i-look", "no data"],
  slow: ["look", "i-look", "slow"],
  fast: ["look", "i-look", "fast"],
  behind: ["look", "i-look", "behind"],
  dropping: ["bad", "i-bad", "dropping"],
  closed: ["idle", "i-done", "closed"],
  structure: ["idle", "i-work", "preparing"],
  writing: ["good", "i-steady", "writing"],
  written: ["idle", "i-work", "written"],
  verified: ["idle", "i-done", "verified"],
  verifying: ["good", "i-work", "verifying"],
  sending: ["good", "i-work", "sending"],
  recording: ["good", "i-steady", "recording"],
  closing: ["good", "i-work", "closing"],
  finished: ["good", "i-done", "finished"],
  failed: ["bad", "i-bad", "failed"],
  ended: ["idle", "i-idle", "ended"],
};

export function setStatus(node, key) {
  if (node.dataset.status === key) return;
  node.dataset.status = key;
  const [tone, icon, word] = STATUS[key] || ["idle", "i-idle", key];
  node.dataset.tone = tone;
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#${icon}`);
  svg.append(use);
  node.replaceChildren(svg, element("span", { text: word }));
}

// Values by second, the last two minutes of them.
export class Track {
  constructor(history) {
    this.end = history ? history.end : 0;
    this.values = history ? history.values.slice(-HISTORY) : [];
  }

  note(now, value) {
    const second = Math.floor(now);
    if (this.values.length && second <= this.end) { this.values[this.values.length - 1] = value; return; }
    const missing = this.values.length ? Math.min(second - this.end - 1, HISTORY) : 0;
    for (let n = 0; n < missing; n += 1) this.values.push(null);
    this.values.push(value);
    this.values = this.values.slice(-HISTORY);
    this.end = second;
  }

  get peak() { return Math.max(0, ...this.values.filter((v) => v !== null)); }
}

function shape(name, className) {
  const made = document.createElementNS(SVG, name);
  made.setAttribute("class", className);
  return made;
}

// A curve of a track; a thin line marks what was declared.
export function drawCurve(svg, track, declared) {
  if (!svg.firstChild) {
    svg.setAttribute("viewBox", `0 0 ${HISTORY - 1} 100`);
    svg.append(shape("path", "area"), shape("path", "declared"), shape("path", "stroke"));
  }
  const [area, mark, stroke] = svg.children;
  const top = Math.max(track.peak, declared || 0) * 1.15 || 1;
  const y = (value) => (98 - 96 * (value / top)).toFixed(1);
  const first = HISTORY - track.values.length;
  const lines = [], fills = [];
  let from = null;
  track.values.forEach((value, n) => {
    if (value === null) { from = null; return; }
    const x = first + n;
    lines.push(`${from === null ? "M" : "L"}${x} ${y(value)}`);
    if (from === null) { fills.push(`M${x} 100L${x} ${y(value)}`); from = x; } else fills.push(`L${x} ${y(value)}`);
    if (n === track.values.length - 1 || track.values[n + 1] === null) fills.push(`L${x} 100Z`);
  });
  stroke.setAttribute("d", lines.join(""));
  area.setAttribute("d", fills.join(""));
  mark.setAttribute("d", declared ? `M${first} ${y(declared)}H${HISTORY - 1}` : "");
}

export function bar() {
  return element("span", { class: "bar" }, element("span", { class: "fill" }));
}

export function setBar(node, share) {
  const unknown = share === null;
  node.classList.toggle("unknown", unknown);
  node.firstChild.style.width = unknown ? "100%" : `${(Math.min(1, Math.max(0, share)) * 100).toFixed(1)}%`;
}

// Keeps one row for each item, in the order of the items; rows are made once.
export class Rows {
  constructor(parent, make) {
    this.parent = parent;
    this.make = make;
    this.rows = new Map();
  }

  update(items, fill) {
    const names = new Set(items.map((item) => item.name));
    for (const [name, row] of this.rows) {
      if (!names.has(name)) { row.node.remove(); this.rows.delete(name); }
    }
    items.forEach((item, place) => {
      let row = this.rows.get(item.name);
      if (!row) { row = this.make(item.name); this.rows.set(item.name, row); }
      if (this.parent.children[place] !== row.node) this.parent.insertBefore(row.node, this.parent.children[place] || null);
      fill(row, item);
    });
  }

  clear() { this.rows.clear(); this.parent.replaceChildren(); }
}
