// deploy/kubernetes: that it builds, that Kubernetes would understand all of it, and that it keeps the rules that its comments promise.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { IContainer, IPodSpec } from "kubernetes-models/v1";
import { assert, describe, expect, it } from "vitest";
import {
  buildOf,
  buildWith,
  containersOf,
  KUBERNETES,
  kubectlIsInstalled,
  kustomizations,
  type Manifest,
  manifestsIn,
  nameOf,
  podOf,
  resourceFiles,
} from "./manifest.ts";
import { schemaProblems } from "./schema.ts";

const because = kubectlIsInstalled() ? "" : " (skipped: no kubectl with kustomize in PATH)";

const problemsOf = async (manifests: ReadonlyArray<Manifest>): Promise<ReadonlyArray<string>> =>
  (
    await Promise.all(
      manifests.map(async (manifest) =>
        (await schemaProblems(manifest)).map((problem) => `${nameOf(manifest)}: ${problem}`),
      ),
    )
  ).flat();

/** The one of this kind and name. */
const find = (manifests: ReadonlyArray<Manifest>, name: string): Manifest => {
  const found = manifests.filter((manifest) => nameOf(manifest) === name);
  assert.lengthOf(found, 1, name);
  return found[0]!;
};

describe("the check against Kubernetes' schemas", () => {
  const [deployment] = manifestsIn(readFileSync(join(KUBERNETES, "base/coordinator/deployment.yaml"), "utf8"));
  const changed = (change: (pod: Record<string, unknown>) => void): Manifest => {
    const copy = structuredClone(deployment!);
    change(podOf(copy) as unknown as Record<string, unknown>);
    return copy;
  };

  it("finds a misspelt field", async () => {
    const misspelt = changed((pod) => {
      pod["priorityClasName"] = pod["priorityClassName"];
    });
    expect(await schemaProblems(misspelt)).toEqual(["/spec/template/spec/priorityClasName is no field of Deployment"]);
  });
  it("finds a value of another type", async () => {
    const text = changed((pod) => {
      pod["terminationGracePeriodSeconds"] = "30s";
    });
    expect((await schemaProblems(text))[0]).toContain("/spec/template/spec/terminationGracePeriodSeconds");
  });
  it("finds a field that is missing", async () => {
    const without = changed((pod) => {
      delete pod["containers"];
    });
    expect((await schemaProblems(without))[0]).toContain("containers");
  });
  it("finds a kind that Kubernetes does not have", async () => {
    await expect(schemaProblems({ ...deployment!, kind: "Deploymint" })).rejects.toThrow("Deploymint");
  });
  it("passes every file that kustomizations list", async () => {
    const files = resourceFiles();
    expect(files).toContain("base/hosts/daemon-set.yaml");
    const manifests = files.flatMap((path) => manifestsIn(readFileSync(join(KUBERNETES, path), "utf8")));
    expect(await problemsOf(manifests)).toEqual([]);
  });
});

describe("the check of our own rules", () => {
  it("finds a container that may do more, one that may eat more, and one that nobody asks", () => {
    const [daemonSet] = manifestsIn(readFileSync(join(KUBERNETES, "base/hosts/daemon-set.yaml"), "utf8"));
    const broken = structuredClone(daemonSet!);
    const [node, sender, loader] = containersOf(broken) as ReadonlyArray<{
      -readonly [K in keyof IContainer]: unknown;
    }>;
    node!.securityContext = { privileged: true, capabilities: { drop: ["ALL"], add: ["SYS_PTRACE"] } };
    delete sender!.resources;
    delete loader!.readinessProbe;
    delete loader!.lifecycle;
    expect(brokenRules(broken).filter((rule) => !rule.endsWith("its image has a version"))).toEqual([
      "DaemonSet host, node: it cannot gain privileges",
      "DaemonSet host, node: its image cannot be changed",
      "DaemonSet host, node: it is not privileged",
      "DaemonSet host, node: it has no capability back",
      "DaemonSet host, ram-sender: it asks for CPU",
      "DaemonSet host, ram-sender: it asks for memory",
      "DaemonSet host, ram-sender: its memory is limited",
      "DaemonSet host, loader: it is probed",
      "DaemonSet host, loader: it is not stopped in the middle of something",
    ]);
  });
});

