/** The certificates of TLS between actors and NATS: an authority of our own, and the servers' certificate. */
// Before x509, which needs it to be there.
import "reflect-metadata";
import { webcrypto } from "node:crypto";
import { isIP } from "node:net";
import * as x509 from "@peculiar/x509";

export interface KeyAndCertificate {
  readonly keyPem: string;
  readonly certificatePem: string;
}

const ALGORITHM = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" } as const;
const DAY_MS = 86_400_000;
/** The authority outlives what it signs; to replace it means a new file on every host. */
const AUTHORITY_DAYS = 3650;
/** What browsers once allowed at most; a server's is made anew by one command. */
const SERVER_DAYS = 825;
/** Clocks of hosts differ, ms. */
const SKEW_MS = 3_600_000;

const makeKeys = () => webcrypto.subtle.generateKey(ALGORITHM, true, ["sign", "verify"]);

const pemOfKey = async (key: webcrypto.CryptoKey): Promise<string> =>
  x509.PemConverter.encode(await webcrypto.subtle.exportKey("pkcs8", key), "PRIVATE KEY");

const importKey = (pem: string): Promise<webcrypto.CryptoKey> =>
  webcrypto.subtle.importKey("pkcs8", x509.PemConverter.decodeFirst(pem), ALGORITHM, true, ["sign"]);

const validFor = (days: number, now: number) => ({
  notBefore: new Date(now - SKEW_MS),
  notAfter: new Date(now + days * DAY_MS),
});

export const makeCertificateAuthority = async (now: number): Promise<KeyAndCertificate> => {
  const keys = await makeKeys();
  const certificate = await x509.X509CertificateGenerator.createSelfSigned(
    {
      name: "CN=godwit NATS authority",
      ...validFor(AUTHORITY_DAYS, now),
      signingAlgorithm: ALGORITHM,
      keys,
      extensions: [
        new x509.BasicConstraintsExtension(true, 0, true),
        new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
        await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
      ],
    },
    webcrypto as never,
  );
  return { keyPem: await pemOfKey(keys.privateKey), certificatePem: `${certificate.toString("pem")}\n` };
};

/** `hosts`: names and addresses by which servers are reached; a client refuses a server that it reached by another one. */
export const makeServerCertificate = async (
  authority: KeyAndCertificate,
  hosts: ReadonlyArray<string>,
  now: number,
): Promise<KeyAndCertificate> => {
  const keys = await makeKeys();
  const issuer = new x509.X509Certificate(authority.certificatePem);
  const { serverAuth, clientAuth } = x509.ExtendedKeyUsage;
  const certificate = await x509.X509CertificateGenerator.create(
    {
      subject: "CN=godwit NATS server",
      issuer: issuer.subject,
      ...validFor(SERVER_DAYS, now),
      signingAlgorithm: ALGORITHM,
      publicKey: keys.publicKey,
      signingKey: await importKey(authority.keyPem),
      extensions: [
        new x509.BasicConstraintsExtension(false, undefined, true),
        new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
        // Servers of a cluster are each other's clients.
        new x509.ExtendedKeyUsageExtension([serverAuth, clientAuth]),
        new x509.SubjectAlternativeNameExtension(
          hosts.map((value) => ({ type: isIP(value) === 0 ? ("dns" as const) : ("ip" as const), value })),
        ),
        await x509.AuthorityKeyIdentifierExtension.create(issuer.publicKey),
      ],
    },
    webcrypto as never,
  );
  return { keyPem: await pemOfKey(keys.privateKey), certificatePem: `${certificate.toString("pem")}\n` };
};
