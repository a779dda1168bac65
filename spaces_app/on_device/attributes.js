/** The attributes of one face, by group, and those present at a glance. */

import { makeDecider } from "./decisions.js";

// Opinions and perceived gender are left out of the list of present attributes.
const IMPRESSIONS = "person";

export class AttributeView {
  /**
   * @param {object} page the contents of `page.json`.
   * @param {HTMLElement} groups container of the groups.
   * @param {HTMLUListElement} chips container of the present attributes.
   */
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

  /**
   * @param {string} group
   * @param {string[]} names
   * @returns {HTMLElement}
   */
  makeGroup(group, names) {
    const section = document.createElement("section");
    section.className = "group panel";
    const title = document.createElement("h3");
    title.dataset.group = group;
    const list = document.createElement("ul");
    for (const name of names) {
      const row = document.createElement("li");
      row.className = "row";
      row.dataset.attribute = name;
      row.title = name;
      const label = document.createElement("span");
      const bar = document.createElement("span");
      bar.className = "bar";
      bar.setAttribute("role", "meter");
      bar.setAttribute("aria-valuemin", "0");
      bar.setAttribute("aria-valuemax", "100");
      bar.setAttribute("aria-valuenow", "0");
      const fill = document.createElement("span");
      fill.className = "fill";
      const threshold = document.createElement("span");
      threshold.className = "threshold";
      threshold.style.left = `${100 * this.page.thresholds[this.page.attributes.indexOf(name)]}%`;
      bar.append(fill, threshold);
      const value = document.createElement("span");
      value.className = "value";
      value.textContent = "–";
      // A screen reader reads the meter instead.
      label.ariaHidden = value.ariaHidden = "true";
      row.append(label, bar, value);
      list.append(row);
      this.rows.set(name, { row, label, bar, fill, value });
    }
    section.append(title, list);
    return section;
  }

  /**
   * Switch the language.
   * @param {import("./strings.js").Words} words
   */
  translate(words) {
    this.words = words;
    for (const [name, { label, bar }] of this.rows) {
      label.textContent = words.nameOf(name);
      bar.setAttribute("aria-label", words.nameOf(name));
    }
    for (const title of document.querySelectorAll("[data-group]")) {
      title.textContent = words.titleOf(title.dataset.group);
    }
  }

  /**
   * Show one face's attributes.
   * @param {number[] | null} probabilities 0 to 1 in the order of `page.attributes`; null clears.
   * @param {boolean} ranked whether present attributes are sorted by descending probability.
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
      bar.setAttribute("aria-valuenow", Math.round(100 * (probability ?? 0)));
      bar.setAttribute("aria-valuetext", this.describe(probability, yes));
      if (yes && !this.impressions.has(name)) present.push([name, probability]);
    }
    if (ranked) present.sort((one, other) => other[1] - one[1]);
    this.chips.replaceChildren(...present.map((entry) => this.makeChip(...entry)));
    this.chips.dataset.nothing = probabilities && !present.length ? this.words.say("nothing") : "";
  }

  /** @returns {string} what a screen reader says of one probability. */
  describe(probability, yes) {
    if (probability === undefined) return "–";
    return `${percent(probability)}, ${this.words.say(yes ? "yes" : "no")}`;
  }

  /** @returns {HTMLLIElement} */
  makeChip(name, probability) {
    const chip = document.createElement("li");
    const value = document.createElement("span");
    value.textContent = percent(probability);
    chip.append(this.words.nameOf(name), value);
    return chip;
  }
}

/** @returns {string} */
function percent(probability) {
  return `${Math.round(100 * probability)}%`;
}
