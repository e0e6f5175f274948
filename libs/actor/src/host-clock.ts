/**
 * The monotonic clock of this host (CLOCK_MONOTONIC), microseconds. All processes of a host read the same one, so what they measure can
 * be compared; nothing sets it, so a duration is one. Trap: it says nothing beside that of another host, and stands still while a host sleeps.
 */
export const hostMicros = (): number => Number(process.hrtime.bigint() / 1000n);
