// Reads arrays of every store with zarrita and prints what it found, a line of JSON a store:
// node zarr_reader.mjs ZARRITA FILESTORE ARRAY,ARRAY... STORE...
import { createHash } from "node:crypto";
const [library, stores, paths, ...folders] = process.argv.slice(2);
const zarr = await import(library);
const { default: FileSystemStore } = await import(stores);
for (const folder of folders) {
  const root = zarr.root(new FileSystemStore(folder));
  const found = [];
  for (const path of paths.split(",")) {
    const array = await zarr.open.v3(root.resolve(path), { kind: "array" });
    const { data, shape } = await zarr.get(array);
    const bytes = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
    found.push([shape, createHash("sha256").update(bytes).digest("hex")]);
  }
  console.log(JSON.stringify(found));
}
