/** JSON at the border: a size limit first, then the parse, then the schema. The only way control messages are read and written. */
import * as Effect from "effect/Effect";
import * as Schema from "effect/Schema";
import { GodwitError } from "./error.ts";
import { CONTROL_BYTES_MAX } from "./limits.ts";

/** Encodes and decodes messages of one schema. `decode` never throws; a refusal names the place and the value. */
export interface JsonCodec<A> {
  readonly encode: (value: A) => Uint8Array;
  readonly decode: (bytes: Uint8Array) => A | { readonly malformed: string };
  /** `decode` as an Effect that fails with `invalid-request`. */
  readonly decodeEffect: (bytes: Uint8Array, actor: string) => Effect.Effect<A, GodwitError>;
}

const utf8 = new TextDecoder("utf-8", { fatal: true });
const text = new TextEncoder();
/** Characters of a schema's complaint that are kept: enough for the place, too little to flood a log. */
const REASON_CHARS_MAX = 300;

export const json = <S extends Schema.Codec<unknown, unknown>>(schema: S): JsonCodec<S["Type"]> => {
  const encode = Schema.encodeUnknownSync(schema as never) as (value: unknown) => unknown;
  const decodeValue = Schema.decodeUnknownSync(schema as never, { reportInput: true } as never) as (
    value: unknown,
  ) => S["Type"];
  const decode = (bytes: Uint8Array): S["Type"] | { readonly malformed: string } => {
    if (bytes.length > CONTROL_BYTES_MAX) return { malformed: `${bytes.length} bytes, at most ${CONTROL_BYTES_MAX}` };
    try {
      return decodeValue(JSON.parse(utf8.decode(bytes)));
    } catch (error) {
      const cause = error instanceof Error && error.cause instanceof Error ? error.cause.message : String(error);
      return { malformed: cause.slice(0, REASON_CHARS_MAX) };
    }
  };
  return {
    encode: (value) => text.encode(JSON.stringify(encode(value))),
    decode,
    decodeEffect: (bytes, actor) =>
      Effect.suspend(() => {
        const value = decode(bytes);
        return isMalformed(value)
          ? Effect.fail(
              new GodwitError({ code: "invalid-request", actor, step: "decode a message", reason: value.malformed }),
            )
          : Effect.succeed(value);
      }),
  };
};

export const isMalformed = (value: unknown): value is { readonly malformed: string } =>
  typeof value === "object" && value !== null && "malformed" in value && typeof value.malformed === "string";