describe.skipIf(because !== "")(`what kustomize builds${because}`, () => {
  for (const folder of kustomizations().filter((path) => !path.startsWith("base/"))) {
    it(`${folder}: builds, fits the schemas, and keeps the rules`, async () => {
      const manifests = buildOf(folder);
      expect(await problemsOf(manifests)).toEqual([]);
      expect(manifests.flatMap(brokenRules)).toEqual([]);
      expect(danglingReferences(manifests)).toEqual([]);
    });
  }

  it("production with its components: the same", async () => {
    const manifests = buildWith("overlays/production", ["kernel-vfio", "host-credentials-secret", "direct-lane"]);
    expect(await problemsOf(manifests)).toEqual([]);
    expect(manifests.flatMap(brokenRules)).toEqual([]);
    expect(danglingReferences(manifests)).toEqual([]);
  });

  it("production gives each container its own credentials, and no other's", () => {
    for (const manifests of [
      buildOf("overlays/production"),
      buildWith("overlays/production", ["host-credentials-secret"]),
    ]) {
      for (const container of containersOf(find(manifests, "DaemonSet host"))) {
        const role = container.args?.[1];
        const file = `/etc/godwit/credentials/${role}.creds`;
        expect(container.env).toContainEqual({ name: "GODWIT_CREDS", value: file });
        const mounts = (container.volumeMounts ?? []).filter(({ mountPath }) => mountPath.startsWith("/etc/godwit/c"));
        expect(mounts.map(({ mountPath }) => mountPath).sort()).toEqual(
          ["/etc/godwit/credentials/ca.pem", file].sort(),
        );
        const { name, subPathExpr } = mounts.find(({ mountPath }) => mountPath === file)!;
        expect(subPathExpr ?? `$(GODWIT_NODE).${name.replace("credentials-", "")}.creds`).toBe(
          `$(GODWIT_NODE).${role}.creds`,
        );
      }
    }
  });

  it("one coordinator and two servers stay, whatever is drained or updated", () => {
    const manifests = buildOf("overlays/production");
    const coordinator = find(manifests, "Deployment coordinator").spec as Record<string, unknown>;
    expect(coordinator).toMatchObject({
      replicas: 2,
      strategy: { rollingUpdate: { maxUnavailable: 1, maxSurge: 0 } },
    });
    expect(find(manifests, "StatefulSet nats").spec).toMatchObject({ replicas: 3 });
    expect(find(manifests, "PodDisruptionBudget coordinator").spec).toMatchObject({ minAvailable: 1 });
    expect(find(manifests, "PodDisruptionBudget nats").spec).toMatchObject({ maxUnavailable: 1 });
    for (const workload of ["Deployment coordinator", "StatefulSet nats"]) {
      const pod = podOf(find(manifests, workload));
      const apart = pod?.affinity?.podAntiAffinity?.requiredDuringSchedulingIgnoredDuringExecution ?? [];
      expect(apart.map(({ topologyKey }) => topologyKey)).toEqual(["kubernetes.io/hostname"]);
    }
  });

  it("nothing is reached but NATS and the name servers, and everything is denied where nothing is said", () => {
    const policies = buildOf("overlays/production").filter(({ kind }) => kind === "NetworkPolicy");
    const closed = policies.filter(({ spec }) => same(spec, { podSelector: {}, policyTypes: ["Ingress", "Egress"] }));
    expect(closed.map(({ metadata }) => metadata.namespace).sort()).toEqual(["godwit", "godwit-hosts"]);
    const ports = policies.flatMap(
      ({ spec }) => (spec as Policy).egress?.flatMap((rule) => rule.ports.map(({ port }) => port)) ?? [],
    );
    expect([...new Set(ports)].sort()).toEqual([4222, 53, 6222]);
  });

  it("hosts take connections of each other's workers with the component for it alone, on the ports that they are told", () => {
    const listenOf = (manifests: ReadonlyArray<Manifest>) =>
      manifests.find(({ data }) => data?.["GODWIT_DIRECT_LISTEN"] !== undefined)?.data?.["GODWIT_DIRECT_LISTEN"];
    const openTo = (manifests: ReadonlyArray<Manifest>) =>
      manifests
        .filter(({ kind, metadata }) => kind === "NetworkPolicy" && metadata.namespace === "godwit-hosts")
        .flatMap(({ spec }) => (spec as { ingress?: ReadonlyArray<{ ports: unknown }> }).ingress ?? []);
    expect(listenOf(buildOf("overlays/production"))).toBe("off");
    expect(openTo(buildOf("overlays/production"))).toEqual([]);
    const open = buildWith("overlays/production", ["direct-lane"]);
    const [, first, last] = /:(\d+)-(\d+)$/.exec(listenOf(open) ?? "")!;
    expect(openTo(open)).toEqual([
      {
        from: [{ podSelector: { matchLabels: { "app.kubernetes.io/component": "host" } } }],
        ports: [{ protocol: "TCP", port: Number(first), endPort: Number(last) }],
      },
    ]);
  });

  it("the Job that makes buckets is not applied with the rest where there is something to lose", () => {
    expect(buildOf("overlays/production").map(({ kind }) => kind)).not.toContain("Job");
    expect(buildOf("overlays/production/setup-nats").map(({ kind }) => kind)).toContain("Job");
  });
});

