// The connection to scopegate. A process needs one: it carries concurrent calls, and reconnects.
import { readFileSync } from "node:fs";
import * as grpc from "@grpc/grpc-js";
import * as authorization from "./generated/scopegate/v1/authorization.js";

const { SCOPEGATE_ENDPOINT, SCOPEGATE_CA, SCOPEGATE_KEY_FILE } = process.env;
const url = new URL(SCOPEGATE_ENDPOINT ?? "http://127.0.0.1:50051");
const tls = url.protocol === "https:";
if (!tls && (url.protocol !== "http:" || SCOPEGATE_CA)) // Never send the key without TLS if TLS is configured.
  throw new Error("SCOPEGATE_ENDPOINT must begin with https://, or with http:// if SCOPEGATE_CA is not set");
// Without SCOPEGATE_CA, the channel trusts the default CAs of Node.
const credentials = tls
  ? grpc.credentials.createSsl(SCOPEGATE_CA ? readFileSync(SCOPEGATE_CA) : null)
  : grpc.credentials.createInsecure();
const address = `${url.hostname}:${url.port || (tls ? 443 : 80)}`;

const retryPolicy = { maxAttempts: 2, initialBackoff: "0.02s", maxBackoff: "0.02s", backoffMultiplier: 1,
  retryableStatusCodes: ["UNAVAILABLE"] };
const options = { "grpc.service_config": JSON.stringify({ methodConfig: [{ name: [{}], retryPolicy }] }),
  "grpc.keepalive_time_ms": 30_000, "grpc.max_reconnect_backoff_ms": 1_000 };
const metadata = new grpc.Metadata();
if (SCOPEGATE_KEY_FILE) // A key of the role `service`.
  metadata.set("authorization", `Bearer ${readFileSync(SCOPEGATE_KEY_FILE, "utf8").trim()}`);

const decisions = new authorization.AuthorizationServiceClient(address, credentials, options);
const deadline = () => ({ deadline: Date.now() + 250 }); // Milliseconds for one call, with its retry.

export function check(request: authorization.CheckRequest) {
  return new Promise<authorization.CheckResponse>((resolve, reject) =>
    decisions.check(request, metadata, deadline(), (error, response) => error ? reject(error) : resolve(response)));
}
