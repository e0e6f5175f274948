// `npm run test:kernel-vfio [-- WORD]`: boots a kernel that has VFIO devices, and runs inside.ts on it: all tests, or those with WORD in their name.
// Its exit status is that of the tests.
import { spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const CHECKOUT = fileURLToPath(new URL("../../..", import.meta.url));
const HERE = join(CHECKOUT, "test/interop/kernel-vfio");
const CACHE =
  process.env["GODWIT_KERNEL_VFIO_CACHE"] ??
  join(process.env["XDG_CACHE_HOME"] ?? join(homedir(), ".cache"), "godwit/kernel-vfio");
const KERNEL = join(CACHE, "build/vmlinux");
/** What the kernel there was built from. */
const BUILT_FROM = join(CACHE, "built-from");
/** An emulated processor takes a few minutes for all of it on a quiet machine, and many times that on a busy one, ms. */
const GUEST_MS = 45 * 60_000;
const MEMORY_MIB = 1500;
/** What is shown of the console when the guest has ended without a word. */
const CONSOLE_LINES = 15;

/** A word of the kernel's command line: what has a space or a dot in it would not arrive. */
const ONLY = process.argv[2] ?? "";

const fail = (reason: string): never => {
  process.stderr.write(`kernel-vfio: ${reason}\n`);
  process.exit(1);
};
const need = (program: string, from: string): void => {
  if (spawnSync("sh", ["-c", `command -v ${program}`]).status !== 0) fail(`${program} is missing: install ${from}`);
};

/** Changes whenever something of this folder does that is in the kernel. */
const kernelSources = (): string => {
  const hash = createHash("sha256");
  const notebook = readdirSync(join(HERE, "notebook")).sort();
  for (const name of ["build.sh", "kernel.config", ...notebook.map((file) => `notebook/${file}`)])
    hash.update(`${name}\0`).update(readFileSync(join(HERE, name)));
  return hash.digest("hex");
};

/** The kernel is built once, in about four minutes on two cores; after a change to the notebook it is linked again, in one. */
const prepare = (): void => {
  need("qemu-system-x86_64", "qemu-system-x86");
  const sources = kernelSources();
  if (existsSync(KERNEL) && existsSync(BUILT_FROM) && readFileSync(BUILT_FROM, "utf8") === sources) return;
  for (const [program, from] of [
    ["gcc", "gcc"],
    ["make", "make"],
    ["bc", "bc"],
    ["apt-get", "Debian's apt; the sources come from its linux-source-6.12"],
  ] as const)
    need(program, from);
  process.stderr.write(`kernel-vfio: building a kernel in ${CACHE}\n`);
  mkdirSync(CACHE, { recursive: true });
  const built = spawnSync("sh", [join(HERE, "build.sh"), CACHE], { stdio: ["ignore", "inherit", "inherit"] });
  if (built.status !== 0 || !existsSync(KERNEL)) fail(`the kernel could not be built in ${CACHE}`);
  writeFileSync(BUILT_FROM, sources);
};

const boot = async (): Promise<number> => {
  // What the kernel does not know goes to its init: words as arguments, the rest as environment. A word with a dot would be dropped.
  const append = [
    "console=ttyS0 quiet no_timer_check panic=-1 ro root=root rootfstype=9p",
    "rootflags=trans=virtio,version=9p2000.L,msize=262144",
    `CHECKOUT=${CHECKOUT} NODE_BINARY=${process.execPath} ${ONLY === "" ? "" : `ONLY=${ONLY} `}init=/bin/sh ${join(HERE, "init")}`,
  ].join(" ");
  const guest = spawn(
    "qemu-system-x86_64",
    [
      ...[
        "-M",
        "microvm,acpi=off,pit=on,pic=on,isa-serial=on",
        "-cpu",
        "max",
        "-accel",
        "tcg",
        "-m",
        String(MEMORY_MIB),
      ],
      ...["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio"],
      ...["-kernel", KERNEL, "-append", append],
      ...["-fsdev", "local,id=root,path=/,security_model=none,readonly=on,multidevs=remap"],
      ...["-device", "virtio-9p-device,fsdev=root,mount_tag=root"],
    ],
    { stdio: ["ignore", "pipe", "inherit"] },
  );
  const ended = once(guest, "close");
  // A guest that nobody waits for would run on for ever.
  process.once("exit", () => guest.kill("SIGKILL"));
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => process.exit(1));
  let isLate = false;
  const tooLate = setTimeout(() => {
    isLate = true;
    guest.kill("SIGKILL");
  }, GUEST_MS);
  let status: number | null = null;
  const console: Array<string> = [];
  for await (const line of createInterface({ input: guest.stdout })) {
    const [, found] = /^kernel-vfio: exit status (\d+)/.exec(line) ?? [];
    if (found !== undefined) status = Number(found);
    console.push(line);
    if (console.length > CONSOLE_LINES) console.shift();
    // Its init has nobody to hand over to when it is done, and the kernel says so.
    if (!/^Kernel (panic|Offset)/.test(line)) process.stdout.write(`${line}\n`);
  }
  const [code, signal] = await ended;
  clearTimeout(tooLate);
  if (status !== null) return status;
  const how = isLate ? `was ended after ${GUEST_MS / 60_000} min` : `ended (QEMU: ${signal ?? `exit status ${code}`})`;
  return fail(`the guest ${how} before its tests did; its last words were:\n  ${console.join("\n  ")}`);
};

if (!/^[\w-]*$/.test(ONLY)) fail(`${JSON.stringify(ONLY)} is not one word`);
prepare();
process.exitCode = await boot();
