/** What the processes of the bare lane talk on. */
const PREFIX = "bench";

export const GO = `${PREFIX}.go`;
export const dataOf = (publisher: string): string => `${PREFIX}.data.${publisher}`;
export const acknowledgementOf = (publisher: string): string => `${PREFIX}.ack.${publisher}`;
/** The publisher that a subject belongs to. */
export const numberOf = (subject: string): string => subject.slice(subject.lastIndexOf(".") + 1);
/** A request that is answered with a page of bytes. */
export const PAGE_REQUEST = "bench.page";
