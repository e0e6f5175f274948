/** What nats-server.conf includes, so that only godwit's users come in, over TLS. */
import { join } from "node:path";
import type { Trust } from "./authority.ts";

export const INCLUDED_FILE = "godwit-auth.conf";
/** By this clients know the servers; it lies in every part of the folder that goes to them. */
export const CERTIFICATE_AUTHORITY = "ca.pem";
export const SERVER_KEY_FILE = "server-key.pem";
export const SERVER_CERTIFICATE_FILE = "server.pem";

/** `directory`: where the three files lie on the servers. */
export const serverConfigurationOf = (
  { operatorJwt, systemAccount, systemJwt, account, accountJwt }: Trust,
  directory: string,
): string => `# Made by \`godwit credentials\`: nats-server.conf, beside it, says \`include "${INCLUDED_FILE}"\`.
# JWTs are public; whoever may write here decides who comes in.
operator: "${operatorJwt}"
system_account: "${systemAccount}"
resolver: MEMORY
resolver_preload: {
  ${account}: "${accountJwt}"
  ${systemAccount}: "${systemJwt}"
}
tls {
  cert_file: ${JSON.stringify(join(directory, SERVER_CERTIFICATE_FILE))}
  key_file: ${JSON.stringify(join(directory, SERVER_KEY_FILE))}
  timeout: 5
}
`;
