/**
 * Missing pages of a QEMU: it registers its memory for faults itself, asks for pages on its return path, and puts in place what comes as
 * RAM records (docs/devel/migration/postcopy.rst), host pages once they are whole. While the connection is broken its threads wait; what is placed meanwhile waits here.
 */
import { HostError } from "@godwit/host";
import { PAGE_BYTES, type RamBlock } from "@godwit/memory";
import * as Bitmap from "@godwit/memory/bitmap";
import type { GodwitError } from "@godwit/protocol";
import type * as Duration from "effect/Duration";
import * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";
import type { Blocktime, MissingMemory, Touch } from "../missing-memory.ts";
import { endOfStream, ramEnd } from "./incoming-stream.ts";
import * as Placements from "./placements.ts";
import type { ReturnMessage } from "./return-path.ts";
import type { StreamConnection } from "./stream-connection.ts";

/** The most that may be on its way to QEMU, bytes: twice what is asked of a source at a time. */
const ON_THEIR_WAY_BYTES_MAX = 64 * 1024 ** 2;
/** Touches that may wait to be told. Beyond them pages come in their turn only. */
const UNTOLD_MAX = 4096;
/** How long QEMU may take to say that it has all, once it has. */
const END_TIMEOUT: Duration.Input = "10 seconds";
/** Between two looks whether all pages have arrived. */
const LOOK_AGAIN: Duration.Input = "5 millis";
/** Between two tries to take the place of a broken connection. */
const REJOIN_AGAIN: Duration.Input = "500 millis";

/** A connection that has taken the place of one that broke. */
export interface Rejoined {
  readonly connection: StreamConnection;
  /** The pages of each block that QEMU has put in place. */
  readonly received: ReadonlyArray<Bitmap.Bitmap>;
}

/** What the memory needs of the conversation that it is a part of. */
export interface Line extends Pick<MissingMemory, "vcpus" | "giveUp"> {
  /** Takes the place of a connection that broke: QEMU asks again for what it waits for. Fails with `no-such-guest` once QEMU is gone. */
  readonly rejoin: (heard: (message: ReturnMessage) => void) => Effect.Effect<Rejoined, GodwitError>;
  /** Returns once QEMU itself says that nothing is missing, with how long it waited for pages, and puts its settings back. */
  readonly settle: Effect.Effect<Blocktime | null, GodwitError>;
}

export interface QemuMissingMemory extends MissingMemory {
  readonly hear: (message: ReturnMessage) => void;
  /** QEMU waits for missing pages from now on, and is told of them over `connection`. */
  readonly listensOver: (connection: StreamConnection) => void;
  /** The same where somebody else has placed pages before: those that QEMU has received are not sent again. */
  readonly goesOnOver: (rejoined: Rejoined) => void;
}

