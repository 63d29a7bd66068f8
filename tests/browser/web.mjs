// A packaged web app as a person meets it: `node web.mjs SCENARIO FOLDER SHOTS [OPTIONS]` prints what was seen as JSON.
import fs from "node:fs";
import path from "node:path";
import { launch } from "./launch.mjs";
import { serveFolder } from "./site.mjs";

const [scenario, folder, shots, given = "{}"] = process.argv.slice(2);
const options = JSON.parse(given);
const PATIENCE = 120000;
const seen = { served: [], foreign: [], errors: [] };

const site = await serveFolder(folder, seen);
const { url } = site;

const { context, close } = await launch(options.chromium);
const page = context.pages()[0] ?? (await context.newPage());
context.on("request", (request) => {
  if (!/^(blob|data):/.test(request.url()) && !request.url().startsWith(url)) seen.foreign.push(request.url());
});
page.on("pageerror", (error) => seen.errors.push(String(error)));
page.on("console", (message) => {
  if (/Content Security Policy|integrity/.test(message.text())) seen.errors.push(message.text());
});

// Any other error screen ends the wait at once.
async function phase(name) {
  const usual = ["starting", "empty", "loading", "ready", "answering", name];
  const not = usual.map((each) => `:not([data-phase=${each}])`).join("");
  await page.locator(`body[data-phase=${name}], body[data-phase]${not}`).waitFor({ timeout: PATIENCE });
  const found = await page.evaluate(() => document.body.dataset.phase);
  if (found !== name) throw new Error(`${found} instead of ${name}`);
}
const shot = (name) => page.screenshot({ path: path.join(shots, `${scenario}-${name}.png`) });
const open = () => page.goto(url);
const screen = async (name) => {
  await phase(name);
  await shot(name);
  return { title: await page.locator("#title").textContent(), button: await page.locator("#act").textContent() };
};

async function ask(question) {
  const before = await page.locator(".assistant").count();
  await page.fill("#question", question);
  await page.press("#question", "Enter");
  await page.locator(".assistant").nth(before).waitFor({ state: "attached", timeout: PATIENCE });
  await phase("ready");
  const kept = await page.evaluate(() => JSON.parse(localStorage.getItem("edge")).messages.at(-1));
  return {
    text: await page.locator(".assistant").nth(before).textContent(),
    prompt: kept.numbers.prompt_tokens,
    reason: kept.reason,
  };
}

async function facts() {
  return {
    isolated: await page.evaluate(() => crossOriginIsolated),
    line: await page.locator("#facts").textContent(),
  };
}

const SCENARIOS = {
  // Online, then without server and network.
  async chat() {
    await open();
    await phase("ready");
    await shot("ready");
    const found = { ...(await facts()), online: [] };
    await page.locator("#adjust").click();
    await page.locator("[name=max_tokens]").fill(String(options.tokens));
    await page.locator("[name=max_tokens]").blur();
    await page.locator("#adjust").click();
    for (const question of options.questions) found.online.push(await ask(question));
    await shot("online");
    site.close();
    await context.setOffline(true);
    seen.served = [];
    await page.reload();
    await phase("ready");
    found.kept = await page.locator(".message").count();
    await page.locator("#new").click();
    found.offline = [await ask(options.questions[0])];
    await page.emulateMedia({ colorScheme: "dark" });
    await page.locator("#adjust").click();
    await shot("offline-dark");
    return found;
  },
  // A host, or a browser, with which the page never gets isolated; and Safari's build with `compat`.
  async plain() {
    await context.addInitScript((compat) => {
      sessionStorage.setItem("edge reloaded", "1");
      if (compat) delete WebAssembly.Suspending;
    }, options.compat);
    await open();
    await phase("ready");
    return { ...(await facts()), online: [await ask(options.questions[0])], served: [...seen.served] };
  },
  async stop() {
    await open();
    await phase("ready");
    await page.locator("#adjust").click();
    await page.fill("#question", "Go on and on");
    await page.press("#question", "Enter");
    await page.locator(".assistant:not(:empty)").waitFor({ timeout: PATIENCE });
    await page.locator("#stop").click();
    await phase("ready");
    const first = await page.locator("#numbers").textContent();
    await page.locator("[name=max_tokens]").fill("3");
    await page.locator("[name=max_tokens]").blur();
    return { numbers: first, next: (await ask("Again")).reason };
  },
  async interrupted() {
    const shards = fs
      .readdirSync(path.join(folder, "model"))
      .map((name) => `model/${name}`)
      .sort();
    site.tamper = (name, data) => (name === shards.at(-1) ? null : data);
    await open();
    const told = await screen("download_broken");
    site.tamper = (name, data) => data;
    seen.served = [];
    await page.locator("#act").click();
    await phase("ready");
    return { ...told, served: [...seen.served], shards };
  },
  async altered() {
    site.tamper = (name, data) => {
      if (name.endsWith(".gguf")) data[data.length - 40] ^= 1;
      return data;
    };
    await open();
    return screen("download_wrong");
  },
  async missing() {
    site.tamper = (name, data) => data;
    fs.renameSync(path.join(folder, "model"), path.join(folder, "gone"));
    await open();
    return screen("download_refused");
  },
  // Browsers that lack something: a page for each.
  async without() {
    const found = {};
    for (const [what, name] of Object.entries({
      wasm: "no_wasm",
      storage: "storage_refused",
      room: "storage_full",
    })) {
      const other = await context.newPage();
      await other.addInitScript((what) => {
        sessionStorage.setItem("edge reloaded", "1");
        if (what === "wasm") delete self.WebAssembly;
        if (what === "storage")
          CacheStorage.prototype.open = () => Promise.reject(new DOMException("no", "SecurityError"));
        if (what === "room") StorageManager.prototype.estimate = async () => ({ quota: 1000, usage: 0 });
      }, what);
      await other.goto(url);
      await other.locator(`body[data-phase=${name}]`).waitFor({ timeout: PATIENCE });
      await other.screenshot({ path: path.join(shots, `without-${what}.png`) });
      found[what] = await other.locator("#title").textContent();
      await other.close();
    }
    return { found };
  },
  // The folder is replaced by another build while the app is installed.
  async update() {
    await open();
    await phase("ready");
    const first = await page.evaluate(async () => (await (await fetch("build.json")).json()).model.name);
    site.root = options.next;
    seen.served = [];
    await page.evaluate(async () => (await navigator.serviceWorker.ready).update());
    await page.waitForTimeout(3000);
    await page.close();
    const later = await context.newPage();
    await later.goto(url);
    await later.locator("body[data-phase=ready]").waitFor({ timeout: PATIENCE });
    return { first, second: await later.locator("#name").textContent(), served: [...seen.served] };
  },
};

try {
  console.log(JSON.stringify({ ...seen, ...(await SCENARIOS[scenario]()), served: seen.served }));
} catch (error) {
  await shot("failed").catch(() => {});
  console.error(
    String(error),
    JSON.stringify(seen),
    await page
      .locator("#screen")
      .textContent()
      .catch(() => ""),
  );
  process.exitCode = 1;
} finally {
  await close();
  site.close();
}
