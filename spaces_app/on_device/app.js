/** The page: photos, camera and language in; faces and their attributes out. */

import { AttributeView } from "./attributes.js";
import { Camera } from "./camera.js";
import { make } from "./elements.js";
import { Engine } from "./engine.js";
import { findFlaws, rollOf, scaleFace, sizeOf } from "./face.js";
import { drawBoxes, drawCrops } from "./picture.js";
import { firstLanguage, LANGUAGES, Words } from "./strings.js";
import { FaceTracker } from "./tracking.js";

const MIN_SIDE = 16; // pixels; nothing smaller shows a face
const MOST_PIXELS = 16e6; // what every browser's canvas holds
const NOTABLE_ROLL = 30; // degrees; the page shows a roll from here on

const $ = (id) => document.getElementById(id);

let words = new Words(firstLanguage());
let status = ["loading", {}]; // the current message, to repeat it in another language
let view = null;
let page = null;
let shown = null; // the result on the page: {faces, width, height, milliseconds, name}
let chosen = 0;
let turn = 0; // counts photos and camera starts, so that a late answer to an earlier one is dropped

const camera = new Camera($("video"));
const engine = new Engine((part) => {
  $("progress").value = part;
});

// Language

function translate() {
  document.documentElement.lang = words.language;
  document.title = words.say("title");
  for (const element of document.querySelectorAll("[data-text]")) {
    element.textContent = words.say(element.dataset.text);
  }
  for (const element of document.querySelectorAll("[data-label]")) {
    element.setAttribute("aria-label", words.say(element.dataset.label));
  }
  $("example").title = words.say("exampleCredit");
  labelCamera();
  say(...status);
  if (!page) return;
  const runtime = `${page.runtime.name} ${page.runtime.version}`;
  const size = (page.model.bytes / 1e6).toFixed(1);
  $("model").textContent = words.say("model", { size, runtime });
  view.translate(words);
  show();
}

function say(key, values = {}, wrong = false) {
  status = [key, values, wrong];
  const text = words.say(key, values);
  // A screen reader reads every update, so a video updates only what changed.
  if ($("status").textContent !== text) $("status").textContent = text;
  $("status").classList.toggle("error", wrong);
}

function labelCamera() {
  $("camera").textContent = words.say(camera.on ? "stop" : "camera");
  $("live").hidden = !camera.on;
}

function speak(language) {
  words = new Words(language);
  $("language").value = language;
  translate();
}

$("language").append(...Object.entries(LANGUAGES).map(([key, name]) => new Option(name, key)));
$("language").onchange = ({ target }) => speak(target.value);
// The page around this one may switch the language.
addEventListener("message", ({ origin, data }) => {
  if (origin === location.origin && data?.language in LANGUAGES) speak(data.language);
});
speak(words.language);

// Results

function show() {
  const faces = shown?.faces ?? [];
  chosen = Math.min(chosen, Math.max(faces.length - 1, 0));
  drawBoxes($("boxes"), shown ?? { width: 1, height: 1 }, faces, chosen, choose);
  const names = faces.map((_, index) => words.say("face", { number: index + 1 }));
  drawCrops($("faces"), faces, page.crop_size, chosen, names, faces.map(describeFace), choose);
  view.show(faces[chosen]?.probabilities ?? null, !camera.on);
  $("empty").hidden = faces.length > 0;
  $("save").hidden = faces.length === 0 || camera.on;
  showTimings();
}

/** Describe a face's flaws and roll; empty for most faces. */
function describeFace(face) {
  const roll = rollOf(face, page.face.arcface_template);
  const value = Math.round(Math.abs(roll));
  const turned = words.say(roll > 0 ? "clockwise" : "counterclockwise", { value });
  const flaws = findFlaws(face, shown, page.face).map((flaw) => words.strings.flaws[flaw]);
  return [...(value >= NOTABLE_ROLL ? [turned] : []), ...flaws].join(", ");
}

function choose(index) {
  chosen = index;
  show();
}

function showTimings() {
  const makeTiming = (key, unit, value) => {
    const rounded = unit === "milliseconds" && value < 10 ? value.toFixed(1) : value.toFixed(0);
    const detail = make("dd", { textContent: words.say(unit, { value: rounded }) });
    Object.assign(detail.dataset, { timing: key, value });
    return make("div", {}, make("dt", { textContent: words.say(key) }), detail);
  };
  const items = [];
  if (shown?.faces.length) {
    const { detection, attributes } = shown.milliseconds;
    items.push(makeTiming("detection", "milliseconds", detection));
    items.push(makeTiming("attributes", "milliseconds", attributes / shown.faces.length));
    if (shown.rate) items.push(makeTiming("rate", "perSecond", shown.rate));
  }
  $("timings").replaceChildren(...items);
}

