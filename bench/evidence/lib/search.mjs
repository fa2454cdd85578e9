/**
 * Search spaces and the points of equal tuning budgets. Points are quasi-random, so that a few of them cover a space evenly, and the same
 * in every run.
 */

/** `x`, uniform in its logarithm between `low` and `high`. */
export const logUniform = (low, high) => (u) => low * (high / low) ** u;

/** `1 - x` for x uniform in its logarithm: for decay rates near 1. */
export const oneMinus = (low, high) => (u) => 1 - low * (high / low) ** u;

/** A coordinate as a setting. Six digits: enough for a setting, and a result line that can be read. */
const settingAt = (value, u) => Number(value(u).toPrecision(6));

/**
 * The first `count` points of a space `{ name: u => value }`, by the additive recurrence of M. Roberts, "The Unreasonable Effectiveness of
 * Quasirandom Sequences" (2018): coordinate i of point n is `frac(1/2 + n · φ^-i)`, where φ is the root above 1 of `φ^(d+1) = φ + 1`.
 */
export function points(space, count) {
  const names = Object.keys(space);
  let phi = 2;
  for (let i = 0; i < 60; i++) phi = (1 + phi) ** (1 / (names.length + 1));
  return Array.from({ length: count }, (_, n) =>
    Object.fromEntries(names.map((name, i) => [name, settingAt(space[name], (0.5 + (n + 1) * phi ** -(i + 1)) % 1)])),
  );
}

/** The learning rates of a setting that lie in the outermost tenths of a space: there may be better ones outside. */
export function bordersOf(space, setting) {
  const rates = Object.keys(space).filter((name) => /learningRate$/i.test(name));
  return rates.flatMap((name) => {
    const [low, high] = [settingAt(space[name], 0.1), settingAt(space[name], 0.9)];
    if (setting[name] < low) return [`${name} ${setting[name]} is low`];
    return setting[name] > high ? [`${name} ${setting[name]} is high`] : [];
  });
}
