import * as Schema from "effect/Schema";

/**
 * Every failure an operator can meet, by its stable code. Callers test codes, never texts; a code is never renamed.
 * The value is the remedy: what the operator does next.
 */
export const REMEDIES = {
  // what was asked
  "unknown-parameter": "use one of the names `godwit migrate --help` lists",
  "invalid-parameter": "give a value in the named range",
  "unknown-capability": "use one of the names `godwit migrate --help` lists",
  "capability-conflict": "switch one of the two capabilities off",
  "invalid-request": "check the message against the protocol version of both sides",
  "no-such-guest": "`godwit guests` lists the guests that nodes have",
  "no-such-node": "`godwit nodes` lists the nodes that are up",
  "node-silent": "look at the log of the node named, and ask again once it answers",
  "no-such-migration": "`godwit status` lists the migrations that are known",
  "migration-in-progress": "wait for it, or `godwit cancel` it",
  "not-the-owner": "ask again: another coordinator owns the migration, or is just taking it over",
  "wrong-state": "`godwit status` shows the state; the command fits another one",
  // the ground it runs on
  "nats-unreachable": "check --nats/GODWIT_NATS, and that nats-server runs there",
  "nats-too-old": "upgrade nats-server to 2.10.23 or later (2.12.3 or later is better)",
  "nats-no-jetstream":
    "start nats-server with JetStream enabled (-js), or name the domain that has it (`--js-domain`, GODWIT_JS_DOMAIN)",
  "js-domain-unreachable":
    "look at the leaf node's link (nats-server's log, `nats server report leafnodes`), and at the domain's name in the other cluster's jetstream block",
  "nats-denied":
    "give this process the credentials of its role (--creds/GODWIT_CREDS; `godwit credentials` makes them, docs/credentials.md says how)",
  "nats-untrusted":
    "name the authority of the servers' certificate by --tlsca/GODWIT_TLS_CA, or renew it (`godwit credentials server`)",
  "credentials-exist": "choose another folder or name, or `godwit credentials revoke` what is there",
  "no-credentials": "look at the folder's name; `godwit credentials init` makes one",
  "nats-cluster-too-small": "let three or five servers with JetStream run, or one without a cluster",
  "bucket-missing":
    "run `godwit setup-nats`; if the bucket was there before, find out first where each guest runs: its records are gone",
  "bucket-unsafe": "run `godwit setup-nats`: it corrects what can be changed, and says what to do about the rest",
  "not-supported": "`godwit doctor` shows what this host offers",
  "no-space": "free space on the file system named, or give the guest a smaller memory",
  // agreement of both sides
  "no-identity":
    "give this actor the credentials file of its role and node (--creds, GODWIT_CREDS), or switch `encryption` off",
  "encryption-required":
    "ask for it with `--capability encryption`, or start the node that is named without --require-encryption",
  "not-identified":
    "give both nodes credentials that one account has issued, each for its own role and node; look for a stranger on the NATS subjects",
  incompatible: "make both sides agree on what is listed, or start the destination like the source",
  "guest-exists": "stop the guest of that name at the destination, or choose another node",
  "guest-not-movable": "start the guest as the message says",
  "version-mismatch":
    "upgrade what speaks the older version: coordinators and nodes of one protocol version work together (docs/versions.md)",
  // what went wrong on the way
  "guest-failed": "look at the guest's own log",
  "guest-shutdown": "none needed: the guest was shut down while it was moved; start it to move it",
  "tracker-failed": "choose another dirty tracker; `godwit doctor` shows which this host offers",
  "source-lost": "look at the log of the source's RAM sender; the guest keeps running at the source",
  "destination-lost": "look at the log of the destination loader; the guest keeps running at the source",
  "coordinator-lost": "start a coordinator (`godwit coordinator`), and ask for the migration again",
  "workers-lost": "start multifd workers on the source host (`godwit node` does)",
  "memory-unreadable": "look at what the reason names, and at the log of the source's multifd workers",
  "bad-packet": "a packet broke the protocol; look for a stranger on the NATS subjects or a mix of versions",
  "device-state-failed": "look at the guest's own log, at the side that is named",
  "vfio-agent-lost": "start the VFIO agent of the node named (`godwit node` does); the migration tries again by itself",
  "device-failed": "look at the device and at its driver's log, at the side that is named",
  "device-over-budget": "raise `downtime-limit`, or move the guest when the device is less busy",
  "switchover-ack-missing":
    "look at the named devices at the destination, raise the deadline, or switch `switchover-ack` off",
  "bad-checkpoint": "do not restore from this file; save the guest anew, or choose another checkpoint",
  "checkpoint-failed": "look at what the reason names: the file system of the checkpoint, or the node's log",
  "no-such-checkpoint": "look at the id that `godwit save` or `godwit restore` printed",
  "switchover-deadline": "raise `switchover-deadline`, or look for what kept the switchover waiting",
  "migration-deadline": "raise `migration-deadline`, the bandwidth or `downtime-limit`",
  "pass-limit": "raise `max-passes`, the bandwidth or `downtime-limit`",
  stalled: "raise the bandwidth or `downtime-limit`, or slow the guest down",
  cancelled: "none needed: it was asked for",
  fenced: "none needed: a newer attempt or another actor holds the guest",
  "ownership-unknown": "wait until the ownership record can be reached; the guest stays stopped until then",
  "postcopy-source-lost":
    "the guest is lost, as it would be with its host: restore it from a checkpoint, or start it anew",
  "postcopy-given-up": "none needed: it was asked for; restore the guest from a checkpoint, or start it anew",
  "verification-failed": "do not trust the destination's copy; report this with both logs",
  internal: "report this with the log",
} as const;

export type ErrorCode = keyof typeof REMEDIES;

const codes = Object.keys(REMEDIES) as [ErrorCode, ...ErrorCode[]];

/** One thing the two sides do not agree on (R9). */
export const Difference = Schema.Struct({ what: Schema.String, mine: Schema.String, yours: Schema.String });
export type Difference = typeof Difference.Type;

/**
 * What every godwit service and command fails with. It crosses NATS as JSON and comes back as itself.
 *
 * - `actor`: who met it (`coordinator`, `ram-sender`, `multifd-worker`, `loader`, `node`, `cli`)
 * - `side`: where that actor acts for
 * - `step`: what it was doing, in a few words ("open the tracker")
 * - `reason`: what was wrong, with the offending value
 */
export class GodwitError extends Schema.TaggedError<GodwitError>()("GodwitError", {
  code: Schema.Literals(codes),
  actor: Schema.String,
  side: Schema.optionalKey(Schema.Literals(["source", "destination"])),
  step: Schema.String,
  reason: Schema.String,
  differences: Schema.optionalKey(Schema.Array(Difference)),
}) {
  override get message(): string {
    const list = (this.differences ?? []).map((d) => `\n  ${d.what}: mine ${d.mine}, yours ${d.yours}`).join("");
    return `${this.code}: ${this.reason}${list} (${this.actor}, ${this.step}); ${this.remedy}`;
  }
  get remedy(): string {
    return REMEDIES[this.code];
  }
}
