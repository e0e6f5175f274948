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
  /** Commands and questions to the VFIO agent of a node. */
  vfio: (node: string) => `${PREFIX}.node.${node}.vfio`,
  vfioQuestion: (node: string) => `${PREFIX}.node.${node}.vfio.question`,
  /** Questions to the RAM sender: which pages a postcopy begins without. */
  missingPages: (node: string) => `${PREFIX}.node.${node}.source.missing`,
  /** How each side itself sees its migrations. */
  sourceQuery: (node: string) => `${PREFIX}.node.${node}.source.query`,
  destinationQuery: (node: string) => `${PREFIX}.node.${node}.destination.query`,
  /** Work items for one multifd worker. */
  work: (node: string, worker: string) => `${PREFIX}.node.${node}.worker.${worker}.work`,
  /** The same for pages that a guest waits for (postcopy): small requests, answered before anything else. */
  urgentWork: (node: string, worker: string) => `${PREFIX}.node.${node}.worker.${worker}.urgent`,
  /** The same for pages of a checkpoint. */
  fileWork: (node: string, worker: string) => `${PREFIX}.node.${node}.worker.${worker}.file`,
  /** What workers answer to it, by save or restore. */
  fileAnswer: (id: string) => `${PREFIX}.m.${id}.file`,
  /** A channel's packets, and all channels of a migration. */
  channel: (migration: string, channel: number) => `${PREFIX}.m.${migration}.ch.${channel}`,
  channels: (migration: string) => `${PREFIX}.m.${migration}.ch.*`,
  /** Packets with pages that a guest waits for. */
  urgent: (migration: string) => `${PREFIX}.m.${migration}.urgent`,
  /** A channel's packets of VFIO device state, which go to the VFIO agent, and those of all channels. */
  deviceChannel: (migration: string, channel: number) => `${PREFIX}.m.${migration}.dev.${channel}`,
  deviceChannels: (migration: string) => `${PREFIX}.m.${migration}.dev.*`,
  /** Acknowledgements to the producer. */
  acknowledgement: (migration: string) => `${PREFIX}.m.${migration}.ack`,
  /** The same, to the VFIO agent as the producer of device state. */
  deviceAcknowledgement: (migration: string) => `${PREFIX}.m.${migration}.dev-ack`,
  /** The source's word to the loader that the record is `switching`. */
  switching: (migration: string) => `${PREFIX}.m.${migration}.switching`,
  /** Where both sides say how they stand. */
  sourceReport: (migration: string) => `${PREFIX}.m.${migration}.report.source`,
  destinationReport: (migration: string) => `${PREFIX}.m.${migration}.report.destination`,
  /** Where the VFIO agents of both sides say how they stand. */
  saveReport: (migration: string) => `${PREFIX}.m.${migration}.report.vfio-source`,
  loadReport: (migration: string) => `${PREFIX}.m.${migration}.report.vfio-destination`,
  /** QEMU's events, for whoever watches. */
  event: (migration: string) => `${PREFIX}.m.${migration}.event`,
} as const;
