/**
 * The protocol's version: what every message between actors says of whoever sends it, and who may work with whom.
 *
 * Of two builds with the same `major` each may be the older one: a higher `minor` only adds fields that the other may leave out and does
 * not know, and ignores. Anything else, above all the layout of binary messages, is a new `major`, and builds of two majors refuse each
 * other in words. JSON messages carry both numbers (`json.ts`), binary ones the major in their header, presence both, and NATS's own
 * service information, too. What outlives a build (ownership records, stored migrations, files) has no version: a new build reads the old.
 */

export interface ProtocolVersion {
  /** 1 to 255: one byte of each binary header. Builds that had no version wrote 1 to 3 there. */
  readonly major: number;
  readonly minor: number;
}

/** What this build speaks. */
export const PROTOCOL: ProtocolVersion = { major: 4, minor: 0 };

export const versionText = ({ major, minor }: ProtocolVersion): string => `${major}.${minor}`;

const VERSION = /^([1-9]\d{0,2})\.(\d{1,5})$/;

/** null: no version. */
export const parseVersion = (text: unknown): ProtocolVersion | null => {
  const found = typeof text === "string" ? VERSION.exec(text) : null;
  return found === null ? null : { major: Number(found[1]), minor: Number(found[2]) };
};

/** Why `who` cannot be worked with, and what to do; null when it can. `me`: whoever says it. */
export const versionRefusal = (
  who: string,
  theirs: Pick<ProtocolVersion, "major"> & Partial<ProtocolVersion>,
  me = "this actor",
  mine: ProtocolVersion = PROTOCOL,
): string | null => {
  if (theirs.major === mine.major) return null;
  const spoken = theirs.minor === undefined ? `${theirs.major}.x` : `${theirs.major}.${theirs.minor}`;
  const older = theirs.major < mine.major ? who : me;
  return `${who} speaks protocol version ${spoken}, ${me} ${versionText(mine)}: upgrade ${older}`;
};
