/**
 * JSON at the border: a size limit first, then the parse, then the sender's version, then the schema. The only way control messages are
 * read and written. A message that is an object says in `godwit-protocol` which version its sender speaks; answers that are lists need
 * not, since whoever was asked in another one does not answer.
 */
import * as Effect from "effect/Effect";
import * as Schema from "effect/Schema";
import { GodwitError } from "./error.ts";
import { CONTROL_BYTES_MAX } from "./limits.ts";
import { PROTOCOL, type ProtocolVersion, parseVersion, versionRefusal, versionText } from "./version.ts";

/** Why a message cannot be read. `otherVersion`: because its sender speaks this one. */
export interface Unreadable {
  readonly malformed: string;
  readonly otherVersion?: ProtocolVersion;
}

/** Encodes and decodes messages of one schema. `decode` never throws; a refusal names the place and the value. */
export interface JsonCodec<A> {
  readonly encode: (value: A) => Uint8Array;
  readonly decode: (bytes: Uint8Array) => A | Unreadable;
  /** `decode` as an Effect that fails with `invalid-request`, or with `version-mismatch`. */
  readonly decodeEffect: (bytes: Uint8Array, actor: string) => Effect.Effect<A, GodwitError>;
}

const utf8 = new TextDecoder("utf-8", { fatal: true });
const text = new TextEncoder();
/** Characters of a schema's complaint that are kept: enough for the place, too little to flood a log. */
const REASON_CHARS_MAX = 300;

/** Where a message says which version its sender speaks. */
const VERSION_FIELD = "godwit-protocol";
const SPOKEN = { [VERSION_FIELD]: versionText(PROTOCOL) };

const isObject = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** What stands in the way of reading on; null: nothing. A message without a version is a tool's, and taken for one of ours. */
const versionObstacle = (value: unknown): Unreadable | null => {
  if (!isObject(value) || !Object.hasOwn(value, VERSION_FIELD)) return null;
  const version = parseVersion(value[VERSION_FIELD]);
  if (version === null) return { malformed: `${VERSION_FIELD} is no version` };
  const refusal = versionRefusal("its sender", version);
  return refusal === null ? null : { malformed: refusal, otherVersion: version };
};

/** Messages: what is said now, by one actor to another. */
export const json = <S extends Schema.Codec<unknown, unknown>>(schema: S): JsonCodec<S["Type"]> =>
  codecOf(schema, (value) => (isObject(value) ? { ...value, ...SPOKEN } : value), versionObstacle);

/** What is kept and outlives the build that wrote it: records in buckets, and files. */
export const storedJson = <S extends Schema.Codec<unknown, unknown>>(schema: S): JsonCodec<S["Type"]> =>
  codecOf(
    schema,
    (value) => value,
    () => null,
  );

const codecOf = <S extends Schema.Codec<unknown, unknown>>(
  schema: S,
  finish: (value: unknown) => unknown,
  obstacle: (value: unknown) => Unreadable | null,
): JsonCodec<S["Type"]> => {
  const encode = Schema.encodeUnknownSync(schema as never) as (value: unknown) => unknown;
  const decodeValue = Schema.decodeUnknownSync(schema as never, { reportInput: true } as never) as (
    value: unknown,
  ) => S["Type"];
  const decode = (bytes: Uint8Array): S["Type"] | Unreadable => {
    if (bytes.length > CONTROL_BYTES_MAX) return { malformed: `${bytes.length} bytes, at most ${CONTROL_BYTES_MAX}` };
    try {
      const value: unknown = JSON.parse(utf8.decode(bytes));
      return obstacle(value) ?? decodeValue(value);
    } catch (error) {
      const cause = error instanceof Error && error.cause instanceof Error ? error.cause.message : String(error);
      return { malformed: cause.slice(0, REASON_CHARS_MAX) };
    }
  };
  return {
    encode: (value) => text.encode(JSON.stringify(finish(encode(value)))),
    decode,
    decodeEffect: (bytes, actor) =>
      Effect.suspend(() => {
        const value = decode(bytes);
        if (!isMalformed(value)) return Effect.succeed(value);
        const step = "decode a message";
        const { malformed: reason, otherVersion } = value;
        if (otherVersion === undefined)
          return Effect.fail(new GodwitError({ code: "invalid-request", actor, step, reason }));
        const refusal = versionRefusal("its sender", otherVersion, `this ${actor}`) ?? reason;
        return Effect.fail(new GodwitError({ code: "version-mismatch", actor, step, reason: refusal }));
      }),
  };
};

export const isMalformed = (value: unknown): value is { readonly malformed: string } =>
  typeof value === "object" && value !== null && "malformed" in value && typeof value.malformed === "string";
