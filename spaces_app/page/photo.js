// The photo: chosen, dropped, pasted, taken or an example; its faces boxed and selectable.

const COPY_PIXELS = 16e6; // what every browser's canvas holds
const NOTABLE_ROLL = 30; // degrees; the page shows a roll from here on

class Refusal extends Error {
  constructor(code) {
    super(code);
    this.code = code;
  }
}

function readAsDataUrl(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(new Refusal("not_an_image"));
    reader.readAsDataURL(blob);
  });
}

const stopStream = (stream) => stream.getTracks().forEach((track) => track.stop());

// What is shown (url) and what is sent (data): the file itself, so that the answer is the one that the
// API gives, else a copy, whose size is told.
async function prepare(blob) {
  const limits = props.limits;
  const url = URL.createObjectURL(blob);
  const image = new Image();
  try {
    await new Promise((resolve, reject) => {
      image.onload = resolve;
      image.onerror = reject;
      image.src = url;
    });
  } catch {
    URL.revokeObjectURL(url);
    throw new Refusal("not_an_image");
  }
  const pixels = image.naturalWidth * image.naturalHeight;
  if (limits.types.includes(blob.type) && blob.size <= limits.bytes && pixels <= 1e6 * limits.megapixels) {
    return { url, data: await readAsDataUrl(blob), copy: null };
  }
  const scale = Math.min(1, Math.sqrt(COPY_PIXELS / pixels));
  const [width, height] = [image.naturalWidth, image.naturalHeight].map((side) => Math.max(1, Math.floor(side * scale)));
  const canvas = make("canvas", { width, height });
  const context = canvas.getContext("2d");
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  context.imageSmoothingQuality = "high";
  context.drawImage(image, 0, 0, width, height);
  return { url, data: canvas.toDataURL("image/jpeg", 0.92), copy: { width, height } };
}

