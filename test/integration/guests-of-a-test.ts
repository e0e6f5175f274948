/**
 * Guests that a test has started end with it: one that writes on, beside those of all tests before, makes the next ones slow. Those that a
 * hook has started stay until their world ends. Also loaded by what runs without vitest.
 */
const enders: Array<() => void> = [];

/** `end` is called once the test is over that runs now. */
export const endsWithItsTest = (end: () => void): void => void enders.push(end);

/** Before a test: what hooks have started is not its own. */
export const testBegins = (): void => {
  enders.length = 0;
};

export const testEnds = (): void => {
  for (const end of enders.splice(0)) end();
};
