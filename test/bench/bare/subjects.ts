/** What the processes of the bare lane talk on. */
const PREFIX = "bench";

/** Of the processes that use that client. */
export const goOf = (client: string): string => `${PREFIX}.${client}.go`;
export const dataOf = (client: string, publisher: string): string => `${PREFIX}.${client}.data.${publisher}`;
export const acknowledgementOf = (client: string, publisher: string): string => `${PREFIX}.${client}.ack.${publisher}`;
/** Everything that the publisher has is acknowledged. */
export const doneOf = (client: string, publisher: string): string => `${PREFIX}.${client}.done.${publisher}`;
/** In the place of a client: processes that have devices. */
export const DEVICES = "devices";
/** The publisher that a subject belongs to. */
export const numberOf = (subject: string): string => subject.slice(subject.lastIndexOf(".") + 1);
/** A request that is answered with a page of bytes. */
export const PAGE_REQUEST = "bench.page";
