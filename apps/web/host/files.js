// Gets the files of a build into the cache that sw.js serves from: each whole and verified, or not at all.
import { Problem } from "./problems.js";

const scope = new URL("./", location.href).href;
const address = (sha256) => `${scope}.edge/${sha256}`;

export async function readBuild() {
  const response = await fetch("build.json").catch(() => null);
  if (!response?.ok)
    throw new Problem("download_refused", { path: "build.json", status: response?.status ?? "no answer" });
  return response.json();
}

async function open() {
  try {
    return await caches.open(`edge ${scope}`);
  } catch {
    throw new Problem("storage_refused");
  }
}

// `files`: [[path, {size, sha256}]]. `progress(done, total)` in bytes, of what is here already too.
export async function fetchAll(files, signal, progress) {
  const cache = await open();
  const missing = [];
  let done = 0;
  const total = files.reduce((sum, [, file]) => sum + file.size, 0);
  for (const entry of files) {
    if (await cache.match(address(entry[1].sha256))) done += entry[1].size;
    else missing.push(entry);
  }
  await checkRoom(missing);
  progress(done, total);
  for (const [path, file] of missing) {
    signal.throwIfAborted();
    const data = await download(path, file, signal, (bytes) => progress(done + bytes, total));
    try {
      await cache.put(address(file.sha256), new Response(data));
    } catch {
      throw new Problem("storage_full", { needed: file.size });
    }
    done += file.size;
    progress(done, total);
  }
}

export async function read([, file]) {
  const kept = await (await open()).match(address(file.sha256));
  if (!kept) throw new Problem("storage_lost");
  return kept.blob();
}

async function checkRoom(missing) {
  const needed = missing.reduce((sum, [, file]) => sum + file.size, 0);
  const { quota = Infinity, usage = 0 } = (await navigator.storage?.estimate?.()) ?? {};
  if (needed > quota - usage) throw new Problem("storage_full", { needed, free: quota - usage });
}

async function download(path, file, signal, progress) {
  const pieces = [];
  let bytes = 0;
  try {
    const response = await fetch(path, { cache: "no-store", signal });
    if (!response.ok) throw new Problem("download_refused", { path, status: response.status });
    const reader = response.body.getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      pieces.push(value);
      bytes += value.length;
      if (bytes > file.size) throw new Problem("download_wrong", { path });
      progress(bytes);
    }
  } catch (error) {
    throw error instanceof Problem ? error : new Problem("download_broken", { path });
  }
  if (bytes < file.size) throw new Problem("download_broken", { path });
  const data = new Blob(pieces);
  if ((await sha256(await data.arrayBuffer())) !== file.sha256) throw new Problem("download_wrong", { path });
  return data;
}

async function sha256(data) {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", data));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
