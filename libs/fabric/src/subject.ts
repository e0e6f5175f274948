/** NATS subjects: tokens joined by dots; in a pattern `*` stands for one token and a final `>` for one or more. */

/** Longest token an actor's names may have, characters; anything longer is not one of ours. */
const TOKEN_LENGTH = 64;

/** A name that can be one token of a subject, of a key and of a path. */
export function isToken(text: string): boolean {
  return text.length <= TOKEN_LENGTH && /^[A-Za-z0-9_-]+$/.test(text);
}

export function isPattern(subject: string): boolean {
  return subject.endsWith(">") || subject.includes("*");
}

export function matchesSubject(pattern: string, subject: string): boolean {
  const wanted = pattern.split(".");
  const given = subject.split(".");
  for (let i = 0; i < wanted.length; i++) {
    if (wanted[i] === ">") return given.length > i;
    if (i >= given.length || (wanted[i] !== "*" && wanted[i] !== given[i])) return false;
  }
  return wanted.length === given.length;
}
