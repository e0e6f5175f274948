/** One `import`, `export ... from` or `import()`. */
export interface Import {
  readonly specifier: string;
  /** Gone at run time. */
  readonly typeOnly: boolean;
  /** `export ... from` */
  readonly reExport: boolean;
}

// A scanner, no parser: a `//` inside a regular expression hides the rest of its line, which can only make a check blind there.
const COMMENT_OR_STRING = /\/\/[^\n]*|\/\*[\s\S]*?\*\/|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|`(?:\\.|[^`\\])*`/g;

/** The text without comments, and without strings that hold strings: code in them is not this file's. Line numbers stay. */
export const withoutComments = (text: string): string =>
  text.replace(COMMENT_OR_STRING, (found) => {
    if (found.startsWith("/")) return found.replace(/[^\n]/g, " ");
    return /["']/.test(found.slice(1, -1)) && !found.startsWith("`") ? '""' : found;
  });

/** The text without comments and without what stands in quotes. Templates stay: they may hold code. */
export const codeOnly = (text: string): string =>
  text.replace(COMMENT_OR_STRING, (found) => {
    if (found.startsWith("/")) return found.replace(/[^\n]/g, " ");
    return found.startsWith("`") ? found : '""';
  });

const CLAUSE = String.raw`(?<type>type\s+)?(?:[\w$]+\s*,?\s*)?(?:\*\s*(?:as\s+[\w$]+)?|\{[^}]*\})?\s*`;
const FROM = new RegExp(
  String.raw`^[ \t]*(?<verb>import|export)\s*${CLAUSE}from\s*["'](?<specifier>[^"'\n]+)["']`,
  "gm",
);
const BARE = /^[ \t]*import\s*["'](?<specifier>[^"'\n]+)["']/gm;
const DYNAMIC = /\bimport\(\s*["'](?<specifier>[^"'\n]+)["']/g;

/** What a source file imports, in no particular order. */
export const importsOf = (text: string): ReadonlyArray<Import> => {
  const code = withoutComments(text);
  const found = (pattern: RegExp): ReadonlyArray<Import> =>
    [...code.matchAll(pattern)].map(({ groups }) => ({
      specifier: groups?.["specifier"] ?? "",
      typeOnly: groups?.["type"] !== undefined,
      reExport: groups?.["verb"] === "export",
    }));
  return [...found(FROM), ...found(BARE), ...found(DYNAMIC)];
};

/** `@nats-io/kv/x` belongs to `@nats-io/kv`, `effect/Effect` to `effect`; `undefined` for a file or a module of Node.js. */
export const packageOf = (specifier: string): string | undefined => {
  if (specifier.startsWith(".") || specifier.startsWith("/") || specifier.startsWith("node:")) return undefined;
  return specifier
    .split("/")
    .slice(0, specifier.startsWith("@") ? 2 : 1)
    .join("/");
};
