// The page: choose a model, then a picture or the camera; draw the boxes and show the times.

import { detect, loadDetector } from "./detector.mjs";

const element = (id) => document.getElementById(id);
const canvas = element("canvas");
const context = canvas.getContext("2d");
let detector;
let picture; // what is shown: an ImageBitmap, or the <video> of the camera

function say(text, failed = false) {
  element("status").textContent = text;
  element("status").className = failed ? "error" : "";
}

const guarded = (task) => async (event) => {
  try {
    await task(event);
  } catch (error) {
    say(error.message, true);
  }
};

element("model").onchange = guarded(async ({ target: { files } }) => {
  if (!files.length) return;
  say("Loading the model ...");
  detector = await loadDetector(await files[0].arrayBuffer());
  for (const id of ["picture", "camera"]) element(id).disabled = false;
  element("model-name").textContent = files[0].name;
  element("classes").textContent = Object.values(detector.names).join(", ");
  element("backend").textContent = detector.backend;
  say(`${detector.size.join(" x ")} pixels; choose a picture, or drop one on this page.`);
  if (picture instanceof ImageBitmap) await show();
});

async function take(file) {
  if (!file) return;
  if (!detector) throw new Error("choose a model first");
  stopCamera();
  picture = await createImageBitmap(file).catch(() => {
    throw new Error(`${file.name} is no picture that this browser can read`);
  });
  await show();
}

element("picture").onchange = guarded(({ target: { files } }) => take(files[0]));

document.ondragover = (event) => event.preventDefault();
document.ondrop = guarded((event) => {
  event.preventDefault();
  return take(event.dataTransfer.files[0]);
});

element("conf").onchange = guarded(async () => {
  if (picture instanceof ImageBitmap) await show();
});

element("camera").onclick = guarded(async () => {
  if (picture instanceof HTMLVideoElement) return stopCamera();
  const video = document.createElement("video");
  video.srcObject = await navigator.mediaDevices.getUserMedia({ video: true });
  await video.play();
  picture = video;
  element("camera").textContent = "stop camera";
  while (picture === video) {
    await show();
    await new Promise(requestAnimationFrame);
  }
});

function stopCamera() {
  if (!(picture instanceof HTMLVideoElement)) return;
  for (const track of picture.srcObject.getTracks()) track.stop();
  picture = undefined;
  element("camera").textContent = "or camera";
}

async function show() {
  const source = picture;
  const width = source.videoWidth ?? source.width;
  const height = source.videoHeight ?? source.height;
  const { boxes, times } = await detect(detector, source, width, height, { conf: Number(element("conf").value) });
  if (picture !== source) return;
  canvas.width = width;
  canvas.height = height;
  context.drawImage(source, 0, 0);
  draw(boxes, Math.max(width, height) / 400);
  const ms = (value) => `${value.toFixed(1)} ms`;
  say(`${boxes.length} boxes; prepare ${ms(times.prepare)}, infer ${ms(times.infer)}, boxes ${ms(times.boxes)}`);
  canvas.dataset.boxes = JSON.stringify(boxes);
}

function draw(boxes, line) {
  const size = Math.max(7 * line, 10);
  const colour = (box) => `hsl(${(box.class * 137) % 360} 75% 38%)`;
  context.lineWidth = line;
  context.font = `${size}px system-ui, sans-serif`;
  context.textBaseline = "top";
  for (const box of boxes) {
    context.strokeStyle = colour(box);
    context.strokeRect(box.x1, box.y1, box.x2 - box.x1, box.y2 - box.y1);
  }
  for (const box of boxes) {
    const text = `${box.name} ${box.score.toFixed(2)}`;
    const top = Math.max(box.y1 - size, 0);
    context.fillStyle = colour(box);
    context.fillRect(box.x1 - line / 2, top, context.measureText(text).width + line, size);
    context.fillStyle = "white";
    context.fillText(text, box.x1, top);
  }
}
