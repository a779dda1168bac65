// What the page's components share: elements, texts in the chosen language, numbers, and requests.
// Gradio runs this as the body of a function of `element`, `trigger`, `props` and `watch`.

const LANGUAGE_EVENT = "label2label-language"; // on document, when the language has changed
const ANSWER_SECONDS = 30;
const SLOW_LINE = 125_000; // bytes a second, 1 Mbit/s: a large photo takes its time to get there

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "text") node.textContent = value;
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

const language = () => document.documentElement.lang || "en";

function say(key, values = {}) {
  const texts = props.texts[language()] ?? props.texts.en;
  const text = texts[key] ?? key;
  return text.replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

const nameOf = (attribute) => {
  const key = `attribute.${attribute}`;
  const text = say(key);
  return text === key ? attribute.replaceAll("_", " ") : text;
};
const percentOf = (probability) => `${Math.round(probability * 100)}\u00a0%`;
const pointsOf = (difference) => {
  const points = Math.round(difference * 100);
  return `${points > 0 ? "+" : points < 0 ? "−" : ""}${Math.abs(points)}`;
};

function titleOf(model) {
  const title = (m) =>
    (m.kind ? say(`model.kind.${m.kind}`) : m.key) + (m.int8 ? `, ${say("model.int8")}` : "");
  const unique = props.models.filter((m) => title(m) === title(model)).length === 1;
  return unique ? title(model) : `${title(model)} (${model.key})`;
}

function factsOf(model) {
  const facts = [];
  if (model.parameters) {
    facts.push(say("model.parameters", { millions: (model.parameters / 1e6).toFixed(2) }));
  }
  facts.push(say("model.size", { megabytes: (model.file_bytes / 1e6).toFixed(1) }));
  facts.push(say("model.speed", { milliseconds: Math.round(model.milliseconds) }));
  return facts.join(" · ");
}

// A labelled choice of model, with its size and speed.
function createModelChoice(label, chosen, onChange) {
  const id = `model-${Math.random().toString(36).slice(2)}`;
  let index = Math.min(chosen, props.models.length - 1);
  const model = () => props.models[index];
  const caption = make("label", { for: id });
  const select = make("select", { id, onchange: () => { index = select.selectedIndex; relabel(); onChange(); } });
  const facts = make("p", { class: "facts" });
  const root = make("div", { class: "model" }, caption, select, facts);
  function relabel() {
    caption.textContent = say(label);
    select.replaceChildren(...props.models.map((m) => make("option", { value: m.key, text: titleOf(m) })));
    select.selectedIndex = index;
    facts.textContent = factsOf(model());
  }
  relabel();
  return { root, model, relabel };
}

// The groups, each with the model's attributes in it, in the vocabulary's order.
function groupsOf(attributes) {
  const groups = Object.entries(props.groups)
    .map(([group, names]) => [group, names.filter((name) => attributes.includes(name))])
    .filter(([, names]) => names.length);
  const grouped = groups.flatMap(([, names]) => names);
  const others = attributes.filter((name) => !grouped.includes(name));
  return others.length ? [...groups, ["image", others]] : groups;
}

// Only the latest request counts: an answer to an earlier one is dropped.
let newest = 0;
let answered = null;

function ask(event, data, onAnswer) {
  const id = ++newest;
  answered = onAnswer;
  trigger(event, { id, ...data });
  const seconds = ANSWER_SECONDS + (data.photo?.length ?? 0) / SLOW_LINE;
  setTimeout(() => settle({ id, error: { code: "no_answer", values: {} } }), seconds * 1000);
}

function settle(answer) {
  if (!answer || answer.id !== newest || !answered) return;
  const onAnswer = answered;
  answered = null;
  onAnswer(answer);
}

watch("value", () => settle(props.value));
