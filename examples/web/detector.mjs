// Detection with a model that `yolo export format=onnx` wrote: letterbox, inference, NMS. Nothing here knows the page.

import * as ort from "./node_modules/onnxruntime-web/dist/ort.webgpu.min.mjs";

// Threads need a page that is isolated from other origins, which `npm start` serves.
ort.env.wasm.numThreads = globalThis.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency) : 1;

const GREY = "rgb(114, 114, 114)";

/** Load a model from an ArrayBuffer; class names, stride and size come from its own metadata. */
export async function loadDetector(buffer) {
  const metadata = readMetadata(new Uint8Array(buffer));
  if (metadata.task !== "detect") throw new Error("this is no detector that `yolo export format=onnx` wrote");
  const [session, backend] = await createSession(buffer);
  const [, , height, width] = session.inputMetadata[0].shape;
  const [exportedHeight, exportedWidth] = metadata.imgsz.match(/\d+/g).map(Number);
  return {
    session,
    backend,
    names: pythonDictionary(metadata.names),
    stride: Number(metadata.stride),
    dynamic: typeof height !== "number",
    size: typeof height === "number" ? [height, width] : [exportedHeight, exportedWidth],
    hasNms: metadata.end2end === "True" || /'nms': True/.test(metadata.args),
  };
}

/** Start on the graphics processor where the browser offers one that takes the model, else in WebAssembly. */
async function createSession(buffer) {
  if (await navigator.gpu?.requestAdapter().catch(() => null)) {
    try {
      const session = await ort.InferenceSession.create(buffer, { executionProviders: ["webgpu"] });
      return [session, "WebGPU"];
    } catch (error) {
      console.warn("WebGPU does not take this model:", error);
    }
  }
  const session = await ort.InferenceSession.create(buffer, { executionProviders: ["wasm"] });
  const threads = ort.env.wasm.numThreads;
  return [session, `WebAssembly, ${threads} thread${threads > 1 ? "s" : ""}`];
}

/**
 * Detect on one picture.
 * @param source anything that a canvas draws, of `width` x `height` pixels
 * @returns boxes {x1, y1, x2, y2, score, name, class} in pixels of the picture, best first, and times in ms
 */
export async function detect(detector, source, width, height, { conf = 0.25, iou = 0.7, maxDet = 300 } = {}) {
  const start = performance.now();
  const { tensor, left, top, scaleX, scaleY } = letterbox(detector, source, width, height);
  const prepared = performance.now();
  const outputs = await detector.session.run({ [detector.session.inputNames[0]]: tensor });
  const ran = performance.now();
  const output = outputs[detector.session.outputNames[0]];
  const found = detector.hasNms ? readRows(output, conf) : nms(readRaw(output, conf), iou);
  const inside = (value, limit) => Math.min(Math.max(value, 0), limit);
  const boxes = found.slice(0, maxDet).map((box) => ({
    ...box,
    x1: inside((box.x1 - left) / scaleX, width),
    y1: inside((box.y1 - top) / scaleY, height),
    x2: inside((box.x2 - left) / scaleX, width),
    y2: inside((box.y2 - top) / scaleY, height),
    name: detector.names[box.class],
  }));
  const times = { prepare: prepared - start, infer: ran - prepared, boxes: performance.now() - ran };
  return { boxes, times };
}

function letterbox({ size, stride, dynamic }, source, width, height) {
  const scale = Math.min(size[0] / height, size[1] / width);
  const w = Math.max(Math.round(width * scale), 1);
  const h = Math.max(Math.round(height * scale), 1);
  const total = dynamic ? [Math.ceil(h / stride) * stride, Math.ceil(w / stride) * stride] : size;
  const top = Math.round((total[0] - h) / 2 - 0.1);
  const left = Math.round((total[1] - w) / 2 - 0.1);
  const context = new OffscreenCanvas(total[1], total[0]).getContext("2d", { willReadFrequently: true });
  context.fillStyle = GREY;
  context.fillRect(0, 0, total[1], total[0]);
  context.drawImage(source, left, top, w, h);
  const { data } = context.getImageData(0, 0, total[1], total[0]);
  const pixels = total[0] * total[1];
  const input = new Float32Array(3 * pixels);
  for (let i = 0; i < pixels; i++) {
    for (let c = 0; c < 3; c++) input[c * pixels + i] = data[4 * i + c] / 255;
  }
  const tensor = new ort.Tensor("float32", input, [1, 3, ...total]);
  return { tensor, left, top, scaleX: w / width, scaleY: h / height };
}

// Raw output: (1, 4 + classes, anchors), boxes as x, y of the centre, width, height.
function readRaw({ data, dims: [, rows, anchors] }, conf) {
  const boxes = [];
  for (let a = 0; a < anchors; a++) {
    let best = 4;
    for (let r = 5; r < rows; r++) if (data[r * anchors + a] > data[best * anchors + a]) best = r;
    const score = data[best * anchors + a];
    if (score <= conf) continue;
    const [x, y, w, h] = [0, 1, 2, 3].map((r) => data[r * anchors + a]);
    boxes.push({ x1: x - w / 2, y1: y - h / 2, x2: x + w / 2, y2: y + h / 2, score, class: best - 4 });
  }
  return boxes;
}

// Output of nms=True: (1, boxes, 6), the rows x1, y1, x2, y2, score, class.
function readRows({ data }, conf) {
  const boxes = [];
  for (let i = 0; i < data.length; i += 6) {
    const [x1, y1, x2, y2, score, c] = data.subarray(i, i + 6);
    if (score > conf) boxes.push({ x1, y1, x2, y2, score, class: c });
  }
  return boxes;
}

function nms(boxes, iou) {
  const kept = [];
  for (const box of boxes.sort((a, b) => b.score - a.score)) {
    if (!kept.some((other) => other.class === box.class && overlap(other, box) > iou)) kept.push(box);
  }
  return kept;
}

function overlap(a, b) {
  const area = (box) => (box.x2 - box.x1) * (box.y2 - box.y1);
  const w = Math.min(a.x2, b.x2) - Math.max(a.x1, b.x1);
  const h = Math.min(a.y2, b.y2) - Math.max(a.y1, b.y1);
  const both = Math.max(w, 0) * Math.max(h, 0);
  return both / (area(a) + area(b) - both);
}

// onnxruntime-web does not give out metadata_props, field 14 of ModelProto, so its few bytes of protobuf are read here.
function readMetadata(bytes) {
  const metadata = {};
  for (const [field, value] of protobufFields(bytes)) {
    if (field !== 14) continue;
    const entry = Object.fromEntries(protobufFields(value));
    metadata[new TextDecoder().decode(entry[1])] = new TextDecoder().decode(entry[2]);
  }
  return metadata;
}

function* protobufFields(bytes) {
  let at = 0;
  const varint = () => {
    let value = 0;
    for (let shift = 1; ; shift *= 128) {
      const byte = bytes[at++];
      value += (byte & 127) * shift;
      if (!(byte & 128)) return value;
    }
  };
  while (at < bytes.length) {
    const key = varint();
    const kind = key & 7;
    const size = kind === 2 ? varint() : { 1: 8, 5: 4 }[kind];
    if (kind === 0) yield [key >>> 3, varint()];
    else if (size === undefined) throw new Error("this is no ONNX file");
    else yield [key >>> 3, bytes.subarray(at, (at += size))];
  }
}

function pythonDictionary(text) {
  const entries = text.matchAll(/(\d+): (?:'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)")/g);
  return Object.fromEntries([...entries].map(([, key, a, b]) => [key, (a ?? b).replace(/\\(.)/g, "$1")]));
}
