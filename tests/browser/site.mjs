// A plain server of static files, as any host is one, that notes what is asked of it in `seen.served`.
import fs from "node:fs";
import http from "node:http";
import path from "node:path";

const TYPES = { js: "text/javascript", html: "text/html", css: "text/css", wasm: "application/wasm" };

// `tamper(path, data)` of the result gives other bytes; null stands for half of them and a broken connection.
export async function serveFolder(root, seen) {
  const site = { root, tamper: (name, data) => data };
  const server = http.createServer((request, response) => {
    const name = new URL(request.url, "http://x").pathname.slice(1) || "index.html";
    seen.served.push(name);
    const file = path.join(site.root, name);
    if (!fs.existsSync(file)) return response.writeHead(404).end();
    const data = fs.readFileSync(file);
    const type = TYPES[name.split(".").pop()] ?? "application/octet-stream";
    response.writeHead(200, { "Content-Type": type, "Content-Length": data.length });
    const sent = site.tamper(name, data);
    if (sent !== null) return response.end(sent);
    return response.write(data.subarray(0, data.length / 2), () => response.socket.destroy());
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  site.url = `http://127.0.0.1:${server.address().port}/`;
  site.close = () => {
    server.close();
    server.closeAllConnections();
  };
  return site;
}
