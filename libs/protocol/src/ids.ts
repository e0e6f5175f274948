import * as Schema from "effect/Schema";

/** Names that may stand in a subject, a file name or a key: nothing in them can escape from there. */
const SAFE_NAME = /^[A-Za-z0-9_-]{1,64}$/;

/** A guest's or node's name. */
export const Name = Schema.String.check(Schema.isPattern(SAFE_NAME));
export const GuestName = Name.pipe(Schema.brand("GuestName"));
export type GuestName = typeof GuestName.Type;
export const NodeName = Name.pipe(Schema.brand("NodeName"));
export type NodeName = typeof NodeName.Type;

const HEX64 = /^[0-9a-f]{16}$/;

/** 64 random bits in hex: short enough to type, and 8 bytes in each packet. */
export const MigrationId = Schema.String.check(Schema.isPattern(HEX64)).pipe(Schema.brand("MigrationId"));
export type MigrationId = typeof MigrationId.Type;

/** One life of a process (O6). Drawn anew at each start; 64 random bits in hex. */
export const Incarnation = Schema.String.check(Schema.isPattern(HEX64)).pipe(Schema.brand("Incarnation"));
export type Incarnation = typeof Incarnation.Type;

/** Grows with every claim of a guest (O1); a 32-bit number on the wire, 0 is never used. */
export const Epoch = Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 0xffff_ffff })).pipe(
  Schema.brand("Epoch"),
);
export type Epoch = typeof Epoch.Type;

export const isSafeName = (text: string): boolean => SAFE_NAME.test(text);
export const isMigrationId = (text: string): text is MigrationId => HEX64.test(text);
