/**
 * Who may say and hear what: for each role the subjects that its NATS user may publish and subscribe, and nothing else. One user
 * for each role and node, so that an actor that was taken over has its own node's migrations in hand, and in its own role only.
 *
 * Beside godwit's own subjects there are those of NATS: requests to JetStream (`$JS.API`) and writes of records (`$KV`), the discovery
 * of micro services (`$SRV`), and inboxes, in which answers arrive. Every user has inboxes of its own.
 */
import { BUCKETS, MIGRATIONS_BUCKET, OWNERSHIP_BUCKET } from "./buckets.ts";
import { ANY_ROUTE, type Route, subjects } from "./subjects.ts";

/** Roles with a user on each node: the supervisor, and the actors that it starts. */
export const NODE_ROLES = ["node", "ram-sender", "multifd-worker", "vfio-agent", "loader"] as const;
/** Roles that belong to no node. */
export const CENTRAL_ROLES = ["coordinator", "operator", "observer", "admin"] as const;
export type NodeRole = (typeof NODE_ROLES)[number];
export type CentralRole = (typeof CENTRAL_ROLES)[number];
export type Role = NodeRole | CentralRole;

/** A user of NATS. */
export type Identity =
  | { readonly role: NodeRole; readonly node: string }
  | { readonly role: CentralRole; readonly node?: undefined };

export interface Permissions {
  readonly publish: ReadonlyArray<string>;
  readonly subscribe: ReadonlyArray<string>;
  /** May answer what it is asked, wherever the answer is wanted: so many messages to each request, until so long after it. Absent: nobody asks it. */
  readonly responses?: { readonly max: number; readonly ms: number };
}

export interface PermissionOptions {
  /** Object stores in which checkpoints lie; default none. */
  readonly objectStores?: ReadonlyArray<string>;
}

/** What endpoints of coordinators are called; those that only look are `QUESTIONS`. */
export const COORDINATOR_QUESTIONS = ["query-migrate", "list", "nodes", "checkpoints"] as const;
export const COORDINATOR_VERBS = [
  ...COORDINATOR_QUESTIONS,
  ...["migrate", "cancel", "continue", "start-postcopy", "pause", "recover", "give-up", "set-parameters"],
] as const;
export const SAVE_VERBS = ["save", "query-save", "cancel-save", "list-saves"] as const;
export const RESTORE_VERBS = ["restore", "query-restore", "cancel-restore", "list-restores"] as const;
/** What a coordinator asks the actors of a node that save and restore. */
export const CHECKPOINT_LISTS = ["list-saves", "list-restores"] as const;

/** A request has one answer. */
const ANSWERS_MAX = 1;
/** The slowest handlers wait for devices and guests, for which askers wait up to 10 s; a busy host takes some times as long. */
const ANSWER_MS = 30_000;

/** A user's name: what NATS shows of it, and what a node is known by. */
export const userOf = ({ role, node }: Identity): string => (node === undefined ? role : `${role}.${node}`);

/** What all inboxes of the user begin with, and nobody else's: whoever could subscribe to another's would read its answers. */
export const inboxPrefixOf = (identity: Identity): string => `_INBOX.${userOf(identity)}`;

/** A micro service is found, and asked how it is, by its name and by its id. */
const discovered = (name: string): ReadonlyArray<string> =>
  ["PING", "INFO", "STATS"].flatMap((verb) => [`$SRV.${verb}`, `$SRV.${verb}.${name}`, `$SRV.${verb}.${name}.*`]);

/** Looks at the bucket's stream, and reads its records. JetStream cannot limit that to some of the keys. */
const readsOf = (bucket: string): ReadonlyArray<string> => [
  "$JS.API.INFO",
  `$JS.API.STREAM.INFO.KV_${bucket}`,
  `$JS.API.STREAM.MSG.GET.KV_${bucket}`,
];
const recordsOf = (bucket: string): ReadonlyArray<string> => [...readsOf(bucket), `$KV.${bucket}.*`];

