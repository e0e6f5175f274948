// Compose, Kubernetes and the command line speak of the same variables, roles, subjects and ports.
import { existsSync, globSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { DEFAULT_NATS } from "@godwit/actor";
import { REMEDIES, subjects } from "@godwit/protocol";
import { describe, expect, it } from "vitest";
import { parse } from "yaml";
import { variableOf } from "../../services/cli/src/arguments/parse.ts";
import { CATALOGUE } from "../../services/cli/src/commands/catalogue.ts";
import { ROLES } from "../../services/cli/src/host/roles.ts";
import { NATS_SERVER_CONFIGURATION } from "../../services/cli/src/nats-server-configuration.ts";
import { containersOf, KUBERNETES, type Manifest, manifestsIn, ROOT, resourceFiles } from "./manifest.ts";

/** A container as far as names go: what it runs, and what it is told. */
interface Told {
  readonly what: string;
  readonly words: ReadonlyArray<string>;
  readonly probe: ReadonlyArray<string>;
  readonly variables: Readonly<Record<string, string>>;
}

const isOurs = (name: string): boolean => name.startsWith("GODWIT_");
const oursOf = (all: Readonly<Record<string, unknown>>): Readonly<Record<string, string>> =>
  Object.fromEntries(
    Object.entries(all)
      .filter(([name]) => isOurs(name))
      .map(([name, value]) => [name, String(value ?? "")]),
  );
const listOf = (words: unknown): ReadonlyArray<string> =>
  Array.isArray(words) ? words.map(String) : typeof words === "string" ? words.split(/\s+/) : [];

// ---------------------------------------------------------------------------------------------------- Kubernetes

const read = (path: string): ReadonlyArray<Manifest> => manifestsIn(readFileSync(join(KUBERNETES, path), "utf8"));

/** What ConfigMaps bring: literals of all kustomizations. Overlays may only add names or change values. */
const settings = oursOf(
  Object.fromEntries(
    globSync("**/kustomization.yaml", { cwd: KUBERNETES }).flatMap((path) => {
      const { configMapGenerator = [] } = read(path)[0] as unknown as {
        readonly configMapGenerator?: ReadonlyArray<{ readonly literals?: ReadonlyArray<string> }>;
      };
      return configMapGenerator.flatMap(({ literals = [] }) =>
        literals.map((literal) => [literal.slice(0, literal.indexOf("=")), literal.slice(literal.indexOf("=") + 1)]),
      );
    }),
  ),
);

/** Containers of resources and, in a patch, what is changed of them. */
const inKubernetes: ReadonlyArray<Told> = globSync("**/*.yaml", { cwd: KUBERNETES })
  .filter((path) => !path.endsWith("kustomization.yaml"))
  .flatMap((path) =>
    read(path).flatMap((manifest) =>
      containersOf(manifest).map(({ name, args, env = [], envFrom, readinessProbe }) => ({
        what: `${path}, ${name}`,
        words: args ?? [],
        probe: readinessProbe?.exec?.command ?? [],
        variables: {
          ...(envFrom === undefined ? {} : settings),
          ...oursOf(Object.fromEntries(env.map((variable) => [variable.name, variable.value]))),
        },
      })),
    ),
  );

// ------------------------------------------------------------------------------------------------------- compose

const COMPOSE = join(ROOT, "docker-compose.yml");

interface ComposeService {
  readonly command?: unknown;
  readonly environment?: Readonly<Record<string, unknown>> | ReadonlyArray<string>;
  readonly healthcheck?: { readonly test?: unknown };
}

const inCompose = (): ReadonlyArray<Told> => {
  const { services } = parse(readFileSync(COMPOSE, "utf8"), { merge: true, maxAliasCount: -1 }) as {
    readonly services: Readonly<Record<string, ComposeService>>;
  };
  return Object.entries(services).map(([what, { command, environment = {}, healthcheck }]) => ({
    what: `docker-compose.yml, ${what}`,
    words: listOf(command),
    probe: listOf(healthcheck?.test).filter((word) => !["CMD", "CMD-SHELL"].includes(word)),
    variables: oursOf(
      Array.isArray(environment)
        ? Object.fromEntries(
            environment.map((line) => [
              line.replace(/=.*/s, ""),
              line.includes("=") ? line.replace(/^[^=]*=/s, "") : "",
            ]),
          )
        : environment,
    ),
  }));
};

// ---------------------------------------------------------------------------------------------- the command line

/** Options of commands, and what the code reads itself. */
const knownVariables = async (): Promise<ReadonlySet<string>> => {
  const commands = await Promise.all(Object.values(CATALOGUE).map(({ load }) => load()));
  const options = commands.flatMap((command) =>
    Object.entries(command.options).map(([name, option]) => variableOf(name, option)),
  );
  const inCode = globSync(["{libs,services}/*/src/**/*.ts", "deploy/**/*.ts"], { cwd: ROOT })
    .filter((path) => !path.endsWith(".test.ts"))
    .flatMap(
      (path) => readFileSync(join(ROOT, path), "utf8").match(/(?<=env(?:ironment)?\["|")GODWIT_[A-Z_]+(?=")/g) ?? [],
    );
  return new Set([...options, ...inCode]);
};

/** Every subject, with `*` for what differs: any argument, and any field of one, reads as that. */
const ANY: unknown = new Proxy(() => {}, { get: (_, key) => (key === Symbol.toPrimitive ? () => "*" : ANY) });
const knownSubjects = new Set(
  Object.values(subjects).map((subject) =>
    // One that names nobody is a text already.
    typeof subject === "string" ? subject : (subject as (...values: ReadonlyArray<unknown>) => string)(ANY, ANY, ANY),
  ),
);
/** Subjects in a text that no actor uses. A wildcard at the end stands for at least one that is used. */
const unknownSubjects = (text: string): ReadonlyArray<string> =>
  (text.match(/(?<![\w.@/-])godwit(?:\.(?:[\w-]+|\*|>))+/g) ?? []).filter((subject) => {
    if (/\.svc\b|\.(?:service|slice|conf|creds|yaml|yml|sh)$/.test(subject)) return false;
    const tokens = subject.split(".");
    return ![...knownSubjects].some((known) => {
      const others = known.split(".");
      const length = tokens.at(-1) === ">" ? tokens.length - 1 : tokens.length;
      return (
        (length === others.length || (tokens.at(-1) === ">" && length < others.length)) &&
        tokens.slice(0, length).every((token, i) => token === others[i] || others[i] === "*" || token === "*")
      );
    });
  });

const CLIENT = Number(new URL(DEFAULT_NATS).port);
const MONITOR = Number(/^http: .*:(\d+)"$/m.exec(NATS_SERVER_CONFIGURATION)?.[1]);
/** NATS's own default for routes, which the command line has nothing to do with. */
const ROUTES = 6222;
const DNS = 53;

/** The numbers that a pattern's first group finds, each once. */
const numbersIn = (text: string, ...patterns: ReadonlyArray<RegExp>): ReadonlyArray<number> => [
  ...new Set(patterns.flatMap((pattern) => [...text.matchAll(pattern)].map((match) => Number(match[1])))),
];

/** Ports by what they are for, in URLs and in nats-server's configuration. */
const portsIn = (text: string) => {
  const cluster = (text.match(/^cluster \{.*?^\}/gms) ?? []).join("\n");
  const rest = text.replaceAll(/^cluster \{.*?^\}/gms, "");
  return {
    client: numbersIn(rest, /(?:nats|tls):\/\/[^\s:,"]+:(\d+)/g, /^(?:listen: "[^"]*:|port: )(\d+)/gm),
    monitor: numbersIn(rest, /http:\/\/[^\s:,"]+:(\d+)/g, /^http: "?[^"\s]*:(\d+)/gm, /^http(?:_port)?: (\d+)/gm),
    routes: numbersIn(cluster, /(?:listen: "[^"]*|nats:\/\/[^\s:,]+):(\d+)/g, /^ *port: (\d+)/gm),
  };
};

const textsBelow = (folder: string): string =>
  globSync("**/*.{yaml,yml,conf}", { cwd: folder })
    .map((path) => readFileSync(join(folder, path), "utf8"))
    .join("\n");

// --------------------------------------------------------------------------------------------------------- tests

/** What the actors of a host share: they meet at these. */
const SHARED = ["GODWIT_NATS", "GODWIT_NODE", "GODWIT_RUNTIME_DIR"];

const checkNames = async (told: ReadonlyArray<Told>) => {
  const known = await knownVariables();
  expect(
    told.flatMap(({ what, variables }) =>
      Object.keys(variables).flatMap((name) => (known.has(name) ? [] : [`${what}: nothing reads ${name}`])),
    ),
  ).toEqual([]);
  const actors = told.filter(({ words }) => words[0] === "actor");
  expect([...new Set(actors.map(({ words }) => words[1]))].sort()).toEqual([...ROLES].sort());
  for (const { what, words, probe, variables } of actors) {
    expect(probe.join(" "), what).toContain(`godwit health ${words[1]}`);
    const shared = words[1] === "coordinator" ? ["GODWIT_NATS"] : SHARED;
    expect(Object.keys(variables), what).toEqual(expect.arrayContaining(shared));
  }
};

/** `it`, with the reason in its name where it cannot be run. */
const whereThereIs = (there: boolean, what: string) => ({
  run: it.skipIf(!there),
  because: there ? "" : ` (skipped: this tree has no ${what})`,
});
// GODWIT_TLS_CA comes with `godwit credentials`; compose comes with the rest of deploy/.
const HAS_CREDENTIALS = Object.hasOwn(CATALOGUE, "credentials");
const WITH_CREDENTIALS = HAS_CREDENTIALS ? [] : ["credentials", "GODWIT_TLS_CA"];
const credentials = whereThereIs(HAS_CREDENTIALS, "`godwit credentials`");
const compose = whereThereIs(existsSync(COMPOSE) || existsSync(join(ROOT, "deploy/docker")), "deploy/docker");

describe("Kubernetes", () => {
  it("runs every actor, and tells each only what it reads", async () => {
    await checkNames(inKubernetes.filter(({ words }) => words.length > 0).map(withoutTls));
  });
  credentials.run(`names the variables of production${credentials.because}`, async () => {
    const known = await knownVariables();
    const names = [...Object.keys(settings), ...inKubernetes.flatMap(({ variables }) => Object.keys(variables))];
    expect(names.filter((name) => !known.has(name))).toEqual([]);
  });
  it("numbers the workers of a pool", () => {
    const workers = inKubernetes.filter(({ words }) => words[1] === "multifd-worker");
    expect(workers.map(({ variables }) => variables["GODWIT_WORKER"])).toEqual(["0", "1", "2", "3"]);
  });
  it("uses NATS's ports as the command line does, and no others", () => {
    expect(portsIn(textsBelow(KUBERNETES))).toEqual({ client: [CLIENT], monitor: [MONITOR], routes: [ROUTES] });
    const numbered = resourceFiles().flatMap((path) => portFields(read(path)));
    expect([...new Set(numbered)].sort((a, b) => a - b)).toEqual([DNS, CLIENT, ROUTES, MONITOR]);
  });
  it("names no subject that nobody uses", () => expect(unknownSubjects(textsBelow(KUBERNETES))).toEqual([]));
});

describe("compose", () => {
  compose.run(`runs every actor, and tells each only what it reads${compose.because}`, () => checkNames(inCompose()));
  compose.run(`uses NATS's ports as the command line and Kubernetes do${compose.because}`, () => {
    const { client, monitor, routes } = portsIn(
      `${readFileSync(COMPOSE, "utf8")}\n${textsBelow(join(ROOT, "deploy/docker"))}`,
    );
    for (const port of client) expect([CLIENT, ROUTES]).toContain(port);
    for (const port of monitor) expect(port).toBe(MONITOR);
    for (const port of routes) expect(port).toBe(ROUTES);
    expect(client).toContain(CLIENT);
  });
  compose.run(`names no subject that nobody uses${compose.because}`, () =>
    expect(unknownSubjects(readFileSync(COMPOSE, "utf8"))).toEqual([]),
  );
});

describe("the operator's pages", () => {
  const pages = ["docs/operations.md", "deploy/kubernetes/README.md"].map((path) => ({
    path,
    text: readFileSync(join(ROOT, path), "utf8"),
  }));

  it("name variables, commands and error codes that exist", async () => {
    const known = await knownVariables();
    const wrong = pages.flatMap(({ path, text }) => [
      ...(text.match(/GODWIT_[A-Z_]+/g) ?? []).filter((name) => !WITH_CREDENTIALS.includes(name) && !known.has(name)),
      ...[...text.matchAll(/(?:`|-- )godwit ([a-z-]+)/g)]
        .map(([, command = ""]) => command)
        .filter((command) => !WITH_CREDENTIALS.includes(command) && !Object.hasOwn(CATALOGUE, command))
        .map((command) => `${path}: godwit ${command}`),
    ]);
    expect(wrong).toEqual([]);
  });
  it("say what to do about errors by codes that exist", () => {
    const [, table = ""] = pages[0]!.text.split("Worth an alarm:");
    const rows = table.split("\n").filter((line) => line.startsWith("| `"));
    const named = rows.flatMap((row) => [...row.split("|")[1]!.matchAll(/`([a-z-]+)`/g)].map(([, code = ""]) => code));
    expect(named.length).toBeGreaterThan(15);
    expect(named.filter((code) => !Object.hasOwn(REMEDIES, code))).toEqual([]);
  });
});

describe("the checks of names", () => {
  it("find a variable that nothing reads", async () => {
    const told = inKubernetes.filter(({ words }) => words.length > 0).map(withoutTls);
    const wrong = { ...told[0]!, what: "wrong", variables: { GODWIT_NATZ: "nats://x" } };
    await expect(checkNames([...told, wrong])).rejects.toThrow("wrong: nothing reads GODWIT_NATZ");
  });
  it("find a subject that nobody uses", () => {
    const text = `godwit.node.a.source, godwit.nodes.a.source, nats-0.nats-servers.godwit.svc, godwit.m.>, godwit.x.>`;
    expect(unknownSubjects(text)).toEqual(["godwit.nodes.a.source", "godwit.x.>"]);
  });
  it("find another port", () => {
    expect(portsIn('nats://a:4223\nhttp: "0.0.0.0:8223"\ncluster {\n  listen: "0.0.0.0:6223"\n}\n')).toEqual({
      client: [4223],
      monitor: [8223],
      routes: [6223],
    });
  });
});

/** Numbers that stand as ports: `port`, `containerPort`. */
const portFields = (value: unknown): ReadonlyArray<number> => {
  if (typeof value !== "object" || value === null) return [];
  return Object.entries(value).flatMap(([key, below]) =>
    (key === "port" || key === "containerPort") && typeof below === "number" ? [below] : portFields(below),
  );
};

function withoutTls(told: Told): Told {
  const variables = Object.entries(told.variables).filter(([name]) => !WITH_CREDENTIALS.includes(name));
  return { ...told, variables: Object.fromEntries(variables) };
}
