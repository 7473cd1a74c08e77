// Reads one array of every store with zarrita and prints what it found as lines of JSON:
// node zarr_reader.mjs ZARRITA FILESTORE ARRAY STORE...
import { createHash } from "node:crypto";
const [library, stores, path, ...folders] = process.argv.slice(2);
const zarr = await import(library);
const { default: FileSystemStore } = await import(stores);
for (const folder of folders) {
  const root = zarr.root(new FileSystemStore(folder));
  const array = await zarr.open.v3(root.resolve(path), { kind: "array" });
  const { data, shape } = await zarr.get(array);
  const bytes = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
  console.log(JSON.stringify({ shape, sha256: createHash("sha256").update(bytes).digest("hex") }));
}