/** Puts, gets, lists and removes objects. A get is a consumer that lasts as long as the object takes. */
const objectsOf = (stores: ReadonlyArray<string> = []): ReadonlyArray<string> =>
  stores.flatMap((store) => [
    "$JS.API.INFO",
    ...["STREAM.INFO", "STREAM.MSG.GET", "STREAM.PURGE"].map((verb) => `$JS.API.${verb}.OBJ_${store}`),
    `$JS.API.DIRECT.GET.OBJ_${store}.>`,
    ...["CREATE", "INFO", "DELETE"].map((verb) => `$JS.API.CONSUMER.${verb}.OBJ_${store}.>`),
    `$JS.FC.OBJ_${store}.>`,
    `$O.${store}.>`,
  ]);

const answers = { max: ANSWERS_MAX, ms: ANSWER_MS };
const allOf = (verbs: ReadonlyArray<string>, subject: (verb: string) => string): ReadonlyArray<string> =>
  verbs.map(subject);
/** Who watches others asks who is there. */
const { who } = subjects;

const ofNodeRole = (role: NodeRole, node: string, { objectStores }: PermissionOptions): Permissions => {
  const leaving: Route = { ...ANY_ROUTE, source: node };
  const arriving: Route = { ...ANY_ROUTE, destination: node };
  const here = (verb: string): string => subjects.node(node, verb);
  const itself = subjects.member(role, node, "*");
  const workers = subjects.member("multifd-worker", node, "*");
  switch (role) {
    case "node":
      return {
        // A supervisor says of each of its actors that it has exited.
        publish: [subjects.member("*", node, "*"), who, ...readsOf(OWNERSHIP_BUCKET)],
        subscribe: [here("info"), who, subjects.member("*", "*", "*"), ...discovered("godwit-node")],
        responses: answers,
      };
    case "ram-sender":
      return {
        publish: [
          ...[itself, who],
          ...[subjects.sourceReport(leaving), subjects.switching(leaving)],
          ...[subjects.work(node, "*", "*"), subjects.fileWork(node, "*")],
          ...[subjects.vfio(node), subjects.vfioQuestion(node)],
          ...recordsOf(OWNERSHIP_BUCKET),
          ...objectsOf(objectStores),
        ],
        subscribe: [
          ...[who, workers],
          ...[subjects.source(node), subjects.sourceQuery(node), subjects.missingPages(node, "*")],
          subjects.keyAgreement(node, "*"),
          ...allOf(SAVE_VERBS, here),
          ...[subjects.acknowledgement(leaving), subjects.refusal(leaving)],
          ...[subjects.destinationReport(leaving), subjects.saveReport(leaving)],
          subjects.fileAnswer(node, "*"),
          ...discovered("godwit-ram-sender"),
        ],
        responses: answers,
      };
    case "multifd-worker":
      return {
        publish: [
          itself,
          ...[subjects.channels(leaving), subjects.urgent(leaving), subjects.deviceChannels(leaving)],
          ...[subjects.refusal(leaving), subjects.deviceRefusal(leaving)],
          ...[subjects.directLane(leaving), subjects.deviceDirectLane(leaving)],
          subjects.fileAnswer(node, "*"),
        ],
        subscribe: [
          who,
          ...[subjects.work(node, "*", "*"), subjects.urgentWork(node, "*", "*"), subjects.fileWork(node, "*")],
        ],
      };
    case "vfio-agent":
      return {
        publish: [
          ...[itself, who],
          ...[subjects.saveReport(leaving), subjects.work(node, "*", "*")],
          ...[subjects.loadReport(arriving), subjects.deviceAcknowledgement(arriving)],
        ],
        subscribe: [
          ...[who, workers],
          ...[subjects.vfio(node), subjects.vfioQuestion(node)],
          ...[subjects.deviceAcknowledgement(leaving), subjects.deviceRefusal(leaving)],
          ...[subjects.deviceChannels(arriving), subjects.saveReport(arriving), subjects.deviceDirectLane(arriving)],
          ...discovered("godwit-vfio-agent"),
        ],
        responses: answers,
      };
    case "loader":
      return {
        publish: [
          ...[itself, who],
          ...[subjects.destinationReport(arriving), subjects.acknowledgement(arriving)],
          subjects.keyAgreement("*", node),
          // Pages that a guest waits for are asked for at their source, and only for this node.
          ...[subjects.work("*", "*", node), subjects.urgentWork("*", "*", node), subjects.missingPages("*", node)],
          ...[subjects.fileWork(node, "*"), subjects.vfio(node)],
          // Before a guest is restored: whether another node has it.
          subjects.coordinator("nodes"),
          ...recordsOf(OWNERSHIP_BUCKET),
          ...objectsOf(objectStores),
        ],
        subscribe: [
          ...[who, subjects.member("multifd-worker", "*", "*")],
          ...[subjects.destination(node), subjects.destinationQuery(node)],
          ...allOf(RESTORE_VERBS, here),
          ...[subjects.channels(arriving), subjects.urgent(arriving), subjects.switching(arriving)],
          ...[subjects.refusal(arriving), subjects.loadReport(arriving), subjects.directLane(arriving)],
          subjects.fileAnswer(node, "*"),
          ...discovered("godwit-loader"),
        ],
        responses: answers,
      };
  }
};