function setPicture({ width, height }, mirrored) {
  $("frame").dataset.state = "full";
  $("picture").hidden = false;
  $("picture").style.setProperty("--ratio", width / height);
  $("picture").classList.toggle("mirrored", mirrored);
  $("photo").hidden = camera.on;
  $("video").hidden = !camera.on;
  $("toolbar").hidden = false;
  // The element with the keyboard's focus is hidden with the empty frame.
  if (document.activeElement.closest(".empty")) $("camera").focus({ preventScroll: true });
}

$("save").onclick = () => {
  const faces = shown.faces.map((face) => {
    const decisions = view.decide(face.probabilities);
    const attributes = Object.fromEntries(
      page.attributes.map((name, i) => [name, Number(face.probabilities[i].toFixed(4))]),
    );
    const present = page.attributes.filter((_, i) => decisions[i]);
    return {
      box: face.box.map((value) => Number(value.toFixed(1))),
      score: Number(face.score.toFixed(4)),
      size: Number(sizeOf(face).toFixed(1)),
      roll: Number(rollOf(face, page.face.arcface_template).toFixed(1)),
      warnings: findFlaws(face, shown, page.face),
      attributes,
      present: present.sort((one, other) => attributes[other] - attributes[one]),
    };
  });
  const text = JSON.stringify([{ image: shown.name, faces }], null, 1);
  const link = make("a", {
    href: URL.createObjectURL(new Blob([text], { type: "application/json" })),
    download: `${shown.name.replace(/\.\w+$/, "")}.json`,
  });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
};

// Photos

/** Read a photo and show its faces. */
async function readPhoto(file, name) {
  stopCamera();
  const mine = ++turn;
  say(page ? "working" : "loading");
  let decoded;
  try {
    decoded = await decode(file);
  } catch {
    if (mine === turn) say("notImage", { name }, true);
    return;
  }
  if (mine !== turn) return;
  const { bitmap, width, height } = decoded;
  if (Math.min(width, height) < MIN_SIDE) {
    say("tooSmall", { size: `${width}×${height}`, least: `${MIN_SIDE}×${MIN_SIDE}` }, true);
    return;
  }
  Object.assign($("photo"), { width: bitmap.width, height: bitmap.height });
  $("photo").getContext("2d").drawImage(bitmap, 0, 0);
  shown = null;
  setPicture({ width, height }, false);
  try {
    await loaded;
    if (mine !== turn) return;
    show();
    say("working");
    const kind = file.type === "image/jpeg" ? "jpeg" : "photo";
    const result = await engine.predict(bitmap, kind);
    if (mine !== turn) return;
    // The models saw a reduced copy if the photo is too large for a canvas.
    const faces = result.faces.map((face) => scaleFace(face, result, { width, height }));
    shown = { ...result, faces, width, height, name };
    chosen = largestOf(faces);
    show();
    if (result.faces.length) say("found", { count: result.faces.length });
    else say("noFace", {}, true);
  } catch (error) {
    if (mine === turn) say(page ? "failed" : "loadFailed", { reason: error.message }, true);
  }
}

/** Decode a photo upright, reduced if a canvas cannot hold it; return it and the size in the file. */
async function decode(file) {
  const options = { colorSpaceConversion: "none", imageOrientation: "from-image" };
  const bitmap = await createImageBitmap(file, options);
  const { width, height } = bitmap;
  const shrink = Math.sqrt(MOST_PIXELS / (width * height));
  if (shrink >= 1) return { bitmap, width, height };
  const resizeWidth = Math.floor(width * shrink);
  const resizeHeight = Math.floor(height * shrink);
  const size = { resizeWidth, resizeHeight, resizeQuality: "high" };
  const smaller = await createImageBitmap(bitmap, size);
  bitmap.close();
  return { bitmap: smaller, width, height };
}

/** Return the index of the largest face, or 0. */
function largestOf(faces) {
  const sizes = faces.map(sizeOf);
  return Math.max(sizes.indexOf(Math.max(...sizes)), 0);
}

