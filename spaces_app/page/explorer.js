// The first tab: a photo, a face's attributes, attention maps, and attributes the visitor knows.

// `model` is the one whose answer is shown: another may be chosen already, and not have answered yet.
const state = { data: null, model: null, faces: [], face: 0, attribute: null, known: [], now: [] };
const rows = new Map(); // by attribute
const unread = new Set(); // faces of which something is known that no answer has taken in yet
let looking = false; // whether a photo's answer is due
let reading = false; // whether one of these faces' answer is due

const photo = createPhotoView({
  onPhoto: (blob, data) => {
    state.data = data;
    document.label2labelPhoto = blob; // for the second tab
    analyse();
  },
  onFace: (index) => {
    state.face = index;
    render();
  },
});
const choice = createModelChoice("model.choose", 0, () => state.data && analyse());

const canvas = make("canvas", { class: "map", width: 336, height: 336, role: "img" });
const mapTitle = make("p", { class: "caption" });
const scale = make("div", { class: "scale", "aria-hidden": "true" }, make("span"), make("i"), make("span"));
const detailTitle = make("h2", { class: "title" });
const verdict = make("p", { class: "verdict" });
const knowLegend = make("legend");
const radios = ["unknown", "yes", "no"].map((value) => {
  const text = make("span");
  const input = make("input", { type: "radio", name: "know", value, onchange: () => setKnown(state.attribute, value) });
  return { value, input, text, label: make("label", {}, input, text) };
});
const know = make("fieldset", { class: "know" }, knowLegend, ...radios.map((radio) => radio.label));
const moved = make("p", { class: "moved", role: "status" });
const knownList = make("div", { class: "known-list" });
const detail = make(
  "section", { class: "detail", hidden: true },
  make("div", { class: "where" }, canvas, mapTitle, scale),
  make("div", { class: "what" }, detailTitle, verdict, know, moved, knownList),
);
const empty = make("p", { class: "empty" });
const sentence = make("p", { class: "sentence", hidden: true });
const groups = make("div", { class: "groups" });
const thresholds = make("p", { class: "footnote", hidden: true });
const attributes = make("section", { class: "attributes" }, choice.root, empty, sentence, groups, thresholds);
element.firstElementChild.append(
  make("div", { class: "columns" }, make("div", { class: "left" }, photo.root, photo.sources, detail), attributes),
);

const prediction = () => state.faces[state.face].predictions[state.model.key];
const current = () => state.now[state.face] ?? prediction();
const knownHere = () => state.known[state.face];

function analyse() {
  const model = choice.model();
  looking = true;
  reading = false;
  unread.clear();
  photo.showLooking();
  const start = performance.now();
  ask("analyse", { photo: state.data, models: [model.key] }, (answer) => {
    looking = false;
    state.model = model;
    state.faces = answer.faces ?? [];
    state.face = 0;
    state.known = state.faces.map(() => ({}));
    state.now = state.faces.map(() => null);
    photo.showResult(answer, performance.now() - start);
    render();
  });
}

function setKnown(attribute, value) {
  const known = { ...knownHere() };
  if (value === "unknown") delete known[attribute];
  else known[attribute] = value === "yes";
  readAgain(known);
}

// Predicts the chosen face again, given its known attributes.
function readAgain(known) {
  const face = state.face;
  if (looking) return render(); // the answer that is due starts with nothing known
  state.known[face] = known;
  if (Object.keys(known).length) unread.add(face);
  else {
    unread.delete(face);
    state.now[face] = null;
  }
  readNext();
  render();
}

// One after the other, as a second request would take the first one's answer away.
function readNext() {
  if (reading || !unread.size) return;
  const [face] = unread;
  const known = state.known[face];
  const { crop } = state.faces[face];
  reading = true;
  ask("condition", { crop, model: state.model.key, known }, (answer) => {
    reading = false;
    const late = known !== state.known[face]; // the visitor has said something else meanwhile
    if (!late) unread.delete(face);
    readNext();
    if (late) return;
    if (answer.error) return photo.tell("bad", `error.${answer.error.code}`, answer.error.values);
    state.now[face] = answer.prediction;
    photo.tell("good", "status.updated");
    render();
  });
}

function buildRows(model) {
  rows.clear();
  groups.replaceChildren(...groupsOf(model.attributes).map(([group, names]) =>
    make("section", { class: "group", "data-group": group },
      make("h2", { text: say(`group.${group}`) }),
      make("ul", {}, ...names.map(buildRow)))));
}