const ofCentralRole = (role: CentralRole): Permissions => {
  const members = subjects.member("*", "*", "*");
  switch (role) {
    case "coordinator":
      return {
        publish: [
          ...[subjects.member("coordinator", "*", "*"), who],
          ...[subjects.source("*"), subjects.destination("*"), subjects.node("*", "info")],
          ...allOf(CHECKPOINT_LISTS, (verb) => subjects.node("*", verb)),
          ...[subjects.owner("*"), subjects.event(ANY_ROUTE)],
          ...recordsOf(OWNERSHIP_BUCKET),
          ...recordsOf(MIGRATIONS_BUCKET),
        ],
        subscribe: [
          ...[who, members],
          ...allOf(COORDINATOR_VERBS, subjects.coordinator),
          ...[subjects.owner("*"), subjects.sourceReport(ANY_ROUTE), subjects.destinationReport(ANY_ROUTE)],
          ...discovered("godwit-coordinator"),
        ],
        responses: answers,
      };
    case "operator":
      return {
        publish: [
          ...allOf(COORDINATOR_VERBS, subjects.coordinator),
          ...allOf(["info", ...SAVE_VERBS, ...RESTORE_VERBS], (verb) => subjects.node("*", verb)),
          ...[subjects.sourceQuery("*"), subjects.destinationQuery("*"), who],
          ...["PING", "INFO", "STATS"].flatMap((verb) => [`$SRV.${verb}`, `$SRV.${verb}.>`]),
          ...BUCKETS.flatMap(({ name }) => readsOf(name)),
        ],
        subscribe: [members, subjects.event(ANY_ROUTE)],
      };
    case "observer":
      return {
        publish: [
          ...allOf(COORDINATOR_QUESTIONS, subjects.coordinator),
          ...[subjects.node("*", "info"), subjects.sourceQuery("*"), subjects.destinationQuery("*"), who],
        ],
        subscribe: [members, subjects.event(ANY_ROUTE)],
      };
    case "admin":
      // Makes, corrects and mends buckets and object stores; says nothing to any actor.
      return { publish: ["$JS.API.>", "$JS.FC.>", "$KV.>", "$O.>"], subscribe: [] };
  }
};

/** What the user of this role and node may do; its inboxes are among what it may subscribe. */
export const permissionsOf = (identity: Identity, options: PermissionOptions = {}): Permissions => {
  const { role, node } = identity;
  const own = node === undefined ? ofCentralRole(role) : ofNodeRole(role, node, options);
  return {
    ...own,
    publish: [...new Set(own.publish)],
    subscribe: [...new Set([`${inboxPrefixOf(identity)}.>`, ...own.subscribe])],
  };
};
