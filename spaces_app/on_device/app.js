/** The page: photos, camera, language and colours in; faces and their attributes out. */

import { AttributeView } from "./attributes.js";
import { Camera } from "./camera.js";
import { Engine } from "./engine.js";
import { drawBoxes, drawCrops } from "./picture.js";
import { firstLanguage, LANGUAGES, Words } from "./strings.js";
import { FaceTracker } from "./tracking.js";

const MIN_SIDE = 16; // pixels; nothing smaller shows a face
const MOST_PIXELS = 16e6; // what every browser's canvas holds

const $ = (id) => document.getElementById(id);
const query = new URLSearchParams(location.search);

/** Choices that are kept; a page in another's frame may not be allowed to. */
const choices = {
  get(name) {
    try {
      return localStorage.getItem(`label2label.${name}`);
    } catch {
      return null;
    }
  },
  set(name, value) {
    try {
      localStorage.setItem(`label2label.${name}`, value);
    } catch {
      // Chosen for this visit only.
    }
  },
};

let words = new Words(firstLanguage(query.get("lang"), choices.get("language")));
let status = ["loading", {}]; // what is said, to say it again in another language
let view = null;
let page = null;
let shown = null; // the result on the page: {faces, width, height, milliseconds, name}
let chosen = 0;
let turn = 0; // counts photos and camera starts, so that a late answer to an earlier one is dropped

const camera = new Camera($("video"));
const engine = new Engine((part) => {
  $("progress").value = part;
});

// Language and colours

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
  const text = "count" in values ? words.sayCount(key, values.count) : words.say(key, values);
  // A screen reader repeats what is set, so in a video only what is new is.
  if ($("status").textContent !== text) $("status").textContent = text;
  $("status").classList.toggle("error", wrong);
}

function labelCamera() {
  $("camera").textContent = words.say(camera.on ? "stop" : "camera");
  $("live").hidden = !camera.on;
}

