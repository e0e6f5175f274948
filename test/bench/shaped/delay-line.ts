/**
 * `fork`ed with two names and a delay, ms: a wire between two TUN devices of those names that holds each packet for so long. For
 * kernels without netem. Tells its parent when the devices are there; the parent puts each into a namespace and lets it have a rate.
 *
 * Each way has a thread that reads and one that writes, since either waits in the kernel. Packets come and go as the kernel has them:
 * up to 64 KiB of one connection at once, so that a fast link costs a few thousand system calls a second and no more.
 */
import { openSync, readSync, writeSync } from "node:fs";
import { isMainThread, Worker, workerData } from "node:worker_threads";
import { errnoOf, ioctl } from "@godwit/host";
import { makeRing, type PacketRing, put, take } from "./packet-ring.ts";

/** Packets under way in one direction. At 1 Gbit/s and 1 ms two large ones are; small ones are a hundred at most. */
const SLOTS = 256;

/** include/uapi/linux/if_tun.h */
const TUNSETIFF = 0x400454ca;
const TUNSETOFFLOAD = 0x400454d0;
const IFF_TUN = 0x0001;
const IFF_NO_PI = 0x1000;
const IFF_VNET_HDR = 0x4000;
const TUN_F_CSUM = 1n;
const TUN_F_TSO4 = 2n;
/** struct ifreq: a name of 16 bytes, then the flags. */
const IFREQ_BYTES = 40;
const IFREQ_FLAGS = 16;

interface Task {
  readonly fd: number;
  readonly ring: PacketRing;
  readonly delayMs: number;
  readonly role: "reads" | "writes";
}

const openTun = (name: string): number => {
  const fd = openSync("/dev/net/tun", "r+");
  const request = new Uint8Array(IFREQ_BYTES);
  request.set(new TextEncoder().encode(name));
  new DataView(request.buffer).setUint16(IFREQ_FLAGS, IFF_TUN | IFF_NO_PI | IFF_VNET_HDR, true);
  ioctl({ fd, name: "TUNSETIFF", request: TUNSETIFF, argument: request });
  ioctl({ fd, name: "TUNSETOFFLOAD", request: TUNSETOFFLOAD, argument: TUN_F_CSUM | TUN_F_TSO4 });
  return fd;
};

/** One clock for all threads, ms. */
const now = (): number => Number(process.hrtime.bigint()) / 1e6;

const read = ({ fd, ring, delayMs }: Task): never => {
  for (;;)
    put(ring, (room) => {
      const length = readSync(fd, room);
      return { length, dueMs: now() + delayMs };
    });
};

const write = ({ fd, ring }: Task): never => {
  const nobody = new Int32Array(new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT));
  for (;;)
    take(ring, (packet, dueMs) => {
      for (let left = dueMs - now(); left > 0; left = dueMs - now()) Atomics.wait(nobody, 0, 0, left);
      try {
        writeSync(fd, packet);
      } catch (error) {
        // Its device is not up (yet, or any more): what is sent there is lost, as on any wire.
        if (errnoOf(error) !== "EIO") throw error;
      }
    });
};

if (isMainThread) {
  const [one = "", other = "", delay = ""] = process.argv.slice(2);
  const fds = [openTun(one), openTun(other)] as const;
  for (const [from, to] of [fds, [fds[1], fds[0]] as const]) {
    const ring = makeRing(SLOTS);
    const start = (task: Omit<Task, "ring" | "delayMs">): void => {
      const worker = new Worker(new URL(import.meta.url), {
        workerData: { ...task, ring, delayMs: Number(delay) } satisfies Task,
      });
      worker.once("error", (error) => {
        throw error;
      });
    };
    start({ fd: from, role: "reads" });
    start({ fd: to, role: "writes" });
  }
  // Threads that wait in the kernel cannot be asked to end.
  process.once("disconnect", () => process.kill(process.pid, "SIGKILL"));
  process.send?.("ready");
} else {
  const task = workerData as Task;
  if (task.role === "reads") read(task);
  else write(task);
}
