/**
 * Which cases the property tests try (fast-check). The same ones in every run, so that a run that fails tells of the change under test;
 * GODWIT_PROPERTY_SEED=random (or a number) tries others, for the hunt.
 */
import fc from "fast-check";

const FIXED_SEED = 20261129;

const wanted = process.env["GODWIT_PROPERTY_SEED"];
const seedOf = (text: string): number => {
  const seed = Number(text);
  if (!Number.isSafeInteger(seed)) throw new Error(`GODWIT_PROPERTY_SEED is "random" or a whole number, not "${text}"`);
  return seed;
};
if (wanted !== "random")
  fc.configureGlobal({ ...fc.readConfigureGlobal(), seed: wanted ? seedOf(wanted) : FIXED_SEED });
