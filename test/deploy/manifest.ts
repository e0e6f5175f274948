/** Kubernetes manifests as these tests read them: every document of a file, or of what kustomize makes of a folder. */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import type { IContainer, IPodSpec } from "kubernetes-models/v1";
import { parseAllDocuments } from "yaml";

export const ROOT = fileURLToPath(new URL("../..", import.meta.url));
export const KUBERNETES = join(ROOT, "deploy/kubernetes");

export interface Manifest {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: { readonly name: string; readonly namespace?: string };
  readonly spec?: unknown;
  readonly data?: Readonly<Record<string, string>>;
}

/** How long kubectl may take, ms: it reads some twenty files. */
const KUSTOMIZE_MS = 60_000;

/** `kubectl kustomize`, where there is a kubectl whose kustomize knows components (1.21 and later). */
export const kubectlIsInstalled = (): boolean => {
  try {
    const text = execFileSync("kubectl", ["version", "--client", "--output=json"], { timeout: KUSTOMIZE_MS });
    const { clientVersion } = JSON.parse(text.toString()) as { clientVersion: { minor: string } };
    return Number.parseInt(clientVersion.minor, 10) >= 21;
  } catch {
    return false;
  }
};

/** What a cluster would be given. Throws kustomize's own words when it refuses. */
export const buildOf = (folder: string): ReadonlyArray<Manifest> => {
  const built = builds.get(folder) ?? kustomize(join(KUBERNETES, folder));
  builds.set(folder, built);
  return built;
};

/** Each takes kubectl a second. */
const builds = new Map<string, ReadonlyArray<Manifest>>();

/** The same for an overlay with components, as an operator's own kustomization names them. */
export const buildWith = (overlay: string, components: ReadonlyArray<string>): ReadonlyArray<Manifest> => {
  const folder = realpathSync(mkdtempSync(join(tmpdir(), "godwit-kustomize-")));
  const pathTo = (part: string) => relative(folder, realpathSync(join(KUBERNETES, part)));
  try {
    const own = { resources: [pathTo(overlay)], components: components.map((name) => pathTo(`components/${name}`)) };
    writeFileSync(join(folder, "kustomization.yaml"), JSON.stringify(own));
    return kustomize(folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
};

const kustomize = (folder: string): ReadonlyArray<Manifest> =>
  manifestsIn(
    execFileSync("kubectl", ["kustomize", folder], {
      encoding: "utf8",
      timeout: KUSTOMIZE_MS,
      maxBuffer: 16 * 1024 ** 2,
    }),
  );

/** Documents of a YAML text. Throws where it is no YAML, or a key stands twice. */
export const manifestsIn = (text: string): ReadonlyArray<Manifest> =>
  parseAllDocuments(text).map((document) => {
    if (document.errors.length > 0) throw document.errors[0]!;
    return document.toJS() as Manifest;
  });

/** Every folder that kustomize can build, components apart, relative to deploy/kubernetes; the parts of the base as well. */
export const kustomizations = (): ReadonlyArray<string> =>
  readdirSync(KUBERNETES, { recursive: true, encoding: "utf8" })
    .filter((path) => path.endsWith("kustomization.yaml"))
    .filter((path) => !path.startsWith("components/"))
    .map((path) => relative(KUBERNETES, join(KUBERNETES, path, "..")))
    .sort();

/** Resources that kustomizations list by file: whole documents, unlike patches. */
export const resourceFiles = (): ReadonlyArray<string> =>
  kustomizations().flatMap((folder) => {
    const text = readFileSync(join(KUBERNETES, folder, "kustomization.yaml"), "utf8");
    const { resources = [] } = manifestsIn(text)[0] as unknown as { resources?: ReadonlyArray<string> };
    return resources.filter((path) => path.endsWith(".yaml")).map((path) => join(folder, path));
  });

/** The pod that a manifest runs; null for those that run none. */
export const podOf = ({ spec }: Manifest): IPodSpec | null =>
  (spec as { template?: { spec?: IPodSpec } } | undefined)?.template?.spec ?? null;

export const containersOf = (manifest: Manifest): ReadonlyArray<IContainer> => podOf(manifest)?.containers ?? [];

export const nameOf = ({ kind, metadata }: Manifest): string => `${kind} ${metadata.name}`;
