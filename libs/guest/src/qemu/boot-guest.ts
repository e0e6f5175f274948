import { accessSync, closeSync, constants, mkdirSync, readFileSync, rmSync, watch, writeFileSync } from "node:fs";
import { delimiter, join } from "node:path";
import { createRamFile } from "@godwit/host";
import type { GodwitError } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import * as Schedule from "effect/Schedule";
import type * as Scope from "effect/Scope";
import { BOOT_RANGE_START_MIN, type BootProgram, bootSector } from "./boot-sector.ts";
import { failure } from "./failure.ts";
import { launchQemu, type QemuSpec } from "./launch.ts";

/** How to start a QEMU that runs the boot guest (`boot-sector.ts`), for trying and testing. */
export interface TestQemuOptions {
  readonly name: string;
  /** Where its socket, log and serial output go; made when absent. Two of one name need two directories. */
  readonly directory: string;
  /** Where its RAM file `godwit-<name>-<role>` goes; best a tmpfs. Default "/dev/shm". */
  readonly ramDirectory?: string;
  /** Whole pages, at least 2 MiB. */
  readonly memoryBytes: number;
  /** `source` runs at once, `destination` waits for its memory and device state. */
  readonly role: "source" | "destination";
  /** `later`: whoever needs it starts it, with `launchQemu` and `spec.launch`. Default `now`. */
  readonly start?: "now" | "later";
  /** What the guest does; the default counts through all memory above 1 MiB, 8 MiB/s, a letter for each pass. */
  readonly program?: Partial<BootProgram>;
  /** Default "tcg", which works everywhere. */
  readonly accelerator?: "tcg" | "kvm";
  /** In place of the RAM options, for trying guests that cannot be moved; and further options. */
  readonly memoryOptions?: ReadonlyArray<string>;
  readonly moreOptions?: ReadonlyArray<string>;
  /** What its command line begins with: it runs elsewhere on this machine, as `ip netns exec` has it. */
  readonly enter?: ReadonlyArray<string>;
}

/** A QEMU with the boot guest. */
export interface TestQemu {
  readonly spec: QemuSpec;
  readonly ramPath: string;
  readonly program: BootProgram;
  /** Its process; null once it is gone. */
  readonly pid: () => number | null;
  /** What the guest has written to its serial line so far. */
  readonly serial: () => string;
  /** Returns when that holds for the serial output. */
  readonly awaitSerial: (holds: (text: string) => boolean) => Effect.Effect<void>;
}

/** Name of the program that runs it. */
export const QEMU_PROGRAM = "qemu-system-x86_64";

/** Pages at 100 ticks a second: 8 MiB/s. */
const BURST_PAGES_DEFAULT = 20;

/** Starts a QEMU with the boot guest; at the scope's end it is killed, and its socket and RAM file are removed. */
export const launchTestQemu = (options: TestQemuOptions): Effect.Effect<TestQemu, GodwitError, Scope.Scope> =>
  Effect.gen(function* () {
    const files = filesOf(options);
    const program: BootProgram = {
      startAddress: BOOT_RANGE_START_MIN,
      endAddress: options.memoryBytes,
      burstPages: BURST_PAGES_DEFAULT,
      roundsPerLetter: 1,
      ...options.program,
    };
    const command = commandLine(options, files);
    const spec: QemuSpec = {
      driver: "qemu",
      name: options.name,
      qmp: files.qmp,
      ...(options.role === "destination" ? { launch: command } : {}),
    };
    yield* Effect.acquireRelease(Effect.try({ try: () => prepare(options, files, program), catch: localFailure }), () =>
      remove(files),
    );
    if (options.start !== "later") yield* launchQemu(spec, command);
    return {
      spec,
      program,
      ramPath: files.ram,
      pid: () => runningPid(files),
      serial: () => readFileSync(files.serial, "utf8"),
      awaitSerial: (holds) => awaitFile(files.serial, holds),
    };
  });

interface TestQemuFiles {
  readonly qmp: string;
  readonly serial: string;
  readonly pid: string;
  readonly image: string;
  readonly ram: string;
}

