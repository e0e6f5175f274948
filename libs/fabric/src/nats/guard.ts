import type { Msg, MsgCallback } from "@nats-io/nats-core";

/**
 * Every callback of a subscription goes through here. It runs inside the client's parser: if it throws, the client stops reading
 * for all subscriptions of that connection, and stays "connected" until pings go unanswered.
 */
export function guarded(callback: MsgCallback<Msg>, failed: (error: unknown) => void): MsgCallback<Msg> {
  return (error, message) => {
    try {
      callback(error, message);
    } catch (thrown) {
      failed(thrown);
    }
  };
}
