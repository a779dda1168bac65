/** Decide which attributes are present, as `label2label.models.exclusive_answers` does in Python. */

/**
 * Return a function from probabilities to decisions, of which no two exclude each other.
 *
 * As `decide_answers` in Python: an attribute is present if its probability reaches its threshold.
 * If such attributes exclude each other, the consistent subset with the largest sum of log-odds
 * above the thresholds is kept.
 */
export function makeDecider({ attributes, thresholds, exclusive_answers }) {
  const groups = exclusive_answers
    .map((group) => group.map((name) => attributes.indexOf(name)).filter((index) => index >= 0))
    .filter((group) => group.length > 1);
  const parts = joinGroups(groups).map((members) => listSets(members, groups));
  return (probabilities) => {
    const present = probabilities.map((probability, i) => probability >= thresholds[i]);
    const scores = probabilities.map((probability, i) =>
      present[i] ? Math.max(logOdds(probability) - logOdds(thresholds[i]), 0) : -1,
    );
    for (const { members, sets } of parts) {
      const sums = sets.map((set) => set.reduce((sum, i) => sum + scores[i], 0));
      const best = sets[sums.indexOf(Math.max(...sums))];
      for (const i of members) present[i] = best.includes(i);
    }
    return present;
  };
}

function logOdds(probability) {
  const inside = Math.min(Math.max(probability, 1e-12), 1 - 1e-12);
  return Math.log(inside) - Math.log1p(-inside);
}

/** The connected parts of the rules: attributes that exclude each other, perhaps by others. */
function joinGroups(groups) {
  let parts = [];
  for (const group of groups) {
    const touched = parts.filter((part) => part.some((index) => group.includes(index)));
    const joined = new Set([group, ...touched].flat());
    parts = [...parts.filter((part) => !touched.includes(part)), [...joined]];
  }
  return parts.map((part) => part.sort((one, other) => one - other));
}

/** Every set of a part's attributes that holds no contradiction, larger ones first. */
function listSets(members, groups) {
  let sets = [[]];
  for (const member of members) {
    const excluded = groups.filter((group) => group.includes(member)).flat();
    const free = sets.filter((set) => !set.some((index) => excluded.includes(index)));
    sets = [...sets, ...free.map((set) => [...set, member])];
  }
  return { members, sets: sets.sort((one, other) => other.length - one.length) };
}
