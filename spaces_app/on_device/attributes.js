/** The attributes of one face, by group, and those present at a glance. */

import { makeDecider } from "./decisions.js";
import { make } from "./elements.js";

// Opinions and perceived gender are left out of the list of present attributes.
const IMPRESSIONS = "person";

export class AttributeView {
  /** Fill `groups` with a meter per attribute of `page.json`; `chips` will list the present ones. */
  constructor(page, groups, chips) {
    this.page = page;
    this.decide = makeDecider(page);
    this.chips = chips;
    this.order = Object.values(page.groups).flat();
    this.impressions = new Set(page.groups[IMPRESSIONS]);
    this.rows = new Map();
    groups.replaceChildren(
      ...Object.entries(page.groups).map(([group, names]) => this.makeGroup(group, names)),
    );
  }

  makeGroup(group, names) {
    const title = make("h3");
    title.dataset.group = group;
    const rows = names.map((name) => this.makeRow(name));
    return make("section", { className: "group panel" }, title, make("ul", {}, ...rows));
  }

  makeRow(name) {
    // A screen reader reads the meter instead of the label and the value.
    const label = make("span", { ariaHidden: "true" });
    const fill = make("span", { className: "fill" });
    const threshold = make("span", { className: "threshold" });
    threshold.style.left = `${100 * this.page.thresholds[this.page.attributes.indexOf(name)]}%`;
    const meter = { role: "meter", ariaValueMin: "0", ariaValueMax: "100", ariaValueNow: "0" };
    const bar = make("span", { className: "bar", ...meter }, fill, threshold);
    const value = make("span", { className: "value", ariaHidden: "true", textContent: "–" });
    const row = make("li", { className: "row", title: name }, label, bar, value);
    row.dataset.attribute = name;
    this.rows.set(name, { row, label, bar, fill, value });
    return row;
  }

  /** Switch the language. */
  translate(words) {
    this.words = words;
    for (const [name, { label, bar }] of this.rows) {
      bar.ariaLabel = label.textContent = this.nameOf(name);
    }
    for (const title of document.querySelectorAll("[data-group]")) {
      title.textContent = words.titleOf(title.dataset.group);
    }
  }

  /**
   * Show one face's probabilities, in the order of `page.attributes`; null clears.
   * With `ranked`, the present ones are sorted by descending probability.
   */
  show(probabilities, ranked) {
    const decisions = probabilities && this.decide(probabilities);
    const present = [];
    for (const name of this.order) {
      const { row, bar, fill, value } = this.rows.get(name);
      const index = this.page.attributes.indexOf(name);
      const probability = probabilities?.[index];
      const yes = decisions !== null && decisions[index];
      row.classList.toggle("yes", yes);
      if (probability === undefined) delete row.dataset.probability;
      else row.dataset.probability = probability;
      fill.style.setProperty("--probability", probability ?? 0);
      value.textContent = probability === undefined ? "–" : percent(probability);
      bar.ariaValueNow = Math.round(100 * (probability ?? 0));
      bar.ariaValueText = this.describe(probability, yes);
      if (yes && !this.impressions.has(name)) present.push([name, probability]);
    }
    if (ranked) present.sort((one, other) => other[1] - one[1]);
    this.chips.replaceChildren(...present.map((entry) => this.makeChip(...entry)));
    this.chips.dataset.nothing = probabilities && !present.length ? this.words.say("nothing") : "";
  }

  nameOf(attribute) {
    return this.page.names[this.words.language][attribute];
  }

  /** Return what a screen reader says of one probability. */
  describe(probability, yes) {
    if (probability === undefined) return "–";
    return `${percent(probability)}, ${this.words.say(yes ? "yes" : "no")}`;
  }

  makeChip(name, probability) {
    const value = make("span", { textContent: percent(probability) });
    return make("li", {}, this.nameOf(name), value);
  }
}

function percent(probability) {
  return `${Math.round(100 * probability)}%`;
}
