/**
 * TLS of a direct connection, where NATS has TLS: keyed by a token's secret (TLS-PSK), which both ends got over NATS, where the
 * credentials of each were checked. So no certificate is needed, and none is believed. ECDHE makes an old secret useless: who learns it later
 * reads nothing of what he recorded. OpenSSL knows such ciphers for TLS 1.2 alone.
 */
import { constants } from "node:crypto";

/** The one of its kind that authenticates what it encrypts in one go (AEAD). */
export const LANE_CIPHER = "ECDHE-PSK-CHACHA20-POLY1305";

export const LANE_TLS = {
  ciphers: LANE_CIPHER,
  minVersion: "TLSv1.2",
  maxVersion: "TLSv1.2",
  // A ticket would let somebody in again without a token.
  secureOptions: constants.SSL_OP_NO_TICKET,
} as const;
