import { PROTOCOL, parseVersion, subjects, versionText } from "@godwit/protocol";
import { HEARTBEAT_MS, type Member, SILENT_MS } from "./fabric.ts";
import { PresenceTable } from "./presence-table.ts";
import { isToken } from "./subject.ts";

/*
 * Presence is made of three kinds of messages on the control plane:
 *
 *   godwit.presence.member.<role>.<node>.<id>   beat   "I am there" (every HEARTBEAT_MS, and when somebody asks)
 *                                               exited "I leave", or a supervisor's "it has exited"
 *   godwit.presence.who                         a watcher has come: whoever is there beats now
 *
 * Silence counts only as far as the watcher could have heard something: it is judged when a round trip to the server completes,
 * as of the time that trip began. Beats that reached the server before have then arrived. So neither a watcher whose process was
 * stopped for a while nor one without a link takes the others for dead.
 */

/** How often a watcher judges silence, ms: a death is noticed SILENT_MS plus this after the last beat, at the latest. */
const JUDGE_MS = 100;
/**
 * A tick or a round trip late by more than this, ms, means that the machine or the server stood still, and perhaps everybody
 * with it: silence is counted anew. Half of SILENT_MS, so that a merely busy watcher still notices.
 */
const STANDSTILL_MS = SILENT_MS / 2;
/** A beat has about 100 bytes; anything much larger is not one. */
const BEAT_BYTES_MAX = 512;

/** The part of a fabric that presence needs. Callbacks must not throw. */
export interface PresenceWire {
  readonly publish: (subject: string, data: Uint8Array) => boolean;
  readonly subscribe: (subject: string, receive: (subject: string, data: Uint8Array) => void) => () => void;
  /** Calls back with true when everything the server had for us at the call has arrived, with false when the link broke. */
  readonly roundTrip: (settled: (arrived: boolean) => void) => void;
  readonly every: (ms: number, tick: () => void) => () => void;
  /** Monotonic, ms. */
  readonly now: () => number;
  /** ms since 1970. */
  readonly wallClock: () => number;
}

interface Beat {
  readonly state: "up" | "exited";
  readonly incarnation: string;
  readonly startedAtMs: number;
  /** The version of the protocol that the member speaks. Presence itself is the same in all of them: builds that refuse each other can say so. */
  readonly protocol?: string;
}

const subjectOf = ({ role, node, id }: Member): string => subjects.member(role, node, id);
const encode = (beat: Beat): Uint8Array => new TextEncoder().encode(JSON.stringify(beat));

/** Undefined when the member can be announced, else what is wrong with it. */
export function invalidMember(member: Member): string | undefined {
  const bad = (["role", "node", "id", "incarnation"] as const).find((field) => !isToken(member[field]));
  return bad === undefined ? undefined : `${bad} ${JSON.stringify(member[bad])} is not 1 to 64 of A-Z a-z 0-9 _ -`;
}

/** Beats until the returned function is called, which says goodbye. */
export function announceMember(wire: PresenceWire, member: Member): () => void {
  const subject = subjectOf(member);
  const { incarnation } = member;
  const startedAtMs = wire.wallClock();
  const up = encode({ state: "up", incarnation, startedAtMs, protocol: versionText(PROTOCOL) });
  const beat = () => wire.publish(subject, up);
  const unsubscribe = wire.subscribe(subjects.who, beat);
  const stop = wire.every(HEARTBEAT_MS, beat);
  beat();
  return () => {
    stop();
    unsubscribe();
    wire.publish(subject, encode({ state: "exited", incarnation, startedAtMs }));
  };
}

/** The word of a supervisor. It does not know when the process began, and need not: the incarnation says which it is. */
export function publishExited(wire: PresenceWire, member: Member): void {
  wire.publish(subjectOf(member), encode({ state: "exited", incarnation: member.incarnation, startedAtMs: 0 }));
}

/** Fills the returned table until `close`; `changed` is called when it has changes to tell. */
export function watchMembers(
  wire: PresenceWire,
  filter: { readonly role?: string; readonly node?: string },
  changed: () => void,
  malformed: () => void,
): { readonly table: PresenceTable; readonly ask: () => void; readonly close: () => void } {
  const table = new PresenceTable();
  const report = (different: boolean) => {
    if (different) changed();
  };
  const unsubscribe = wire.subscribe(subjects.member(filter.role ?? "*", filter.node ?? "*", "*"), (subject, data) => {
    const heard = parse(subject, data);
    if (heard === undefined) malformed();
    else if (heard.beat.state === "up") report(table.beat(heard.member, heard.beat.startedAtMs, wire.now()));
    else report(table.exited(heard.member, heard.beat.startedAtMs, wire.now()));
  });
  let tripping = false;
  let closed = false;
  let hearingSinceMs = wire.now();
  let tickedAtMs = wire.now();
  const stop = wire.every(JUDGE_MS, () => {
    const beganAtMs = wire.now();
    if (beganAtMs - tickedAtMs > STANDSTILL_MS) hearingSinceMs = beganAtMs;
    tickedAtMs = beganAtMs;
    if (tripping) return;
    tripping = true;
    wire.roundTrip((arrived) => {
      tripping = false;
      if (closed) return;
      if (arrived && wire.now() - beganAtMs <= STANDSTILL_MS) report(table.judge(beganAtMs, hearingSinceMs));
      else hearingSinceMs = wire.now();
    });
  });
  return {
    table,
    ask: () => {
      wire.publish(subjects.who, new Uint8Array(0));
    },
    close: () => {
      closed = true;
      stop();
      unsubscribe();
    },
  };
}

/** Undefined: not a beat. Never throws, whatever arrives. */
function parse(subject: string, data: Uint8Array): { readonly member: Member; readonly beat: Beat } | undefined {
  if (data.length > BEAT_BYTES_MAX) return undefined;
  const [role, node, id] = subject.split(".").slice(-3);
  let beat: Partial<Beat> | null;
  try {
    beat = JSON.parse(new TextDecoder().decode(data));
  } catch {
    return undefined; // Not JSON: counted by the caller.
  }
  const { state, incarnation, startedAtMs, protocol } = beat ?? {};
  if (state !== "up" && state !== "exited") return undefined;
  if (typeof incarnation !== "string" || typeof startedAtMs !== "number") return undefined;
  const member: Member = {
    role: role ?? "",
    node: node ?? "",
    id: id ?? "",
    incarnation,
    ...(protocol === undefined || parseVersion(protocol) === null ? {} : { protocol }),
  };
  if (invalidMember(member) !== undefined) return undefined;
  return { member, beat: { state, incarnation, startedAtMs } };
}
