/**
 * JetStream of another cluster, as it is reached through a leaf node: by the name of its domain. Servers give each domain subjects of
 * its own, on both sides of the link: `$JS.<domain>.API.>` for the API, and the same prefix in front of what a bucket or an object store
 * listens to; the plain `$KV.>` and `$OBJ.>` do not cross the link (nats-server, `generateJSMappingTable`).
 */

/** Options of nats.js for JetStream in a domain, or in none. */
export const jetStreamIn = (
  domain: string | undefined,
  timeoutMs: number,
): { readonly timeout: number; readonly domain?: string } => ({
  timeout: timeoutMs,
  ...(domain === undefined ? {} : { domain }),
});

/** Where a key's subject is published, so that the domain's stream takes it. */
export const viaDomain = (domain: string | undefined, subject: string): string =>
  domain === undefined ? subject : `$JS.${domain}.API.${subject}`;