interface Policy {
  readonly egress?: ReadonlyArray<{ readonly ports: ReadonlyArray<{ readonly port: number }> }>;
}

/** A name with a tag or a digest. */
const PULLED = /:[\w][\w.-]*$|@sha256:[0-9a-f]{64}$/;

/** Which of our own rules a manifest breaks. */
const brokenRules = (manifest: Manifest): ReadonlyArray<string> => {
  const pod = podOf(manifest);
  if (pod === null) return [];
  const rules: ReadonlyArray<readonly [boolean, string]> = [
    [pod.automountServiceAccountToken === false, "no token of Kubernetes' API lies in its pods"],
    [pod.enableServiceLinks === false, "no other services stand in its environment"],
    [pod.securityContext?.seccompProfile?.type === "RuntimeDefault", "system calls are limited"],
    [pod.securityContext?.runAsNonRoot === true, "nobody is root"],
    [manifest.kind === "Job" || pod.priorityClassName === "godwit", "it does not make room for others"],
    [pod.hostNetwork !== true && pod.hostIPC !== true, "it has a network of its own"],
    [pod.hostPID !== true || manifest.kind === "DaemonSet", "only host actors see other processes"],
  ];
  return [
    ...rules.filter(([kept]) => !kept).map(([, rule]) => `${nameOf(manifest)}: ${rule}`),
    ...[...(pod.initContainers ?? []), ...containersOf(manifest)].flatMap((container) =>
      brokenContainerRules(container, pod, manifest).map((rule) => `${nameOf(manifest)}, ${container.name}: ${rule}`),
    ),
  ];
};

