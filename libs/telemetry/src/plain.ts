/** Nesting deeper than this is cut off: a log line shows what a value is, it does not store it. */
const DEPTH_MAX = 4;
/** Elements of a list that are shown. */
const ELEMENTS_MAX = 32;
/** Characters of a string that are shown; a line must not hold a whole guest's log. */
const CHARACTERS_MAX = 8_192;

/**
 * A value as JSON can hold it: no page bytes, no cycles, no class internals (Effect's begin with `~`), nothing unbounded.
 * Errors become their type, message and data; `undefined` stays, so that JSON leaves it out.
 */
export const plain = (value: unknown, depth = 0): unknown => {
  if (typeof value === "string") return value.length > CHARACTERS_MAX ? `${value.slice(0, CHARACTERS_MAX)}...` : value;
  if (typeof value === "number") return Number.isFinite(value) ? value : String(value);
  if (typeof value === "bigint" || typeof value === "symbol") return String(value);
  if (typeof value === "function") return `[function ${value.name}]`;
  if (typeof value !== "object" || value === null) return value;
  if (ArrayBuffer.isView(value) || value instanceof ArrayBuffer) return `[${value.byteLength} bytes]`;
  if (value instanceof Date) return Number.isNaN(value.getTime()) ? "[invalid date]" : value.toISOString();
  if (depth >= DEPTH_MAX) return Array.isArray(value) ? "[list]" : "[object]";
  if (value instanceof Error) return describeError(value, depth);
  if (value instanceof Map) return plain(Object.fromEntries([...value].map(([k, v]) => [String(k), v])), depth);
  if (Array.isArray(value) || value instanceof Set) return list([...value], depth);
  return fields(value, depth);
};

/**
 * An error for the log. One that carries a `_tag` was expected: its data says all, so its stack is left out. Of any other the
 * stack is what leads to the mistake.
 */
export const describeError = (error: Error, depth = 0): Record<string, unknown> => {
  const tag: unknown = Reflect.get(error, "_tag");
  const expected = typeof tag === "string";
  return {
    type: expected ? tag : error.name,
    message: plain(error.message),
    ...fields(Object.fromEntries(Object.entries(error).filter(([key]) => !STANDARD.includes(key))), depth),
    ...(expected ? {} : { stack: plain(error.stack) }),
    ...(error.cause === undefined ? {} : { cause: plain(error.cause, depth + 1) }),
  };
};

/** What `describeError` places itself; some classes have them as enumerable properties, some do not. */
const STANDARD = ["_tag", "name", "message", "stack", "cause"];

const fields = (value: object, depth: number): Record<string, unknown> =>
  Object.fromEntries(
    Object.entries(value)
      .filter(([key]) => !key.startsWith("~"))
      .map(([key, inner]) => [key, plain(inner, depth + 1)]),
  );

const list = (values: ReadonlyArray<unknown>, depth: number): ReadonlyArray<unknown> => {
  const shown = values.slice(0, ELEMENTS_MAX).map((value) => plain(value, depth + 1));
  return values.length > ELEMENTS_MAX ? [...shown, `... ${values.length - ELEMENTS_MAX} more`] : shown;
};
