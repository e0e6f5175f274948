/** What only the admin of nats-server can set, in its own file's words. */
export const NATS_SERVER_CONFIGURATION = `# nats-server.conf, on every server; restart it afterwards
jetstream {
  store_dir: "/var/lib/nats"  # yours: a disk of its own
  # What is acknowledged is on the disk: else a power cut could undo who runs a guest (the default writes every 2 minutes).
  sync_interval: always
}
# Lets in only the users that godwit credentials makes, over TLS; it makes this file, too.
# include "godwit-auth.conf"
# A connection that is dead, or too slow to take what is sent to it, is noticed within seconds.
ping_interval: "2s"
write_deadline: "5s"
# Lets \`godwit doctor --nats-monitor http://127.0.0.1:8222\` read sync_interval back.
http: "127.0.0.1:8222"
`;
