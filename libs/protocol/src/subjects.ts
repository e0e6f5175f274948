/**
 * The NATS subjects of godwit, all in one place; `permissions.ts` says who may use which. Names are validated before they get here.
 *
 * A migration's subjects name both of its nodes, and a request for pages names the node that they shall go to: so what an actor may
 * say and hear can be limited to its own node by a pattern, for migrations that nobody knows yet.
 */
export const PREFIX = "godwit";

/** A migration, and the nodes that it goes from and to. */
export interface Route {
  readonly migration: string;
  readonly source: string;
  readonly destination: string;
}
/** In a subscription: every migration, between whatever nodes. */
export const ANY_ROUTE: Route = { migration: "*", source: "*", destination: "*" };

const along = ({ migration, source, destination }: Route): string =>
  `${PREFIX}.m.${migration}.${source}.${destination}`;

export const subjects = {
  /** An actor's own word that it is there, or its supervisor's that it has exited. */
  member: (role: string, node: string, id: string) => `${PREFIX}.presence.member.${role}.${node}.${id}`,
  /** A watcher has come: whoever is there says so. */
  who: `${PREFIX}.presence.who`,
  /** Requests to any coordinator; `verb` is an endpoint's name. */
  coordinator: (verb: string) => `${PREFIX}.coordinator.${verb}`,
  /** Requests to one replica, by its incarnation: others pass on what is about a migration that it owns. */
  owner: (incarnation: string) => `${PREFIX}.coordinator.owner.${incarnation}`,
  /** Requests to a node: what guests and capabilities it has. */
  node: (node: string, verb: string) => `${PREFIX}.node.${node}.${verb}`,
  /** Commands of a coordinator to the RAM sender and to the loader of a node. */
  source: (node: string) => `${PREFIX}.node.${node}.source`,
  destination: (node: string) => `${PREFIX}.node.${node}.destination`,
  /** Commands and questions to the VFIO agent of a node. */
  vfio: (node: string) => `${PREFIX}.node.${node}.vfio`,
  vfioQuestion: (node: string) => `${PREFIX}.node.${node}.vfio.question`,
  /** Questions of the destination to the RAM sender: which pages a postcopy begins without. */
  missingPages: (node: string, destination: string) => `${PREFIX}.node.${node}.source.missing.${destination}`,
  /** The destination's loader agrees with it on the key of an attempt. */
  keyAgreement: (node: string, destination: string) => `${PREFIX}.node.${node}.source.key.${destination}`,
  /** How each side itself sees its migrations. */
  sourceQuery: (node: string) => `${PREFIX}.node.${node}.source.query`,
  destinationQuery: (node: string) => `${PREFIX}.node.${node}.destination.query`,
  /** Work items for one multifd worker, whose packets go to `destination`. */
  work: (node: string, worker: string, destination: string) =>
    `${PREFIX}.node.${node}.worker.${worker}.work.${destination}`,
  /** The same for pages that a guest waits for (postcopy): small requests, answered before anything else. */
  urgentWork: (node: string, worker: string, destination: string) =>
    `${PREFIX}.node.${node}.worker.${worker}.urgent.${destination}`,
  /** The same for pages of a checkpoint, which go nowhere. */
  fileWork: (node: string, worker: string) => `${PREFIX}.node.${node}.worker.${worker}.file`,
  /** What workers answer to it, by save or restore. */
  fileAnswer: (node: string, id: string) => `${PREFIX}.node.${node}.file.${id}`,
  /** A channel's packets, and all channels of a migration. */
  channel: (route: Route, channel: number) => `${along(route)}.ch.${channel}`,
  channels: (route: Route) => `${along(route)}.ch.*`,
  /** Packets with pages that a guest waits for. */
  urgent: (route: Route) => `${along(route)}.urgent`,
  /** A channel's packets of VFIO device state, which go to the VFIO agent, and those of all channels. */
  deviceChannel: (route: Route, channel: number) => `${along(route)}.dev.${channel}`,
  deviceChannels: (route: Route) => `${along(route)}.dev.*`,
  /** A worker asks the loader, and the VFIO agent, for a connection of its own (parameter `lane`). */
  directLane: (route: Route) => `${along(route)}.direct`,
  deviceDirectLane: (route: Route) => `${along(route)}.dev-direct`,
  /** Acknowledgements of the destination to the producer. */
  acknowledgement: (route: Route) => `${along(route)}.ack`,
  /** The same, to the VFIO agent as the producer of device state. */
  deviceAcknowledgement: (route: Route) => `${along(route)}.dev-ack`,
  /** A worker's word to who asked, that it cannot read what it was asked for. Apart from acknowledgements: no worker may say those. */
  refusal: (route: Route) => `${along(route)}.refused`,
  deviceRefusal: (route: Route) => `${along(route)}.dev-refused`,
  /** The source's word to the loader that the record is `switching`. */
  switching: (route: Route) => `${along(route)}.switching`,
  /** Where both sides say how they stand. */
  sourceReport: (route: Route) => `${along(route)}.report.source`,
  destinationReport: (route: Route) => `${along(route)}.report.destination`,
  /** Where the VFIO agents of both sides say how they stand. */
  saveReport: (route: Route) => `${along(route)}.report.vfio-source`,
  loadReport: (route: Route) => `${along(route)}.report.vfio-destination`,
  /** QEMU's events, for whoever watches. */
  event: (route: Route) => `${along(route)}.event`,
} as const;
