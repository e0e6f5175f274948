import { type Member, type PresenceEvent, SILENT_MS } from "./fabric.ts";

/** Members a table knows, dead ones included; what comes on top is not entered. Thousands of hosts with tens of actors fit. */
const MEMBERS_MAX = 16_384;

interface Entry {
  member: Member;
  /** When this incarnation began, ms since 1970 by its own clock: of two incarnations the later one counts. */
  startedAtMs: number;
  heardAtMs: number;
  state: "up" | "silent" | "exited";
  /** The incarnation that the reader believes to be up; null: the reader believes it down, or has not heard of it. */
  reported: Member | null;
  /** Why `reported` went down, once it has. */
  why: "silent" | "exited";
}

const keyOf = (member: Member): string => `${member.role}.${member.node}.${member.id}`;

/**
 * Who is there, as one watcher sees it: no clock, no network. What is heard goes in; `changes` tells the difference to what it
 * told before. It needs no queue, so a slow reader costs nothing and misses no final state.
 *
 * An incarnation that has exited, or was followed by a later one, does not come back, whatever of its beats is still under way.
 */
export class PresenceTable {
  readonly #entries = new Map<string, Entry>();
  readonly #changed = new Set<Entry>();

  /** Heard from `member`; returns whether something has changed. `nowMs` is the watcher's own monotonic clock. */
  beat(member: Member, startedAtMs: number, nowMs: number): boolean {
    const entry = this.#entries.get(keyOf(member));
    if (entry === undefined) return this.#enter(member, startedAtMs, nowMs, "up");
    if (entry.member.incarnation !== member.incarnation) {
      if (startedAtMs < entry.startedAtMs) return false;
      if (entry.state === "up") entry.why = "exited";
      entry.member = member;
      entry.startedAtMs = startedAtMs;
      entry.heardAtMs = nowMs;
      return this.#become(entry, "up");
    }
    if (entry.state === "exited") return false;
    entry.heardAtMs = nowMs;
    return entry.state === "silent" ? this.#become(entry, "up") : false;
  }

  /** `member` said goodbye, or its supervisor has seen it exit. */
  exited(member: Member, startedAtMs: number, nowMs: number): boolean {
    const entry = this.#entries.get(keyOf(member));
    // Entered although it is gone: its last beats may still be under way.
    if (entry === undefined) return this.#enter(member, startedAtMs, nowMs, "exited");
    if (entry.member.incarnation !== member.incarnation || entry.state === "exited") return false;
    entry.why = "exited";
    return this.#become(entry, "exited");
  }

  /**
   * Everything that was under way at `asOfMs` has been entered: whoever was silent until then for SILENT_MS is gone. Silence
   * from before `hearingSinceMs` does not count: the watcher could not hear.
   */
  judge(asOfMs: number, hearingSinceMs: number): boolean {
    let changed = false;
    for (const entry of this.#entries.values()) {
      if (entry.state !== "up" || asOfMs - Math.max(entry.heardAtMs, hearingSinceMs) <= SILENT_MS) continue;
      entry.why = "silent";
      changed = this.#become(entry, "silent") || changed;
    }
    return changed;
  }

  /** Changes since the last call: a member that was replaced is first down, then up. */
  changes(): ReadonlyArray<PresenceEvent> {
    const events: Array<PresenceEvent> = [];
    for (const entry of this.#changed) {
      const { reported, member } = entry;
      const up = entry.state === "up";
      if (reported !== null && !(up && reported.incarnation === member.incarnation)) {
        events.push({ _tag: "Down", member: reported, why: entry.why });
        entry.reported = null;
      }
      if (up && entry.reported === null) {
        events.push({ _tag: "Up", member });
        entry.reported = member;
      }
    }
    this.#changed.clear();
    return events;
  }

  #enter(member: Member, startedAtMs: number, nowMs: number, state: "up" | "exited"): boolean {
    if (this.#entries.size >= MEMBERS_MAX && !this.#forgetOneThatIsGone()) return false;
    const entry: Entry = { member, startedAtMs, heardAtMs: nowMs, state, reported: null, why: "exited" };
    this.#entries.set(keyOf(member), entry);
    if (state === "up") this.#changed.add(entry);
    return state === "up";
  }

  #become(entry: Entry, state: Entry["state"]): boolean {
    entry.state = state;
    this.#changed.add(entry);
    return true;
  }

  #forgetOneThatIsGone(): boolean {
    for (const [key, entry] of this.#entries) {
      if (entry.state === "up" || entry.reported !== null) continue;
      this.#changed.delete(entry);
      return this.#entries.delete(key);
    }
    return false;
  }
}
