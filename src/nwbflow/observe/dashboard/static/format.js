// Numbers as people read them: three digits, decimal units, narrow spaces between groups.

const THIN = "\u202f";

function digits(value) {
  const size = Math.abs(value);
  return value.toFixed(size >= 99.95 || size === 0 ? 0 : size >= 9.995 ? 1 : 2);
}

function scaled(value, units) {
  let unit = 0;
  while (Math.abs(value) >= 999.5 && unit < units.length - 1) { value /= 1000; unit += 1; }
  return [unit === 0 && Number.isInteger(value) ? String(value) : digits(value), units[unit]];
}

const join = ([number, unit]) => `${number}\u00a0${unit}`;

export const bytes = (value) => scaled(value, ["B", "kB", "MB", "GB", "TB"]);
export const bytesText = (value) => join(bytes(value));
export const rate = (value) => scaled(value, ["B/s", "kB/s", "MB/s", "GB/s"]);
export const rateText = (value) => join(rate(value));

const HERTZ = ["Hz", "kHz", "MHz"];

// A rate as declared: 30 kHz. A rate as measured: 29.98 kHz.
export function hertzText(value) {
  const [unit, scale] = value >= 1e6 ? [2, 1e6] : value >= 1e3 ? [1, 1e3] : [0, 1];
  return join([String(Number((value / scale).toPrecision(6))), HERTZ[unit]]);
}

const precise = (value, places) => value.toFixed(Math.max(0, places - 1 - Math.max(0, Math.floor(Math.log10(value)))));

export function exactHertz(value, precision) {
  const [unit, scale] = value >= 1e6 ? [2, 1e6] : value >= 1e3 ? [1, 1e3] : [0, 1];
  return join([value === 0 ? "0" : precise(value / scale, precision), HERTZ[unit]]);
}
export const count = (value) => String(Math.round(value)).replace(/\B(?=(\d{3})+$)/g, THIN);
export const ratio = (value) => (value === null ? "–" : value < 99.995 ? value.toFixed(2) : value.toFixed(0));

// 12:03, 1:12:03, 3 d 4 h
export function clock(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const two = (n) => String(n).padStart(2, "0");
  if (h >= 72) return `${Math.floor(h / 24)} d ${h % 24} h`;
  return h ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`;
}

// how long something will take, roughly
export function about(seconds) {
  if (seconds < 90) return `${Math.max(1, Math.round(seconds))}\u00a0s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)}\u00a0min`;
  if (seconds < 172800) return `${(seconds / 3600).toFixed(1)}\u00a0h`;
  return seconds < 8.64e6 ? `${Math.round(seconds / 86400)}\u00a0days` : "months";
}

export function lag(seconds) {
  if (seconds === 0) return "0";
  return seconds < 0.9995 ? `${Math.max(1, Math.round(seconds * 1000))}\u00a0ms` : `${digits(seconds)}\u00a0s`;
}

export function timeOfDay(epoch) {
  return new Date(epoch * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
}
