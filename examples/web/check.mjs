// Run the page in headless Chromium: node check.mjs CHROMIUM ADDRESS MODEL PICTURE SCREENSHOT
// Prints what it saw as JSON: boxes of the picture, the status lines, and the addresses that were asked for.

import { readFileSync } from "node:fs";
import { chromium } from "playwright-core";

const [executablePath, address, model, picture, screenshot] = process.argv.slice(2);
const quiet = ["quic", "gpu", "background-networking", "component-update", "sync"].map((name) => `--disable-${name}`);
const camera = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"];
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--no-first-run", ...quiet, ...camera] });
try {
  const page = await browser.newPage({ viewport: { width: 900, height: 760 } });
  const requests = [];
  page.on("request", (request) => requests.push(request.url()));
  page.on("pageerror", (error) => console.error(error));
  const status = page.locator("#status");
  const statusMatching = async (pattern) => {
    const found = status.filter({ hasText: pattern });
    await found.waitFor({ timeout: 60_000 });
    return found.textContent();
  };
  await page.goto(address);
  await page.setInputFiles("#model", { name: "no.onnx", mimeType: "", buffer: Buffer.from("no model") });
  const refused = await statusMatching(/this is no/);
  const drop = (path) =>
    page.evaluate(async (address) => {
      const file = new File([await (await fetch(address)).blob()], "dropped.png");
      const dataTransfer = new DataTransfer();
      dataTransfer.items.add(file);
      document.dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true }));
    }, `data:image/png;base64,${readFileSync(path, "base64")}`);
  await drop(picture);
  const early = await statusMatching(/choose a model first/);
  await page.setInputFiles("#model", model);
  const loaded = await statusMatching(/pixels/);
  const about = await page.locator("dd").allTextContents();
  await page.setInputFiles("#picture", picture);
  const shown = await statusMatching(/infer/);
  const boxes = JSON.parse(await page.locator("#canvas").getAttribute("data-boxes"));
  await page.screenshot({ path: screenshot });
  const runs = [];
  for (let i = 0; i < 10; i++) {
    await page.evaluate(() => (document.getElementById("status").textContent = ""));
    await drop(picture);
    runs.push(Number((await statusMatching(/infer/)).match(/infer ([\d.]+) ms/)[1]));
  }
  const dropped = JSON.parse(await page.locator("#canvas").getAttribute("data-boxes"));
  await page.setInputFiles("#picture", { name: "no.png", mimeType: "", buffer: Buffer.from("no picture") });
  const unreadable = await statusMatching(/is no picture/);
  await page.click("#camera");
  const live = await statusMatching(/infer/);
  const cameraWidth = await page.locator("#canvas").getAttribute("width");
  await page.click("#camera");
  console.log(JSON.stringify({ refused, early, loaded, about, shown, boxes, dropped, runs, unreadable, live, cameraWidth, requests }));
} finally {
  await browser.close();
}
