// Serves this build's files and nothing else: from the cache when they are there, so that the app needs no server after
// its first visit. A file is kept under its SHA-256: what has not changed is not downloaded again by the next build.
// BUILD, above, is written by `edge package`: {version, files: {path: {size, sha256, group}}}.
const SCOPE = self.registration.scope;
const CACHE = `edge ${SCOPE}`;
const TYPES = {
  html: "text/html; charset=utf-8",
  css: "text/css",
  js: "text/javascript",
  json: "application/json",
  webmanifest: "application/manifest+json",
  svg: "image/svg+xml",
  wasm: "application/wasm",
};
const HEADERS = {
  // What lets WebAssembly use threads, also where the host sends no such headers.
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
  "Cross-Origin-Resource-Policy": "same-origin",
  "X-Content-Type-Options": "nosniff",
};

const address = (sha256) => `${SCOPE}.edge/${sha256}`;

async function keepShell() {
  const cache = await caches.open(CACHE);
  for (const [path, file] of Object.entries(BUILD.files)) {
    if (file.group !== "shell" || (await cache.match(address(file.sha256)))) continue;
    const response = await fetch(SCOPE + path, { cache: "no-store" });
    const data = await response.arrayBuffer();
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", data));
    const found = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
    if (found !== file.sha256) throw new Error(`${path} is not of build ${BUILD.version}`);
    await cache.put(address(file.sha256), new Response(data));
  }
}

async function forgetOthers() {
  const cache = await caches.open(CACHE);
  const known = new Set(Object.values(BUILD.files).map((file) => address(file.sha256)));
  for (const request of await cache.keys()) if (!known.has(request.url)) await cache.delete(request);
}

async function serve(request, path, file) {
  const cache = await caches.open(CACHE);
  const kept = await cache.match(address(file.sha256));
  const response = kept ?? (await fetch(request));
  const headers = kept ? new Headers() : new Headers(response.headers);
  headers.set("Content-Type", TYPES[path.split(".").pop()] ?? "application/octet-stream");
  for (const [name, value] of Object.entries(HEADERS)) headers.set(name, value);
  return new Response(response.body, { status: response.status, headers });
}

self.addEventListener("install", (event) => event.waitUntil(keepShell()));
self.addEventListener("activate", (event) => event.waitUntil(forgetOthers().then(() => self.clients.claim())));
// A page asks for the build that waits: it may start when no other tab runs the old one.
self.addEventListener("message", async ({ ports: [port] }) => {
  const open = await self.clients.matchAll({ type: "window", includeUncontrolled: true });
  const alone = open.filter((client) => client.url.startsWith(SCOPE)).length < 2;
  if (alone) await self.skipWaiting();
  port.postMessage(alone ? "started" : "waits");
});
self.addEventListener("fetch", (event) => {
  const url = new URL(event.request.url);
  url.search = url.hash = "";
  if (event.request.method !== "GET" || !url.href.startsWith(SCOPE)) return;
  const path = url.href.slice(SCOPE.length) || "index.html";
  const file = BUILD.files[path];
  if (file) event.respondWith(serve(event.request, path, file));
});
