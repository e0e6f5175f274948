/**
 * A link of a given rate and delay between two network namespaces of this machine.
 *
 *     namespace "near"                                                namespace "far"
 *     10.203.0.1 on a TUN, tbf: the rate --> delay line: 1 ms --> TUN on 10.203.0.2
 *                                   TUN <-- delay line: 1 ms <-- tbf: the rate
 *
 * The rate is the kernel's (tbf). The delay is a process' (`delay-line.ts`), since netem is not in every kernel and a figure shall mean
 * the same on all. What it costs is nobody's of those who are compared.
 */
import { execFileSync, fork } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { delimiter, join } from "node:path";
import * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";

export interface LinkOptions {
  readonly megabitsPerSecond: number;
  /** Of a packet, one way, ms. */
  readonly delayMs: number;
}

/** One end of the link. */
export interface Side {
  readonly address: string;
  /** What a command line begins with to run there. */
  readonly enter: ReadonlyArray<string>;
  readonly device: string;
}

export interface Link {
  readonly near: Side;
  readonly far: Side;
}

const ADDRESSES = { near: "10.203.0.1", far: "10.203.0.2" } as const;
/** What tbf lets through at once, bytes: two of the largest packets that the kernel makes of a connection, which it would cut up otherwise. */
const BURST_BYTES = 128 * 1024;
/** What waits before it, bytes: a switch's buffer. Connections of this host fill it less, since they know of their own bytes in it. */
const QUEUE_BYTES = 4 * 1024 ** 2;

/** Why there can be no such link here, or null. */
export const linkObstacle = (): string | null => {
  if (process.getuid?.() !== 0) return "network namespaces need root";
  if (!existsSync("/dev/net/tun")) return "there is no /dev/net/tun";
  const places = (process.env["PATH"] ?? "").split(delimiter);
  const missing = ["ip", "tc"].filter((program) => !places.some((place) => existsSync(join(place, program))));
  return missing.length === 0 ? null : `there is no ${missing.join(" and no ")} in PATH`;
};

const run = ([program = "", ...args]: ReadonlyArray<string>): void => {
  execFileSync(program, args, { stdio: ["ignore", "ignore", "pipe"] });
};
const words = (line: string): ReadonlyArray<string> => line.split(" ");

/** Lives as long as the scope. Fails with what `ip` or `tc` says. */
export const openLink = Effect.fnUntraced(function* (
  options: LinkOptions,
): Effect.fn.Return<Link, unknown, Scope.Scope> {
  const sides = (["near", "far"] as const).map((side) => ({
    address: ADDRESSES[side],
    namespace: `godwit-bench-${side}-${process.pid}`,
    // At most 15 characters.
    device: `gw${side}${process.pid}`,
  }));
  for (const { namespace } of sides)
    yield* Effect.acquireRelease(
      Effect.try({ try: () => run(["ip", "netns", "add", namespace]), catch: (cause) => cause }),
      () => Effect.sync(() => run(["ip", "netns", "delete", namespace])),
    );
  yield* startDelayLine(
    sides.map(({ device }) => device),
    options.delayMs,
  );
  yield* Effect.try({
    try: () => {
      for (const { namespace, device, address } of sides) {
        const inside = ["ip", "netns", "exec", namespace];
        run(words(`ip link set ${device} netns ${namespace}`));
        run([...inside, ...words(`ip address add ${address}/30 dev ${device}`)]);
        run([...inside, ...words("ip link set lo up")]);
        run([...inside, ...words(`ip link set ${device} up`)]);
        const shape = `rate ${options.megabitsPerSecond}mbit burst ${BURST_BYTES} limit ${QUEUE_BYTES}`;
        run([...inside, ...words(`tc qdisc replace dev ${device} root tbf ${shape}`)]);
      }
    },
    catch: (cause) => cause,
  });
  const [near, far] = sides.map(
    ({ namespace, address, device }): Side => ({ address, device, enter: ["ip", "netns", "exec", namespace] }),
  );
  return { near: near!, far: far! };
});

/** What has been sent there so far, bytes: each packet of at most 1500 bytes with its IP and TCP headers, as tbf counts them. */
export const sentBytes = ({ enter, device }: Side): number => {
  const [program = "", ...args] = [...enter, ...words(`tc -json -statistics qdisc show dev ${device}`)];
  const [qdisc] = JSON.parse(execFileSync(program, args, { encoding: "utf8" })) as [{ readonly bytes: number }];
  return qdisc.bytes;
};

/** Returns when both devices are there; they go with it. */
const startDelayLine = (devices: ReadonlyArray<string>, delayMs: number) =>
  Effect.acquireRelease(
    Effect.tryPromise({
      try: async () => {
        const child = fork(new URL("./delay-line.ts", import.meta.url), [...devices, String(delayMs)]);
        await Promise.race([
          once(child, "message"),
          once(child, "exit").then(([code]) => {
            throw new Error(`the delay line ended with exit code ${code}`);
          }),
        ]);
        return child;
      },
      catch: (cause) => cause,
    }),
    (child) =>
      Effect.promise(async () => {
        const gone = once(child, "exit");
        if (child.kill("SIGKILL")) await gone;
      }),
  );