function isDark() {
  const { theme } = document.documentElement.dataset;
  return theme ? theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function paint(theme) {
  if (theme === "dark" || theme === "light") document.documentElement.dataset.theme = theme;
  $("theme").setAttribute("aria-pressed", isDark());
}

$("language").append(...Object.entries(LANGUAGES).map(([key, name]) => new Option(name, key)));
$("language").value = words.language;
$("language").onchange = ({ target }) => {
  words = new Words(target.value);
  choices.set("language", target.value);
  translate();
};
$("theme").onclick = () => {
  paint(isDark() ? "light" : "dark");
  choices.set("theme", document.documentElement.dataset.theme);
};
paint(query.get("theme") ?? query.get("__theme") ?? choices.get("theme"));
translate();

// Results

function show() {
  const faces = shown?.faces ?? [];
  chosen = Math.min(chosen, Math.max(faces.length - 1, 0));
  drawBoxes($("boxes"), shown ?? { width: 1, height: 1 }, faces, chosen, choose);
  const nameOf = (number) => words.say("face", { number });
  drawCrops($("faces"), faces, page.crop_size, chosen, nameOf, choose);
  view.show(faces[chosen]?.probabilities ?? null, !camera.on);
  $("empty").hidden = faces.length > 0;
  $("save").hidden = faces.length === 0 || camera.on;
  showTimings();
}

function choose(index) {
  chosen = index;
  show();
}

function showTimings() {
  const items = [];
  const add = (key, value, number) => {
    const item = document.createElement("div");
    const [term, detail] = [document.createElement("dt"), document.createElement("dd")];
    term.textContent = words.say(key);
    detail.textContent = value;
    detail.dataset.timing = key;
    detail.dataset.value = number;
    item.append(term, detail);
    items.push(item);
  };
  if (shown?.faces.length) {
    const { detection, attributes } = shown.milliseconds;
    for (const [key, value] of Object.entries({
      detection,
      attributes: attributes / shown.faces.length,
    })) {
      const rounded = value < 10 ? value.toFixed(1) : value.toFixed(0);
      add(key, words.say("milliseconds", { value: rounded }), value);
    }
    if (shown.rate) {
      add("rate", words.say("perSecond", { value: Math.round(shown.rate) }), shown.rate);
    }
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
  // What the keyboard was on is gone with the empty frame.
  if (document.activeElement.closest(".empty")) $("camera").focus({ preventScroll: true });
}

$("save").onclick = () => {
  const faces = shown.faces.map(({ box, score, probabilities }) => ({
    box: box.map((value) => Number(value.toFixed(1))),
    score: Number(score.toFixed(4)),
    attributes: Object.fromEntries(
      page.attributes.map((name, i) => [name, Number(probabilities[i].toFixed(4))]),
    ),
  }));
  const text = JSON.stringify([{ image: shown.name, faces }], null, 1);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  link.download = `${shown.name.replace(/\.\w+$/, "")}.json`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
};

// Photos

/**
 * Read a photo and show what is in it.
 * @param {Blob} file
 * @param {string} name
 */
async function readPhoto(file, name) {
  stopCamera();
  const mine = ++turn;
  say(page ? "working" : "loading");
  let bitmap;
  try {
    bitmap = await decode(file);
  } catch {
    if (mine === turn) say("notImage", { name }, true);
    return;
  }
  if (mine !== turn) return;
  const { width, height } = bitmap;
  if (Math.min(width, height) < MIN_SIDE) {
    say("tooSmall", { size: `${width}×${height}`, least: `${MIN_SIDE}×${MIN_SIDE}` }, true);
    return;
  }
  Object.assign($("photo"), { width, height });
  $("photo").getContext("2d").drawImage(bitmap, 0, 0);
  shown = null;
  setPicture({ width, height }, false);
  try {
    await loaded;
    show();
    say("working");
    const result = await engine.predict(bitmap, false);
    if (mine !== turn) return;
    shown = { ...result, name };
    chosen = largestOf(result.faces);
    show();
    if (result.faces.length) say("found", { count: result.faces.length });
    else say("noFace", {}, true);
  } catch (error) {
    if (page && mine === turn) say("failed", { reason: error.message }, true);
  }
}

/**
 * Pixels as they are in the file, upright, and no more of them than a canvas holds.
 * @param {Blob} file
 * @returns {Promise<ImageBitmap>}
 */
async function decode(file) {
  const options = { colorSpaceConversion: "none", imageOrientation: "from-image" };
  const bitmap = await createImageBitmap(file, options);
  const shrink = Math.sqrt(MOST_PIXELS / (bitmap.width * bitmap.height));
  if (shrink >= 1) return bitmap;
  const resizeWidth = Math.floor(bitmap.width * shrink);
  const resizeHeight = Math.floor(bitmap.height * shrink);
  return createImageBitmap(bitmap, { resizeWidth, resizeHeight, resizeQuality: "high" });
}

/** Index of the largest face, 0 where there is none. */
function largestOf(faces) {
  const areas = faces.map(({ box: [x0, y0, x1, y1] }) => (x1 - x0) * (y1 - y0));
  return Math.max(areas.indexOf(Math.max(...areas)), 0);
}

$("file").onchange = ({ target }) => {
  const [file] = target.files;
  if (file) readPhoto(file, file.name);
  target.value = ""; // so that the same file can be chosen again
};
$("example").onclick = async () => {
  const response = await fetch("example.jpg");
  readPhoto(await response.blob(), "example.jpg");
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
  try {
    await start();
    if (mine !== turn) return camera.stop();
  } catch (error) {
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
  $("flip").hidden = !(await camera.hasOther());
  camera.stream.getTracks().forEach((track) => (track.onended = stopCamera));
  try {
    await loaded;
    await watch(mine);
  } catch (error) {
    if (page && mine === turn) {
      stopCamera();
      say("cameraFailed", { reason: error.message }, true);
    }
  }
}

/** Show the faces of every frame that the models keep up with, until something else is shown. */
async function watch(mine) {
  const tracker = new FaceTracker();
  let before = performance.now();
  let rate = 0;
  let track = null;
  while (camera.on && mine === turn) {
    await camera.nextFrame();
    if (!camera.on || mine !== turn) return;
    const result = await engine.predict(await createImageBitmap($("video")), true);
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

function stopCamera() {
  if (!camera.on) return;
  turn++;
  // The last frame stays, with what was found in it.
  const { videoWidth: width, videoHeight: height } = $("video");
  Object.assign($("photo"), { width, height });
  const context = $("photo").getContext("2d");
  if ($("picture").classList.contains("mirrored")) {
    context.translate(width, 0);
    context.scale(-1, 1);
  }
  context.drawImage($("video"), 0, 0);
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
loaded.catch(() => {}); // it has been said