const filesOf = ({ name, directory, role, ramDirectory = "/dev/shm" }: TestQemuOptions): TestQemuFiles => ({
  qmp: join(directory, `${name}-${role}.qmp`),
  serial: join(directory, `${name}-${role}.serial`),
  pid: join(directory, `${name}-${role}.pid`),
  image: join(directory, `${name}.img`),
  ram: join(ramDirectory, `godwit-${name}-${role}`),
});

const commandLine = (options: TestQemuOptions, files: TestQemuFiles): ReadonlyArray<string> => [
  ...(options.enter ?? []),
  QEMU_PROGRAM,
  ...["-accel", options.accelerator ?? "tcg"],
  ...["-m", `${options.memoryBytes / 1024}k`],
  ...(options.memoryOptions ?? [
    ...["-machine", "pc,memory-backend=ram0"],
    ...["-object", `memory-backend-file,id=ram0,size=${options.memoryBytes},mem-path=${files.ram},share=on`],
  ]),
  ...["-nodefaults", "-display", "none"],
  // A floppy: the firmware boots one of 512 bytes, and both sides may have it open.
  ...["-drive", `if=floppy,format=raw,readonly=on,file=${files.image}`],
  // Appended to: the firmware starts a destination, too, and nothing written before shall be lost.
  ...["-chardev", `file,id=serial0,path=${files.serial},append=on`, "-serial", "chardev:serial0"],
  ...["-qmp", `unix:${files.qmp},server=on,wait=off`],
  ...["-pidfile", files.pid],
  ...(options.role === "destination" ? ["-incoming", "defer"] : []),
  ...(options.moreOptions ?? []),
];

const prepare = (options: TestQemuOptions, files: TestQemuFiles, program: BootProgram): void => {
  mkdirSync(options.directory, { recursive: true });
  // RAM of an earlier run would begin with its counters.
  rmSync(files.ram, { force: true });
  // QEMU would make it readable to everyone.
  if (options.memoryOptions === undefined) closeSync(createRamFile(files.ram, options.memoryBytes));
  writeFileSync(files.image, bootSector(program));
  writeFileSync(files.serial, "");
};

/** Kills the QEMU that wrote the pid file, if it is that one still, waits for its end, and removes what it leaves behind. */
const remove = (files: TestQemuFiles): Effect.Effect<void> =>
  Effect.sync(() => {
    const pid = runningPid(files);
    if (pid !== null) process.kill(pid, "SIGKILL");
    return pid;
  }).pipe(
    // The kernel frees a large RAM before the process is gone. No event tells a stranger of its end.
    Effect.repeat({ until: (pid) => pid === null, schedule: Schedule.spaced("5 millis") }),
    Effect.andThen(
      Effect.sync(() => {
        for (const path of [files.ram, files.qmp, files.pid]) rmSync(path, { force: true });
      }),
    ),
  );

/** A pid may have become another process': the command line tells. */
const runningPid = (files: TestQemuFiles): number | null => {
  try {
    const pid = Number(readFileSync(files.pid, "utf8"));
    return readFileSync(`/proc/${pid}/cmdline`, "utf8").includes(files.qmp) ? pid : null;
  } catch {
    // No pid file or no such process: it never started, or has ended.
    return null;
  }
};

const awaitFile = (path: string, holds: (text: string) => boolean): Effect.Effect<void> =>
  Effect.acquireUseRelease(
    Effect.sync(() => watch(path)),
    (watcher) =>
      Effect.callback<void>((resume) => {
        const look = () => {
          if (holds(readFileSync(path, "utf8"))) resume(Effect.void);
        };
        watcher.on("change", look);
        look();
      }),
    (watcher) => Effect.sync(() => watcher.close()),
  );

const localFailure = (cause: unknown): GodwitError => failure("guest-failed", "prepare the test guest", String(cause));

/** Whether QEMU_PROGRAM is to be had here: without it, what needs a QEMU is skipped with that reason. */
export const qemuIsInstalled = (): boolean =>
  (process.env["PATH"] ?? "").split(delimiter).some((directory) => {
    try {
      accessSync(join(directory, QEMU_PROGRAM), constants.X_OK);
      return true;
    } catch {
      // Not in this directory.
      return false;
    }
  });
