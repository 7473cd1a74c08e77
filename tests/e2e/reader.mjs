// Reads one dataset with h5wasm and prints what it found as JSON: node reader.mjs H5WASM FILE DATASET
import { createHash } from "node:crypto";
const [library, file, path] = process.argv.slice(2);
const h5wasm = (await import(library)).default;
await h5wasm.ready; // its Node build opens files of the real file system
const dataset = new h5wasm.File(file, "r").get(path);
const value = dataset.value;
const bytes = Buffer.from(value.buffer, value.byteOffset, value.byteLength);
console.log(JSON.stringify({
  shape: dataset.shape,
  sha256: createHash("sha256").update(bytes).digest("hex"),
}));
