/**
 * Who may say and hear what, written down by hand: by what each actor is there for, not by what its credentials say. A line names a
 * family of subjects, one of them for each of the ways and nodes that are tried, who may publish it, and who may subscribe it.
 */
import { type Route, subjects } from "@godwit/protocol";

/** `role`: of whatever node; `role@source`, `role@destination`, `role@here`: of the node that the subject names as that. */
type Who = ReadonlyArray<string>;

export interface Subject {
  readonly subject: string;
  readonly publish: Who;
  readonly subscribe: Who;
  /** What `@source`, `@destination` and `@here` mean in it. */
  readonly nodes: Readonly<Record<string, string>>;
}

const MIGRATION = "00000000000000aa";
const ROUTES: ReadonlyArray<Route> = [
  ["a", "b"],
  ["b", "a"],
  ["a", "c"],
  ["c", "b"],
  ["c", "d"],
].map(([source = "", destination = ""]) => ({ migration: MIGRATION, source, destination }));
const NODES = ["a", "b", "c"];
const NOBODY: Who = [];
const EVERYBODY: Who = [
  ...["coordinator", "operator", "observer", "node", "ram-sender", "multifd-worker", "vfio-agent", "loader"],
];
const ACTORS: Who = ["coordinator", "node", "ram-sender", "multifd-worker", "vfio-agent", "loader"];

/** Who looks at everybody there is. */
const WATCHERS: Who = ["coordinator", "node", "operator", "observer"];

type Line = readonly [publish: Who, subscribe: Who];
type RouteFamily = {
  [K in keyof typeof subjects]: (typeof subjects)[K] extends (route: Route) => string ? K : never;
}[keyof typeof subjects];

const OF_MIGRATIONS: Readonly<Record<RouteFamily, Line>> = {
  channels: [["multifd-worker@source"], ["loader@destination"]],
  urgent: [["multifd-worker@source"], ["loader@destination"]],
  deviceChannels: [["multifd-worker@source"], ["vfio-agent@destination"]],
  directLane: [["multifd-worker@source"], ["loader@destination"]],
  deviceDirectLane: [["multifd-worker@source"], ["vfio-agent@destination"]],
  acknowledgement: [["loader@destination"], ["ram-sender@source"]],
  deviceAcknowledgement: [["vfio-agent@destination"], ["vfio-agent@source"]],
  refusal: [["multifd-worker@source"], ["ram-sender@source", "loader@destination"]],
  deviceRefusal: [["multifd-worker@source"], ["vfio-agent@source"]],
  switching: [["ram-sender@source"], ["loader@destination"]],
  sourceReport: [["ram-sender@source"], ["coordinator"]],
  destinationReport: [["loader@destination"], ["coordinator", "ram-sender@source"]],
  saveReport: [["vfio-agent@source"], ["ram-sender@source", "vfio-agent@destination"]],
  loadReport: [["vfio-agent@destination"], ["loader@destination"]],
  event: [["coordinator"], ["operator", "observer"]],
};

const CHANGES = ["migrate", "cancel", "continue", "start-postcopy", "pause", "recover", "give-up", "set-parameters"];
const QUESTIONS = ["query-migrate", "list", "checkpoints"];
const SAVES = ["save", "query-save", "cancel-save"];
const RESTORES = ["restore", "query-restore", "cancel-restore"];

const ofRoutes: ReadonlyArray<Subject> = ROUTES.flatMap((route) => {
  const nodes = { source: route.source, destination: route.destination };
  const one = (subject: string, [publish, subscribe]: Line): Subject => ({ subject, publish, subscribe, nodes });
  return [
    ...Object.entries(OF_MIGRATIONS).map(([family, line]) => one(subjects[family as RouteFamily](route), line)),
    one(subjects.channel(route, 7), OF_MIGRATIONS.channels),
    one(subjects.deviceChannel(route, 7), OF_MIGRATIONS.deviceChannels),
    one(subjects.work(route.source, "0", route.destination), [
      ["ram-sender@source", "vfio-agent@source", "loader@destination"],
      ["multifd-worker@source"],
    ]),
    one(subjects.urgentWork(route.source, "0", route.destination), [["loader@destination"], ["multifd-worker@source"]]),
    one(subjects.missingPages(route.source, route.destination), [["loader@destination"], ["ram-sender@source"]]),
    one(subjects.keyAgreement(route.source, route.destination), [["loader@destination"], ["ram-sender@source"]]),
  ];
});