$("file").onchange = ({ target }) => {
  const [file] = target.files;
  if (file) readPhoto(file, file.name);
  target.value = ""; // so that the same file can be chosen again
};
$("example").onclick = async () => {
  try {
    const response = await fetch("example.jpg");
    if (!response.ok) throw new Error(`example.jpg: ${response.status} ${response.statusText}`);
    readPhoto(await response.blob(), "example.jpg");
  } catch (error) {
    say("failed", { reason: error.message }, true);
  }
};
document.addEventListener("paste", ({ clipboardData }) => {
  const [file] = clipboardData.files;
  if (file) readPhoto(file, file.name);
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  $("frame").classList.add("dropping");
});
document.addEventListener("dragleave", () => $("frame").classList.remove("dropping"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  $("frame").classList.remove("dropping");
  const [file] = event.dataTransfer.files;
  if (file) readPhoto(file, file.name);
});

// Camera

let starting = false;

async function startCamera(start) {
  if (starting) return;
  starting = true;
  const mine = ++turn;
  keepFrame(); // of the camera that is turned from, in case that there is no other
  try {
    await start();
    if (mine !== turn) return camera.stop();
  } catch (error) {
    if (mine !== turn) return camera.stop();
    stopCamera();
    const known = { NotAllowedError: "cameraDenied", NotFoundError: "cameraMissing" };
    say(known[error.name] ?? "cameraFailed", { reason: error.message || error.name }, true);
    return;
  } finally {
    starting = false;
  }
  const { videoWidth: width, videoHeight: height } = $("video");
  shown = null;
  setPicture({ width, height }, camera.facing === "user");
  labelCamera();
  camera.stream.getTracks().forEach((track) => (track.onended = stopCamera));
  const hasOther = await camera.hasOther();
  if (mine !== turn) return;
  $("flip").hidden = !hasOther;
  try {
    await loaded;
    await watch(mine);
  } catch (error) {
    if (mine === turn) {
      stopCamera();
      say(page ? "cameraFailed" : "loadFailed", { reason: error.message }, true);
    }
  }
}

/** Show the camera's faces, as many frames as the models can process, until something else is shown. */
async function watch(mine) {
  const tracker = new FaceTracker();
  let before = performance.now();
  let rate = 0;
  let track = null;
  while (camera.on && mine === turn) {
    await camera.nextFrame();
    if (!camera.on || mine !== turn) return;
    const result = await engine.predict(await createImageBitmap($("video")), "frame");
    if (!camera.on || mine !== turn) return;
    const now = performance.now();
    rate = rate ? 0.9 * rate + 100 / (now - before) : 1000 / (now - before);
    before = now;
    if (shown?.faces.length) track = shown.faces[chosen].track;
    shown = { ...result, faces: tracker.follow(result.faces), rate, name: "camera" };
    const same = shown.faces.findIndex((face) => face.track === track);
    chosen = same >= 0 ? same : largestOf(shown.faces);
    show();
    if (shown.faces.length) say("found", { count: shown.faces.length });
    else say("noFaceLive");
  }
}

/** Keep the last frame with its faces. */
function keepFrame() {
  const { videoWidth: width, videoHeight: height } = $("video");
  if (!width) return;
  Object.assign($("photo"), { width, height });
  const context = $("photo").getContext("2d");
  if ($("picture").classList.contains("mirrored")) {
    context.translate(width, 0);
    context.scale(-1, 1);
  }
  context.drawImage($("video"), 0, 0);
}

function stopCamera() {
  if (!camera.on && !starting) return;
  turn++;
  keepFrame();
  camera.stop();
  $("photo").hidden = false;
  $("video").hidden = true;
  $("flip").hidden = true;
  labelCamera();
  if (page) show();
}

for (const button of document.querySelectorAll("[data-action=camera]")) {
  button.onclick = () => (camera.on ? stopCamera() : startCamera(() => camera.start()));
}
$("flip").onclick = () => startCamera(() => camera.flip());
addEventListener("pagehide", stopCamera);
// While the page is hidden, nobody sees that the camera is on.
new IntersectionObserver((entries) => {
  if (!entries.at(-1).isIntersecting) stopCamera();
}).observe(document.documentElement);

// The models

const loaded = engine.page.then(
  (description) => {
    page = description;
    view = new AttributeView(page, $("groups"), $("chips"));
    $("progress").hidden = true;
    say("ready");
    translate();
  },
  (error) => {
    $("progress").hidden = true;
    say("loadFailed", { reason: error.message }, true);
    throw error;
  },
);
loaded.catch(() => {}); // already shown
