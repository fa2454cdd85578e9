/** Lists the files of an npm tarball (ustar in gzip). */
import { readFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";

const blockSize = 512;

function field(header, start, length) {
  const bytes = header.subarray(start, start + length);
  const end = bytes.indexOf(0);
  return bytes.toString("utf8", 0, end < 0 ? length : end);
}

/** `{ path, size }` of each regular file, without the leading `package/`. */
export function listTarball(path) {
  const archive = gunzipSync(readFileSync(path));
  const files = [];
  for (let offset = 0; offset + blockSize <= archive.length; ) {
    const header = archive.subarray(offset, offset + blockSize);
    const name = field(header, 0, 100);
    if (name === "") break;
    const prefix = field(header, 345, 155);
    const size = Number.parseInt(field(header, 124, 12).trim() || "0", 8);
    const type = field(header, 156, 1);
    if (type === "" || type === "0")
      files.push({ path: `${prefix === "" ? "" : `${prefix}/`}${name}`.replace(/^package\//, ""), size });
    offset += blockSize + Math.ceil(size / blockSize) * blockSize;
  }
  return files;
}