function buildRow(attribute) {
  const fill = make("span", { class: "fill" });
  const before = make("span", { class: "before" });
  const mark = make("span", { class: "mark" });
  const track = make("span", { class: "track", "aria-hidden": "true" }, fill, before, mark);
  const percent = make("span", { class: "percent" });
  const answer = make("span", { class: "answer" });
  const button = make(
    "button",
    { type: "button", "data-attribute": attribute, onclick: () => { state.attribute = attribute; render(); } },
    make("span", { class: "name", text: nameOf(attribute) }), track, percent, " ", answer,
  );
  rows.set(attribute, { button, fill, before, mark, percent, answer });
  return make("li", {}, button);
}

function render() {
  const some = state.faces.length > 0;
  empty.hidden = some;
  sentence.hidden = groups.hidden = thresholds.hidden = detail.hidden = !some;
  if (!some) return;
  const { model } = state;
  if (groups.dataset.built !== `${model.key} ${language()}`) {
    buildRows(model);
    groups.dataset.built = `${model.key} ${language()}`;
  }
  if (!model.attributes.includes(state.attribute)) state.attribute = surest(model);
  model.attributes.forEach((attribute, index) => renderRow(model, attribute, index));
  renderSentence(model);
  renderDetail(model, model.attributes.indexOf(state.attribute));
}

// The first attribute to show: the most probable one of groups that have a place in the face.
function surest(model) {
  const seen = ["accessories", "expression", "hair", "facial hair"].flatMap((group) => props.groups[group]);
  const { probabilities, present } = prediction();
  const score = (name, index) => probabilities[index] - model.thresholds[index] + (seen.includes(name) && name !== "No_Beard" ? 1 : 0) - (present[index] ? 0 : 2);
  return model.attributes.reduce((best, name, index, all) =>
    score(name, index) > score(best, all.indexOf(best)) ? name : best);
}

function renderRow(model, attribute, index) {
  const row = rows.get(attribute);
  const probability = current().probabilities[index];
  const yes = current().present[index];
  const own = prediction().probabilities[index];
  const known = attribute in knownHere();
  row.button.classList.toggle("yes", yes);
  row.button.classList.toggle("known", known);
  row.button.setAttribute("aria-pressed", String(attribute === state.attribute));
  row.fill.style.width = `${100 * probability}%`;
  row.before.style.left = `${100 * own}%`;
  row.before.hidden = Math.abs(probability - own) < 0.01;
  row.mark.style.left = `${100 * model.thresholds[index]}%`;
  row.percent.textContent = percentOf(probability);
  row.answer.textContent = say(yes ? "attributes.yes" : "attributes.no");
  row.button.title = known ? say("attributes.known") : "";
}

function renderSentence(model) {
  const words = model.attributes.filter((_, i) => current().present[i]);
  sentence.replaceChildren(
    make("strong", { text: `${say("attributes.sentence")}: ` }),
    words.map(nameOf).join(", ") || say("attributes.none"),
  );
}

function renderDetail(model, index) {
  const attribute = state.attribute;
  const known = knownHere()[attribute];
  const own = prediction().probabilities[index];
  const threshold = model.thresholds[index];
  const answer = (yes) => say(yes ? "attributes.yes" : "attributes.no");
  detailTitle.textContent = nameOf(attribute);
  const { probabilities, present } = current();
  const excluded = probabilities[index] >= threshold && !present[index];
  verdict.textContent = known === undefined
    ? say(excluded ? "detail.excluded" : "detail.says", {
        percent: percentOf(probabilities[index]),
        answer: answer(present[index]),
        threshold: percentOf(threshold),
      })
    : say("detail.saysKnown", { answer: answer(known), percent: percentOf(own) });
  know.hidden = !model.takes_known;
  for (const radio of radios) {
    radio.input.checked = radio.value === (known === undefined ? "unknown" : known ? "yes" : "no");
  }
  renderMoved(model);
  renderMap(model, index);
}

