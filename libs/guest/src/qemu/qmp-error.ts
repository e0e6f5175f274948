import * as Schema from "effect/Schema";

/**
 * A monitor conversation failed.
 *
 * - `absent`: nothing listens on the socket: the guest ended, or never ran
 * - `unreachable`: the socket cannot be used from here, for lack of permission as a rule
 * - `busy`: the connection was taken, but no greeting came: a monitor serves one client at a time, and somebody else is it
 * - `closed`: QEMU ended the connection, which it does when it ends itself
 * - `garbage`: what came is not QMP; the connection was dropped
 * - `timeout`: a command got no answer in time; it may still be executed
 * - `refused`: QEMU answered with an error; `errorClass` is QEMU's own ("GenericError", "CommandNotFound", ...)
 */
export class QmpError extends Schema.TaggedError<QmpError>()("QmpError", {
  kind: Schema.Literals(["absent", "unreachable", "busy", "closed", "garbage", "timeout", "refused"]),
  socket: Schema.String,
  operation: Schema.String,
  reason: Schema.String,
  errorClass: Schema.optionalKey(Schema.String),
}) {
  override get message(): string {
    return `QMP ${this.socket}: ${this.operation}: ${this.reason}`;
  }
}