/** `blocks` with QEMU's own names for them. */
export const makeMissingMemory = Effect.fnUntraced(function* (
  blocks: ReadonlyArray<RamBlock & { readonly ramBlock: string }>,
  line: Line,
): Effect.fn.Return<QemuMissingMemory, never, Scope.Scope> {
  const placements = Placements.make(
    blocks.map(({ ramBlock, lengthBytes, hostPageBytes }) => ({
      name: ramBlock,
      pages: lengthBytes / PAGE_BYTES,
      hostPages: hostPageBytes / PAGE_BYTES,
    })),
  );
  let connection: StreamConnection | null = null;
  let told: ((touch: Touch) => void) | null = null;
  let untold: Touch[] = [];
  /** QEMU was told that nothing follows, and ends the connection itself. */
  let isEnding = false;
  let blocktime: Blocktime | null = null;
  /** Those who wait until less is on its way. */
  const patient = new Set<{ readonly leftBytesMax: number; readonly goOn: () => void }>();
  const letGoOn = (): void => {
    for (const waiter of patient) {
      if (placements.bytesOnTheirWay > waiter.leftBytesMax) continue;
      patient.delete(waiter);
      waiter.goOn();
    }
  };

  const touched = (message: Extract<ReturnMessage, { kind: "request" }>): void => {
    const block = blocks.findIndex(({ ramBlock }) => ramBlock === message.block);
    const first = Math.floor(message.offset / PAGE_BYTES);
    const end = Math.ceil((message.offset + message.length) / PAGE_BYTES);
    // Nothing else lacks pages: QEMU was sent all of its other blocks.
    if (block === -1 || end > placements.blocks[block]!.pages) return;
    for (let page = first; page < end; page += placements.blocks[block]!.hostPages) {
      const touch: Touch = { block, page, thread: 0 };
      if (told !== null) told(touch);
      else if (untold.length < UNTOLD_MAX) untold.push(touch);
    }
  };
  const hear: QemuMissingMemory["hear"] = (message) => {
    if (message.kind === "pong") {
      Placements.answered(placements, message.ping);
      letGoOn();
    }
    if (message.kind === "request") touched(message);
  };
  const say = (words: ReadonlyArray<Buffer>): void => {
    // What is not sent now is sent again with all that was lost, over the next connection.
    if (connection?.isOpen()) for (const word of words) connection.send(word);
  };
  const listensOver: QemuMissingMemory["listensOver"] = (next) => {
    connection = next;
    // Before the first connection nothing was received.
    say(
      Placements.goOn(
        placements,
        placements.blocks.map(({ pages }) => Bitmap.make(pages)),
      ),
    );
    letGoOn();
  };
  const goesOnOver: QemuMissingMemory["goesOnOver"] = (rejoined) => {
    connection = rejoined.connection;
    placements.sent.forEach((sent, block) => void Bitmap.orInto(sent, rejoined.received[block]!));
    say(Placements.goOn(placements, rejoined.received));
    letGoOn();
  };
  const placed: MissingMemory["placed"] = (leftBytesMax) =>
    Effect.callback((resume) => {
      const waiter = { leftBytesMax, goOn: () => resume(Effect.void) };
      patient.add(waiter);
      letGoOn();
      return Effect.sync(() => patient.delete(waiter));
    });
  const put = (block: number, firstPage: number, pages: number, content: Uint8Array | null): void => {
    if (placements.bytesOnTheirWay + (content?.length ?? 0) > ON_THEIR_WAY_BYTES_MAX)
      throw new HostError("write", "ENOBUFS", { detail: `more than ${ON_THEIR_WAY_BYTES_MAX} bytes wait for QEMU` });
    say(Placements.place(placements, block, firstPage, pages, content));
  };

  const touches: MissingMemory["touches"] = (tell) =>
    Effect.gen(function* () {
      told = tell;
      const before = untold;
      untold = [];
      before.forEach(tell);
      for (;;) {
        if (connection === null || isEnding) {
          yield* Effect.sleep(LOOK_AGAIN);
          continue;
        }
        yield* connection.ended;
        if (isEnding) continue;
        yield* Effect.logWarning("the connection to QEMU broke, whose threads wait for pages; it is taken up again");
        goesOnOver(yield* rejoined);
      }
    });
  const rejoined: Effect.Effect<Rejoined, GodwitError> = Effect.suspend(() => line.rejoin(hear)).pipe(
    Effect.catch((error) =>
      error.code === "no-such-guest"
        ? Effect.fail(error)
        : Effect.logWarning(`QEMU does not take a new connection yet: ${error.message}`).pipe(
            Effect.andThen(
              Effect.delay(
                Effect.suspend(() => rejoined),
                REJOIN_AGAIN,
              ),
            ),
          ),
    ),
  );

  const end = Effect.gen(function* () {
    // Nothing of it is lost when this is asked for again: what QEMU has it keeps.
    let ready: StreamConnection | null = null;
    while (ready === null) {
      if (placements.onTheirWay.length === 0 && connection?.isOpen()) ready = connection;
      else yield* Effect.sleep(LOOK_AGAIN);
    }
    isEnding = true;
    const shut = ready.awaiting("the end of the postcopy", ({ kind }) => kind === "shut", END_TIMEOUT);
    ready.send(Buffer.concat([ramEnd, endOfStream]));
    // QEMU's state decides, whatever became of its last word.
    yield* Effect.ignore(shut);
    blocktime = yield* line.settle.pipe(
      Effect.onError(() =>
        Effect.sync(() => {
          isEnding = false;
        }),
      ),
    );
  });
  return {
    vcpus: line.vcpus,
    giveUp: line.giveUp,
    touches,
    copy: (block, firstPage, bytes) => put(block, firstPage, bytes.length / PAGE_BYTES, bytes),
    zero: (block, firstPage, pages) => {
      // Nothing of a touched host page was ever written, so it is of zeros as a whole.
      const { hostPages } = placements.blocks[block]!;
      const first = firstPage - (firstPage % hostPages);
      put(block, first, Math.ceil((firstPage + pages) / hostPages) * hostPages - first, null);
    },
    placed,
    end,
    blocktime: () => blocktime,
    hear,
    listensOver,
    goesOnOver,
  };
});
