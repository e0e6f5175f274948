/** An error's code, what was wrong, and what to do about it, as all errors are shown. */
export const errorText = (code: string, reason: string, remedy: string): string =>
  `godwit: ${code}: ${reason}\n  ${remedy}`;
