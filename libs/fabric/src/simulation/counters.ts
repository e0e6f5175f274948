/** What has happened so far. A rare branch whose counter stays 0 over many seeds was not tested. */
export interface SimCounters {
  events: number;
  delivered: number;
  dropped: number;
  duplicated: number;
  reordered: number;
  /** Lost to a partition or a disconnection. */
  cut: number;
  crashes: number;
  pauses: number;
  lateWrites: number;
  lostAnswers: number;
  staleReads: number;
  streamsBroken: number;
}

export function noCounts(): SimCounters {
  return {
    events: 0,
    delivered: 0,
    dropped: 0,
    duplicated: 0,
    reordered: 0,
    cut: 0,
    crashes: 0,
    pauses: 0,
    lateWrites: 0,
    lostAnswers: 0,
    staleReads: 0,
    streamsBroken: 0,
  };
}
