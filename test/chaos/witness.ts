/** Hears what the actors say to each other, as it comes: by this a run knows how far its migration is, and what was sent twice. */

import {
  DestinationReport,
  decodeFileItem,
  decodePacket,
  decodeWorkItem,
  isMalformed,
  json,
  SourceReport,
} from "@godwit/protocol";
import { connect, type Msg } from "@nats-io/transport-node";

/** What tells how far a migration is. */
export type Sign =
  | { readonly _tag: "Source"; readonly report: SourceReport }
  | { readonly _tag: "Destination"; readonly report: DestinationReport }
  | { readonly _tag: "Work"; readonly migration: string; readonly round: number }
  /** A multifd worker is asked to copy pages into a checkpoint, or out of it. */
  | { readonly _tag: "File"; readonly id: string; readonly kind: "store" | "fill" }
  /** A guest runs while its pages come from a checkpoint: nobody says that on NATS, so whoever asks how it stands tells it on. */
  | { readonly _tag: "Paging"; readonly id: string };

export interface Resent {
  readonly packets: number;
  readonly bytes: number;
}

export interface Witness {
  /** Calls back within the turn in which the sign came, until the returned function is called. */
  readonly onSign: (listener: (sign: Sign) => void) => () => void;
  readonly tell: (sign: Sign) => void;
  /** Packets of the migration whose work item had been sent before in the same round, whole packets counted. */
  readonly resentOf: (migration: string) => Resent;
  readonly close: () => Promise<void>;
}

const sourceReports = json(SourceReport);
const destinationReports = json(DestinationReport);

const signOf = (message: Msg): Sign | null => {
  if (/\.work\.[^.]+$/.test(message.subject)) {
    const item = decodeWorkItem(message.data);
    return item.kind === "malformed" ? null : { _tag: "Work", migration: item.migration, round: item.round };
  }
  if (message.subject.endsWith(".file")) {
    const item = decodeFileItem(message.data);
    return item.kind === "malformed" ? null : { _tag: "File", id: item.id, kind: item.kind };
  }
  if (message.subject.endsWith(".report.source")) {
    const report = sourceReports.decode(message.data);
    return isMalformed(report) ? null : { _tag: "Source", report };
  }
  if (!message.subject.endsWith(".report.destination")) return null;
  const report = destinationReports.decode(message.data);
  return isMalformed(report) ? null : { _tag: "Destination", report };
};

export const openWitness = async (url: string): Promise<Witness> => {
  // The server is killed now and then; whoever comes back late misses the next moment.
  const nc = await connect({ servers: url, name: "witness", maxReconnectAttempts: -1, reconnectTimeWait: 50 });
  const listeners = new Set<(sign: Sign) => void>();
  const hear = (error: Error | null, message: Msg): void => {
    if (error !== null) return;
    const sign = signOf(message);
    if (sign !== null) tell(sign);
  };
  const tell = (sign: Sign): void => {
    for (const listener of listeners) listener(sign);
  };
  for (const subject of ["godwit.m.*.*.*.report.*", "godwit.node.*.worker.*.work.*", "godwit.node.*.worker.*.file"])
    nc.subscribe(subject, { callback: hear });

  const sent = new Map<string, { readonly items: Set<string>; packets: number; bytes: number }>();
  nc.subscribe("godwit.m.*.*.*.ch.*", {
    callback: (error, { data }) => {
      if (error !== null) return;
      const packet = decodePacket(data);
      if (packet.kind === "malformed") return;
      const { migration, epoch, round, item } = packet;
      let tally = sent.get(migration);
      if (tally === undefined) {
        tally = { items: new Set(), packets: 0, bytes: 0 };
        sent.set(migration, tally);
      }
      const key = `${epoch}/${round}/${item}`;
      if (tally.items.has(key)) {
        tally.packets++;
        tally.bytes += data.length;
      } else tally.items.add(key);
    },
  });
  await nc.flush();
  return {
    onSign: (listener) => {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
    tell,
    resentOf: (migration) => {
      const { packets, bytes } = sent.get(migration) ?? { packets: 0, bytes: 0 };
      sent.delete(migration);
      return { packets, bytes };
    },
    close: () => nc.close(),
  };
};