// onPhoto(blob, data) when there is a new photo, onFace(index) when another face is chosen.
function createPhotoView({ onPhoto, onFace }) {
  const group = `face-${Math.random().toString(36).slice(2)}`;
  let url = null;
  let copy = null; // width and height of what is sent, where it is not the file itself
  let faces = [];
  let chosen = 0;
  let stream = null;
  let turn = 0; // counts photos and camera starts, so that what comes late of an earlier one is dropped
  let lastMessage = null;

  const input = make("input", { type: "file", accept: "image/*", hidden: true, tabindex: "-1" });
  const image = make("img", { hidden: true });
  const boxes = make("div", { class: "boxes", "aria-hidden": "true" });
  const frame = make("div", { class: "frame", hidden: true }, image, boxes);
  const video = make("video", { autoplay: true, playsinline: true, muted: true });
  const take = make("button", { type: "button", class: "primary" });
  const close = make("button", { type: "button" });
  const camera = make("div", { class: "camera", hidden: true }, video, make("div", { class: "tools" }, take, close));
  const hint = make("p");
  const placeholder = make("div", { class: "placeholder" }, make("span", { class: "icon", "aria-hidden": "true" }), hint);
  const stage = make("div", { class: "stage" }, placeholder, frame, camera);
  const upload = make("button", { type: "button", class: "primary" });
  const webcam = make("button", { type: "button" });
  const paste = make("button", { type: "button" });
  const status = make("p", { class: "status", role: "status" });
  const legend = make("legend", { class: "unseen" });
  const strip = make("fieldset", { class: "strip", hidden: true }, legend);
  const examplesTitle = make("p", { class: "examples-title" });
  const examples = make("div", { class: "examples" });
  const root = make("section", { class: "photo" }, stage, strip, status);
  const sources = make(
    "div", { class: "sources" },
    make("div", { class: "tools" }, upload, webcam, paste, input), examplesTitle, examples,
  );

  function relabel() {
    root.setAttribute("aria-label", say("photo.region"));
    image.alt = say("photo.alt");
    hint.textContent = say("photo.drop");
    upload.textContent = say(url ? "photo.other" : "photo.upload");
    webcam.textContent = say("photo.webcam");
    paste.textContent = say("photo.paste");
    take.textContent = say("photo.take");
    close.textContent = say("photo.close");
    legend.textContent = say("photo.faces");
    examplesTitle.textContent = say("photo.examples");
    examples.replaceChildren(...props.examples.map((example) =>
      make("button", { type: "button", "data-example": example.key, onclick: () => chooseExample(example) },
        make("img", { src: example.url, alt: "" }),
        make("span", { text: say(`photo.example.${example.key}`) }))));
    examplesTitle.hidden = !props.examples.length;
    nameFaces();
    if (lastMessage) tell(...lastMessage);
  }

  // `extra` returns further sentences, so that a change of language says them anew, too.
  function tell(kind, key, values = {}, extra = () => []) {
    lastMessage = [kind, key, values, extra];
    status.className = `status ${kind}`;
    status.textContent = key ? [say(key, values), ...extra()].join(" ") : "";
  }

  async function choose(blob) {
    closeCamera();
    const mine = turn;
    try {
      const prepared = await prepare(blob);
      if (mine !== turn) return URL.revokeObjectURL(prepared.url);
      if (url) URL.revokeObjectURL(url);
      ({ url, copy } = prepared);
      image.src = url;
      image.hidden = frame.hidden = false;
      placeholder.hidden = true;
      sources.classList.add("compact");
      showFaces({ faces: [] });
      relabel();
      onPhoto(blob, prepared.data);
    } catch (error) {
      if (mine === turn) tell("bad", `error.${error.code ?? "not_an_image"}`);
    }
  }

  async function chooseExample(example) {
    choose(await (await fetch(example.url)).blob());
  }

  function showFaces({ faces: found, width, height }) {
    faces = found;
    chosen = 0;
    boxes.replaceChildren(...faces.map((face, index) => {
      const [x0, y0, x1, y1] = face.box;
      const box = make("button", { type: "button", tabindex: "-1", class: "box", onclick: () => select(index) });
      box.style.left = `${(100 * x0) / width}%`;
      box.style.top = `${(100 * y0) / height}%`;
      box.style.width = `${(100 * (x1 - x0)) / width}%`;
      box.style.height = `${(100 * (y1 - y0)) / height}%`;
      return box;
    }));
    strip.replaceChildren(legend, ...faces.map((face, index) =>
      make("label", {},
        make("input", { type: "radio", name: group, checked: index === 0, onchange: () => select(index) }),
        make("img", { src: face.crop }), make("span"))));
    // A single face needs no choice, unless it has flaws to show.
    strip.hidden = faces.length < 2 && !faces.some(describe);
    nameFaces();
    mark();
  }

  function nameFaces() {
    for (const [index, picture] of [...strip.querySelectorAll("img")].entries()) {
      picture.alt = say("photo.face", { number: index + 1, count: faces.length });
      picture.nextSibling.textContent = describe(faces[index]);
    }
  }

  // A face's flaws and roll; empty for most faces.
  function describe({ roll, warnings }) {
    const turned = Math.abs(roll) >= NOTABLE_ROLL
      ? [say(roll > 0 ? "face.clockwise" : "face.counterclockwise", { degrees: Math.round(Math.abs(roll)) })] : [];
    return [...turned, ...warnings.map((name) => say(`face.${name}`))].join(", ");
  }

  function mark() {
    for (const [index, box] of [...boxes.children].entries()) box.classList.toggle("chosen", index === chosen);
  }

  function select(index) {
    chosen = index;
    strip.querySelectorAll("input")[index].checked = true;
    mark();
    onFace(index);
  }

  async function openCamera() {
    closeCamera();
    const mine = turn;
    let started;
    try {
      started = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "user" } });
    } catch {
      if (mine === turn) tell("bad", "error.webcam");
      return;
    }
    if (mine !== turn || !root.offsetParent) return stopStream(started);
    stream = started;
    video.srcObject = stream;
    camera.hidden = false;
    frame.hidden = placeholder.hidden = true;
    take.focus();
  }

  function closeCamera() {
    turn++;
    if (stream) stopStream(stream);
    stream = null;
    camera.hidden = true;
    frame.hidden = !url;
    placeholder.hidden = !!url;
  }

  function takePhoto() {
    const canvas = make("canvas", { width: video.videoWidth, height: video.videoHeight });
    canvas.getContext("2d").drawImage(video, 0, 0);
    canvas.toBlob((blob) => (blob ? choose(blob) : tell("bad", "error.webcam")), "image/png");
    webcam.focus();
  }

  async function pasteFromClipboard() {
    try {
      for (const item of await navigator.clipboard.read()) {
        const type = item.types.find((name) => name.startsWith("image/"));
        if (type) return choose(await item.getType(type));
      }
      tell("bad", "error.no_photo");
    } catch {
      tell("", "photo.pasteHint"); // without the permission to read, the keyboard still may
    }
  }

  input.addEventListener("change", () => {
    if (input.files.length) choose(input.files[0]);
    input.value = "";
  });
  upload.addEventListener("click", () => input.click());
  webcam.addEventListener("click", openCamera);
  paste.addEventListener("click", pasteFromClipboard);
  take.addEventListener("click", takePhoto);
  close.addEventListener("click", () => { closeCamera(); webcam.focus(); });
  // On a tab that is left nobody sees that the camera is on.
  new ResizeObserver(() => stream && !root.offsetParent && closeCamera()).observe(root);
  for (const name of ["dragenter", "dragover"]) {
    stage.addEventListener(name, (event) => { event.preventDefault(); stage.classList.add("over"); });
  }
  for (const name of ["dragleave", "drop"]) {
    stage.addEventListener(name, () => stage.classList.remove("over"));
  }
  stage.addEventListener("drop", (event) => {
    event.preventDefault();
    if (event.dataTransfer.files.length) choose(event.dataTransfer.files[0]);
  });
  document.addEventListener("paste", (event) => {
    const file = [...(event.clipboardData?.files ?? [])].find((f) => f.type.startsWith("image/"));
    if (file && root.offsetParent) choose(file); // only on the tab that is open
  });

  // Says what was found; `milliseconds` is how long the visitor waited.
  function showResult(result, milliseconds) {
    root.removeAttribute("aria-busy");
    const sent = copy;
    const copied = () => (sent ? [say("note.copy", sent)] : []);
    if (result.error) return tell("bad", `error.${result.error.code}`, result.error.values, copied);
    showFaces(result);
    const count = result.faces.length;
    tell("good", count === 1 ? "status.one" : "status.many", { count }, () => [
      ...copied(),
      ...result.notes.map((note) => say(`note.${note.code}`, note.values)),
      `(${say("status.time", { milliseconds: Math.round(milliseconds) })})`,
    ]);
  }

  function showLooking() {
    root.setAttribute("aria-busy", "true");
    tell("", "status.looking");
  }

  relabel();
  return { root, sources, choose, relabel, showLooking, showResult, tell };
}
