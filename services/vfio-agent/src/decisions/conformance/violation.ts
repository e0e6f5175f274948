/** What must never happen, happened. */
export class Violation extends Error {}

export const must = (holds: boolean, otherwise: string): void => {
  if (!holds) throw new Violation(otherwise);
};
