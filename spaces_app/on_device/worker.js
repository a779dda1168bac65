/**
 * Run the models in a worker, so that the page stays responsive.
 *
 * Messages in: `{bitmap, kind, id}`. Messages out: `{progress}` while it loads, then `{page}`,
 * and for each bitmap `{id, faces, width, height, milliseconds}` or `{id, error}`.
 */

import { AttributePredictor } from "./predictor.js";

const ASSETS = new URL("assets/", import.meta.url);

/** Fetch a file in `assets/`; `advance` is called with the bytes of each part that arrives. */
async function fetchBytes(name, advance) {
  const response = await fetch(new URL(name, ASSETS));
  if (!response.ok) throw new Error(`${name}: ${response.status} ${response.statusText}`);
  const parts = [];
  const reader = response.body.getReader();
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    parts.push(part.value);
    advance(part.value.length);
  }
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

/** Load the runtime and both models. */
async function load() {
  const response = await fetch(new URL("page.json", ASSETS));
  if (!response.ok) throw new Error(`page.json: ${response.status} ${response.statusText}`);
  const page = await response.json();
  const parts = [page.runtime, page.model, page.detector];
  const total = parts.reduce((sum, part) => sum + part.bytes, 0);
  let loaded = 0;
  const advance = (bytes) => {
    loaded += bytes;
    postMessage({ progress: Math.min(loaded / total, 1) });
  };
  const [ort, wasm, model, detector] = await Promise.all([
    import(new URL(page.runtime.module, ASSETS)),
    ...parts.map((part) => fetchBytes(part.file, advance)),
  ]);
  ort.env.wasm.wasmBinary = wasm;
  ort.env.wasm.numThreads = 1; // more need headers that a page in an iframe lacks
  const predictor = new AttributePredictor(
    ort,
    await ort.InferenceSession.create(model),
    await ort.InferenceSession.create(detector),
    page,
  );
  await warmUp(predictor);
  postMessage({ page });
  return predictor;
}

/** Run the models once, so that the first face takes no longer than the next. */
async function warmUp(predictor) {
  const blank = new ImageData(64, 64);
  await predictor.predict(blank, "frame");
  const landmarks = predictor.page.alignment_template;
  await predictor.predictFaces(blank, [{ landmarks }]);
}

/** Read the pixels of an image, with transparency on white, and close it. */
function readPixels(bitmap) {
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d", { willReadFrequently: true, alpha: false });
  context.fillStyle = "white";
  context.fillRect(0, 0, bitmap.width, bitmap.height);
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return context.getImageData(0, 0, canvas.width, canvas.height);
}

const loading = load();
loading.catch((error) => postMessage({ error: String(error?.message ?? error) }));

onmessage = async ({ data: { bitmap, kind, id } }) => {
  try {
    const predictor = await loading;
    const photo = readPixels(bitmap);
    const { width, height } = photo;
    const result = await predictor.predict(photo, kind);
    postMessage({ id, width, height, ...result });
  } catch (error) {
    postMessage({ id, error: String(error?.message ?? error) });
  }
};
