/** The NATS subjects of godwit, all in one place: deployments derive permissions from them. Names are validated before they get here. */
export const PREFIX = "godwit";

export const subjects = {
  /** Requests to any coordinator; `verb` is an endpoint's name. */
  coordinator: (verb: string) => `${PREFIX}.coordinator.${verb}`,
  /** Requests to one replica, by its incarnation: others pass on what is about a migration that it owns. */
  owner: (incarnation: string) => `${PREFIX}.coordinator.owner.${incarnation}`,
  /** Requests to a node: what guests and capabilities it has. */
  node: (node: string, verb: string) => `${PREFIX}.node.${node}.${verb}`,
  /** Commands of a coordinator to the RAM sender and to the loader of a node. */
  source: (node: string) => `${PREFIX}.node.${node}.source`,
  destination: (node: string) => `${PREFIX}.node.${node}.destination`,
  /** How each side itself sees its migrations. */
  sourceQuery: (node: string) => `${PREFIX}.node.${node}.source.query`,
  destinationQuery: (node: string) => `${PREFIX}.node.${node}.destination.query`,
  /** Work items for one multifd worker. */
  work: (node: string, worker: string) => `${PREFIX}.node.${node}.worker.${worker}.work`,
  /** A channel's packets, and all channels of a migration. */
  channel: (migration: string, channel: number) => `${PREFIX}.m.${migration}.ch.${channel}`,
  channels: (migration: string) => `${PREFIX}.m.${migration}.ch.*`,
  /** Acknowledgements to the producer. */
  acknowledgement: (migration: string) => `${PREFIX}.m.${migration}.ack`,
  /** The source's word to the loader that the record is `switching`. */
  switching: (migration: string) => `${PREFIX}.m.${migration}.switching`,
  /** Where both sides say how they stand. */
  sourceReport: (migration: string) => `${PREFIX}.m.${migration}.report.source`,
  destinationReport: (migration: string) => `${PREFIX}.m.${migration}.report.destination`,
  /** QEMU's events, for whoever watches. */
  event: (migration: string) => `${PREFIX}.m.${migration}.event`,
} as const;
