/** Kubernetes' own schemas, as far as they are known without an API server. */
import type { Manifest } from "./manifest.ts";

interface Finding {
  readonly instancePath: string;
  readonly message?: string;
  readonly keyword: string;
  readonly params: Readonly<Record<string, unknown>>;
}
type Validate = ((value: unknown) => boolean) & { readonly errors?: ReadonlyArray<Finding> | null };

/** Groups whose name in the schemas is not their first word. */
const GROUPS: Readonly<Record<string, string>> = { "": "Core" };

/** `apps/v1` DaemonSet is IoK8sApiAppsV1DaemonSet. */
const schemaName = ({ apiVersion, kind }: Manifest): string => {
  const [version = "", group = ""] = apiVersion.split("/").reverse();
  const capital = (word: string) => word.charAt(0).toUpperCase() + word.slice(1);
  return `IoK8sApi${GROUPS[group] ?? capital(group.split(".")[0]!)}${capital(version)}${kind}`;
};

/**
 * What is wrong with a manifest: values of another type, fields that are missing, and fields that nobody would read. Kubernetes'
 * schemas are open, so that a misspelt field fits them; an API server prunes it, and the setting is lost without a word. A
 * validator looks at each field that its schema has: one that it never looked at is unknown.
 */
export const schemaProblems = async (manifest: Manifest): Promise<ReadonlyArray<string>> => {
  const { validate } = (await import(`kubernetes-models/_schemas/${schemaName(manifest)}`)) as { validate: Validate };
  const looked = new Set<string>();
  validate(watched(manifest, "", looked));
  return [
    ...(validate.errors ?? []).map(
      ({ instancePath, keyword, params, message }) =>
        `${instancePath || "/"} ${message ?? `fails ${keyword} ${JSON.stringify(params)}`}`,
    ),
    ...unknownFields(manifest, "", looked).map((path) => `${path} is no field of ${manifest.kind}`),
  ];
};

/** The value; paths of what is read of it are added to `looked`. */
const watched = (value: unknown, path: string, looked: Set<string>): unknown =>
  typeof value !== "object" || value === null
    ? value
    : new Proxy(value, {
        get: (target, key) => {
          const found = Reflect.get(target, key) as unknown;
          if (typeof key === "symbol" || !Object.hasOwn(target, key)) return found;
          looked.add(`${path}/${key}`);
          return watched(found, `${path}/${key}`, looked);
        },
      });

/** The outermost fields that nobody has looked at. */
const unknownFields = (value: unknown, path: string, looked: ReadonlySet<string>): ReadonlyArray<string> =>
  typeof value !== "object" || value === null
    ? []
    : Object.entries(value).flatMap(([key, below]) =>
        looked.has(`${path}/${key}`) ? unknownFields(below, `${path}/${key}`, looked) : [`${path}/${key}`],
      );
