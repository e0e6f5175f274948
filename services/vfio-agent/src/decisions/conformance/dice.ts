/** Choices that depend on the seed alone. */
import { seededRandom } from "@godwit/fabric/simulation";

export interface Dice {
  /** Evenly, both ends included. */
  readonly between: (min: number, max: number) => number;
  readonly chance: (rate: number) => boolean;
  readonly pick: <T>(list: ReadonlyArray<T>) => T;
}

export const makeDice = (seed: number): Dice => {
  const random = seededRandom(seed);
  const between = (min: number, max: number): number => min + Math.floor(random() * (max - min + 1));
  return { between, chance: (rate) => random() < rate, pick: (list) => list[between(0, list.length - 1)]! };
};