const brokenContainerRules = (container: IContainer, pod: IPodSpec, manifest: Manifest): ReadonlyArray<string> => {
  const { securityContext: context, resources } = container;
  const isFolders = pod.initContainers?.includes(container) === true;
  const runsOnce = isFolders || manifest.kind === "Job";
  const rules: ReadonlyArray<readonly [boolean, string]> = [
    [context?.allowPrivilegeEscalation === false, "it cannot gain privileges"],
    [context?.readOnlyRootFilesystem === true, "its image cannot be changed"],
    [context?.privileged !== true, "it is not privileged"],
    [same(context?.capabilities?.drop, ["ALL"]), "it drops all capabilities"],
    [same(context?.capabilities?.add, isFolders ? ["CHOWN", "FOWNER"] : undefined), "it has no capability back"],
    [isFolders || context?.runAsUser === undefined, "it runs as its pod's user"],
    [resources?.requests?.["cpu"] !== undefined, "it asks for CPU"],
    [resources?.requests?.["memory"] !== undefined, "it asks for memory"],
    [resources?.limits?.["memory"] !== undefined, "its memory is limited"],
    // A switchover that waits for its next slice of CPU time is downtime.
    [resources?.limits?.["cpu"] === undefined, "its CPU time is not limited"],
    [runsOnce || (container.startupProbe !== undefined && container.readinessProbe !== undefined), "it is probed"],
    [
      runsOnce || manifest.kind === "Deployment" || container.lifecycle?.preStop !== undefined,
      "it is not stopped in the middle of something",
    ],
    [PULLED.test(container.image ?? ""), "its image has a version"],
    [programsOf(container).every((program) => PROGRAMS.includes(program)), "its image has what is executed in it"],
  ];
  return rules.filter(([kept]) => !kept).map(([, rule]) => rule);
};

/** What our image has, and NATS's. */
const PROGRAMS: ReadonlyArray<string> = ["godwit", "node", "nats-server"];

/** First words of everything that is executed in a container instead of, or beside, its image's own program. */
const programsOf = ({ command, lifecycle, readinessProbe, startupProbe }: IContainer): ReadonlyArray<string> =>
  [command, lifecycle?.preStop?.exec?.command, readinessProbe?.exec?.command, startupProbe?.exec?.command]
    .map((words) => words?.[0])
    .filter((word) => word !== undefined);

const same = (a: unknown, b: unknown): boolean => JSON.stringify(a) === JSON.stringify(b);

/** Names of what nobody defines: volumes, ConfigMaps of ours, the Service of a StatefulSet, pods that a selector should find. */
const danglingReferences = (manifests: ReadonlyArray<Manifest>): ReadonlyArray<string> => {
  const names = new Set(manifests.map(nameOf));
  return manifests.flatMap((manifest) => {
    const pod = podOf(manifest);
    const claims = (manifest.spec as { volumeClaimTemplates?: ReadonlyArray<Manifest> } | undefined)
      ?.volumeClaimTemplates;
    const volumes = new Set(
      [...(pod?.volumes ?? []), ...(claims ?? []).map(({ metadata }) => metadata)].map(({ name }) => name),
    );
    const mounted = [...(pod?.initContainers ?? []), ...containersOf(manifest)].flatMap(({ volumeMounts = [] }) =>
      volumeMounts.map(({ name }) => name),
    );
    const maps = [
      ...(pod?.volumes ?? []).map(({ configMap }) => configMap?.name),
      ...containersOf(manifest).flatMap(({ envFrom = [] }) =>
        envFrom.map(({ configMapRef }) => (configMapRef?.optional === true ? undefined : configMapRef?.name)),
      ),
    ].filter((name) => name !== undefined);
    const { serviceName } = (manifest.spec ?? {}) as { serviceName?: string };
    return [
      ...mounted.filter((name) => !volumes.has(name)).map((name) => `volume ${name}`),
      ...[...volumes].filter((name) => !mounted.includes(name)).map((name) => `mount of volume ${name}`),
      ...maps.filter((name) => !names.has(`ConfigMap ${name}`)).map((name) => `ConfigMap ${name}`),
      ...(serviceName === undefined || names.has(`Service ${serviceName}`) ? [] : [`Service ${serviceName}`]),
    ].map((what) => `${nameOf(manifest)}: there is no ${what}`);
  });
};