const ofNodes: ReadonlyArray<Subject> = NODES.flatMap((node) => {
  const one = (subject: string, publish: Who, subscribe: Who): Subject => ({
    ...{ subject, publish, subscribe },
    nodes: { here: node },
  });
  const verb = (name: string) => subjects.node(node, name);
  return [
    one(subjects.source(node), ["coordinator"], ["ram-sender@here"]),
    one(subjects.destination(node), ["coordinator"], ["loader@here"]),
    one(subjects.vfio(node), ["ram-sender@here", "loader@here"], ["vfio-agent@here"]),
    one(subjects.vfioQuestion(node), ["ram-sender@here"], ["vfio-agent@here"]),
    one(subjects.sourceQuery(node), ["operator", "observer"], ["ram-sender@here"]),
    one(subjects.destinationQuery(node), ["operator", "observer"], ["loader@here"]),
    one(subjects.fileWork(node, "0"), ["ram-sender@here", "loader@here"], ["multifd-worker@here"]),
    one(subjects.fileAnswer(node, MIGRATION), ["multifd-worker@here"], ["ram-sender@here", "loader@here"]),
    one(verb("info"), ["coordinator", "operator", "observer"], ["node@here"]),
    ...SAVES.map((name) => one(verb(name), ["operator"], ["ram-sender@here"])),
    ...RESTORES.map((name) => one(verb(name), ["operator"], ["loader@here"])),
    one(verb("list-saves"), ["coordinator", "operator"], ["ram-sender@here"]),
    one(verb("list-restores"), ["coordinator", "operator"], ["loader@here"]),
    ...["node", "ram-sender", "vfio-agent", "loader"].map((role) =>
      one(subjects.member(role, node, "0"), [...new Set([`${role}@here`, "node@here"])], WATCHERS),
    ),
    one(
      subjects.member("multifd-worker", node, "0"),
      ["multifd-worker@here", "node@here"],
      [...WATCHERS, "ram-sender@here", "vfio-agent@here", "loader"],
    ),
    one(subjects.member("coordinator", node, "0"), ["coordinator", "node@here"], WATCHERS),
  ];
});

const central = (subject: string, publish: Who, subscribe: Who): Subject => ({
  subject,
  publish,
  subscribe,
  nodes: {},
});
const READERS = ["coordinator", "operator", "admin", "node", "ram-sender", "loader"];
const OWNERS = ["coordinator", "admin", "ram-sender", "loader"];

const ofAll: ReadonlyArray<Subject> = [
  ...CHANGES.map((verb) => central(subjects.coordinator(verb), ["operator"], ["coordinator"])),
  ...QUESTIONS.map((verb) => central(subjects.coordinator(verb), ["operator", "observer"], ["coordinator"])),
  central(subjects.coordinator("nodes"), ["operator", "observer", "loader"], ["coordinator"]),
  central(subjects.owner(MIGRATION), ["coordinator"], ["coordinator"]),
  central(
    subjects.who,
    EVERYBODY.filter((role) => role !== "multifd-worker"),
    ACTORS,
  ),
  // JetStream: the records, and everything that could take one away.
  central("$KV.godwit_ownership.vm1", OWNERS, NOBODY),
  central("$KV.godwit_migrations.x", ["coordinator", "admin"], NOBODY),
  central("$JS.API.STREAM.INFO.KV_godwit_ownership", READERS, NOBODY),
  central("$JS.API.STREAM.MSG.GET.KV_godwit_ownership", READERS, NOBODY),
  central("$JS.API.STREAM.INFO.KV_godwit_migrations", ["coordinator", "operator", "admin"], NOBODY),
  central("$JS.API.STREAM.MSG.GET.KV_godwit_migrations", ["coordinator", "operator", "admin"], NOBODY),
  ...["KV_godwit_ownership", "KV_godwit_migrations", "OBJ_checkpoints"].flatMap((stream) =>
    [
      ...["STREAM.CREATE", "STREAM.UPDATE", "STREAM.DELETE", "STREAM.PURGE", "STREAM.MSG.DELETE", "STREAM.SNAPSHOT"],
      ...["STREAM.RESTORE", "STREAM.LEADER.STEPDOWN", "STREAM.PEER.REMOVE", "CONSUMER.CREATE", "DIRECT.GET"],
    ].map((verb) => central(`$JS.API.${verb}.${stream}`, ["admin"], NOBODY)),
  ),
  central("$O.checkpoints.C.1", ["admin"], NOBODY),
  central("$JS.API.STREAM.CREATE.other", ["admin"], NOBODY),
  central("$JS.API.META.LEADER.STEPDOWN", ["admin"], NOBODY),
  // Everybody's words at once, other accounts' and the servers' own.
  ...[">", "*", "godwit.>", "godwit.m.>", "godwit.node.>", "godwit.node.*.source", "godwit.coordinator.*", "$KV.>"].map(
    (subject) => central(subject, NOBODY, NOBODY),
  ),
  ...["$SYS.REQ.SERVER.PING", "$SYS.ACCOUNT.x.CONNECT", "_INBOX.x", "something.else"].map((subject) =>
    central(subject, NOBODY, NOBODY),
  ),
];

/** Families of subjects.ts that stand in a line above, so that a new one cannot be forgotten. */
export const FAMILIES: ReadonlySet<string> = new Set([
  ...Object.keys(OF_MIGRATIONS),
  ...[
    "channel",
    "deviceChannel",
    "work",
    "urgentWork",
    "missingPages",
    "keyAgreement",
    "source",
    "destination",
    "vfio",
    "vfioQuestion",
  ],
  ...["sourceQuery", "destinationQuery", "fileWork", "fileAnswer", "node", "member", "coordinator", "owner", "who"],
]);

export const SUBJECTS: ReadonlyArray<Subject> = [...ofRoutes, ...ofNodes, ...ofAll];

/** Whether a user of this role and node may, by what was written above. */
export const may = (who: Who, { nodes }: Subject, role: string, node: string | undefined): boolean =>
  who.some((entry) => {
    const [wanted, place] = entry.split("@");
    return wanted === role && (place === undefined || nodes[place] === node);
  });