function renderMoved(model) {
  const known = Object.entries(knownHere());
  knownList.replaceChildren();
  if (!model.takes_known || !known.length) {
    moved.textContent = say(model.takes_known ? "detail.hint" : "detail.noKnown");
    return;
  }
  const changes = state.now[state.face]
    ? model.attributes
        .map((name, i) => [name, current().probabilities[i] - prediction().probabilities[i]])
        .filter(([name, change]) => !(name in knownHere()) && Math.abs(change) >= 0.01)
        .sort((a, b) => Math.abs(b[1]) - Math.abs(a[1]))
        .slice(0, 3)
    : [];
  moved.textContent = changes.length
    ? `${say("detail.moved")} ${changes.map(([name, change]) => `${nameOf(name)} ${pointsOf(change)}`).join(", ")}`
    : say("detail.unmoved");
  knownList.append(
    make("span", { text: say("detail.knownList") }),
    ...known.map(([name, value]) =>
      make("button", { type: "button", class: "chip", "aria-label": say("detail.forget", { attribute: nameOf(name) }), onclick: () => setKnown(name, "unknown") },
        `${nameOf(name)}: ${say(value ? "attributes.yes" : "attributes.no")} ×`)),
  );
  if (known.length > 1) {
    knownList.append(make("button", { type: "button", class: "chip", text: say("detail.forgetAll"), onclick: () => readAgain({}) }));
  }
}

// Black, purple, orange, pale yellow, in equal steps: matplotlib's inferno at 0, 1/3, 2/3 and 1.
const HEAT = [[0, 0, 4], [120, 28, 109], [237, 105, 37], [252, 255, 164]];

function heatAt(strength) {
  const position = strength * (HEAT.length - 1);
  const step = Math.min(Math.floor(position), HEAT.length - 2);
  return HEAT[step].map((from, i) => from + (HEAT[step + 1][i] - from) * (position - step));
}

const crop = new Image();
crop.addEventListener("load", () => state.faces.length && drawMap());

function renderMap(model, index) {
  mapTitle.textContent = say(model.tells_maps ? "detail.map" : "detail.noMap");
  scale.hidden = !model.tells_maps;
  canvas.setAttribute("aria-label", model.tells_maps
    ? say("detail.mapAlt", { attribute: nameOf(model.attributes[index]), place: placeOf(mapAt(index)) })
    : say("detail.noMap"));
  const source = state.faces[state.face].crop;
  if (crop.src === source) drawMap();
  else crop.src = source;
}

// One attribute's map as rows of 0..1, or null.
function mapAt(index) {
  const { maps } = current();
  if (!maps) return null;
  const bytes = atob(maps.data);
  const cells = maps.rows * maps.columns;
  return Array.from({ length: maps.rows }, (_, row) =>
    Array.from({ length: maps.columns }, (_, column) =>
      bytes.charCodeAt(index * cells + row * maps.columns + column) / 255));
}

function placeOf(map) {
  let [top, left] = [0, 0];
  map.forEach((line, row) => line.forEach((value, column) => {
    if (value > map[top][left]) [top, left] = [row, column];
  }));
  const third = (index, length, names) => names[Math.min(Math.floor((3 * index) / length), 2)];
  const row = say(`place.${third(top, map.length, ["top", "middle", "bottom"])}`);
  return say(`place.${third(left, map[0].length, ["left", "centre", "right"])}`, { row });
}

function drawMap() {
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(crop, 0, 0, canvas.width, canvas.height);
  const map = mapAt(state.model.attributes.indexOf(state.attribute));
  if (!map) return;
  const cells = new ImageData(map[0].length, map.length);
  map.flat().forEach((value, i) => cells.data.set([...heatAt(value), 210 * value], 4 * i));
  const small = make("canvas", { width: cells.width, height: cells.height });
  small.getContext("2d").putImageData(cells, 0, 0);
  // Values belong to the cells' centres: half a cell is repeated at each edge.
  const step = canvas.width / cells.width;
  context.drawImage(small, 0, 0, cells.width, cells.height, 0, 0, step * cells.width, step * cells.height);
}

function relabel() {
  photo.relabel();
  choice.relabel();
  attributes.setAttribute("aria-label", say("attributes.region"));
  detail.setAttribute("aria-label", say("detail.region"));
  empty.textContent = say("attributes.empty");
  thresholds.textContent = say("attributes.threshold");
  knowLegend.textContent = say("detail.know");
  scale.firstChild.textContent = say("detail.little");
  scale.lastChild.textContent = say("detail.much");
  for (const { value, text } of radios) text.textContent = say(value === "unknown" ? "detail.unknown" : `attributes.${value}`);
  render();
}

document.addEventListener(LANGUAGE_EVENT, relabel);
relabel();
