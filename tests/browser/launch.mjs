// Chromium with a profile of its own, as on a phone's screen.
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { chromium } from "playwright-core";

const QUIET = ["--no-first-run", "--disable-background-networking", "--disable-component-update"];

export async function launch(executablePath) {
  const profile = fs.mkdtempSync(path.join(os.tmpdir(), "edge-web-"));
  const context = await chromium.launchPersistentContext(profile, {
    executablePath,
    headless: true,
    viewport: { width: 390, height: 780 },
    args: ["--no-sandbox", "--disable-gpu", ...QUIET],
  });
  const close = async () => {
    await context.close();
    fs.rmSync(profile, { recursive: true, force: true });
  };
  return { context, close };
}
