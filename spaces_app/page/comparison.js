// The second tab: one face, read by two models.

// `models` are those whose answer is shown: others may be chosen already, and not have answered yet.
const state = { data: null, models: [], faces: [], face: 0 };
let taken = null; // the first tab's photo, when it came along

const photo = createPhotoView({
  onPhoto: (_, data) => {
    state.data = data;
    analyse();
  },
  onFace: (index) => {
    state.face = index;
    render();
  },
});
// At first, another model that answers as much as the first one.
const numbers = props.models.map((model) => model.attributes.length);
const choices = [["compare.first", 0], ["compare.second", Math.max(numbers.indexOf(numbers[0], 1), 1)]].map(
  ([label, index]) => createModelChoice(label, index, () => state.data && analyse()));
const intro = make("p", { class: "intro" });
const sortText = make("span");
const sort = make("input", { type: "checkbox", onchange: () => render() });
const sortLabel = make("label", { class: "sort", hidden: true }, sort, sortText);
const summary = make("p", { class: "sentence", role: "status" });
const head = make("tr");
const body = make("tbody");
const table = make("table", { hidden: true }, make("thead", {}, head), body);
element.firstElementChild.append(
  make("div", { class: "columns" },
    make("div", { class: "left" }, photo.root, photo.sources),
    make("section", { class: "attributes" }, intro, make("div", { class: "models" }, ...choices.map((c) => c.root)), summary, sortLabel, table)),
);

function analyse() {
  const models = choices.map((choice) => choice.model());
  photo.showLooking();
  const start = performance.now();
  ask("analyse", { photo: state.data, models: models.map((model) => model.key) }, (answer) => {
    state.models = models;
    state.faces = answer.faces ?? [];
    state.face = 0;
    photo.showResult(answer, performance.now() - start);
    render();
  });
}

function render() {
  const some = state.faces.length > 0;
  table.hidden = sortLabel.hidden = !some;
  if (!some) {
    summary.textContent = say("compare.empty");
    return;
  }
  const { models } = state;
  const read = (model, attribute) => {
    const index = model.attributes.indexOf(attribute);
    const { probabilities, present } = state.faces[state.face].predictions[model.key];
    return { probability: probabilities[index], yes: present[index], threshold: model.thresholds[index] };
  };
  const shared = models[0].attributes.filter((name) => models[1].attributes.includes(name));
  const lines = groupsOf(shared).flatMap(([, names]) => names).map((attribute) => {
    const [a, b] = models.map((model) => read(model, attribute));
    return { attribute, a, b, difference: b.probability - a.probability };
  });
  if (sort.checked) lines.sort((x, y) => Math.abs(y.difference) - Math.abs(x.difference));
  const same = lines.filter(({ a, b }) => a.yes === b.yes).length;
  const mean = lines.reduce((sum, line) => sum + Math.abs(line.difference), 0) / lines.length;
  summary.textContent = say("compare.summary", { same, count: lines.length, points: (100 * mean).toFixed(1) });
  head.replaceChildren(
    ...[say("compare.attribute"), ...models.map(titleOf), say("compare.difference")].map((text) => make("th", { scope: "col", text })),
  );
  body.replaceChildren(...lines.map(({ attribute, a, b, difference }) => {
    const differ = a.yes !== b.yes;
    return make("tr", { class: differ ? "differ" : "", "data-attribute": attribute },
      make("th", { scope: "row" }, nameOf(attribute), ...(differ ? [" ", make("span", { class: "badge", text: say("compare.differ") })] : [])),
      buildCell(a, "first"), buildCell(b, "second"),
      make("td", { class: "difference", text: pointsOf(difference) }));
  }));
}

function buildCell({ probability, yes, threshold }, side) {
  const fill = make("span", { class: "fill" });
  const mark = make("span", { class: "mark" });
  fill.style.width = `${100 * probability}%`;
  mark.style.left = `${100 * threshold}%`;
  return make("td", { class: `${side} ${yes ? "yes" : ""}` },
    make("span", { class: "track", "aria-hidden": "true" }, fill, mark),
    make("span", { class: "percent", text: `${percentOf(probability)} ` }),
    make("span", { class: "answer", text: say(yes ? "attributes.yes" : "attributes.no") }));
}

function relabel() {
  photo.relabel();
  choices.forEach((choice) => choice.relabel());
  intro.textContent = say("compare.intro");
  sortText.textContent = say("compare.sort");
  render();
}

// When this tab opens, it takes the first tab's photo, once.
function takeAlong() {
  const offered = document.label2labelPhoto;
  if (!offered || offered === taken || !element.offsetParent) return;
  taken = offered;
  photo.choose(offered);
}

new IntersectionObserver(takeAlong).observe(element);
document.addEventListener(LANGUAGE_EVENT, relabel);
relabel();
