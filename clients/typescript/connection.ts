// The connection to scopegate. A process needs one: it carries concurrent calls, and reconnects.
import { readFileSync } from "node:fs";
import * as grpc from "@grpc/grpc-js";
import * as authorization from "./generated/scopegate/v1/authorization.js";

const { SCOPEGATE_ENDPOINT, SCOPEGATE_CA, SCOPEGATE_KEY_FILE } = process.env;
const urls = (SCOPEGATE_ENDPOINT ?? "http://127.0.0.1:50051").split(",").map(url => new URL(url.trim()));
const tls = urls.every(url => url.protocol === "https:");
// Never send the key without TLS if TLS is configured.
if (!tls && (urls.some(url => url.protocol !== "http:") || SCOPEGATE_CA))
  throw new Error("SCOPEGATE_ENDPOINT must begin with https://, or with http:// if SCOPEGATE_CA is not set");
// Without SCOPEGATE_CA, the channel trusts the default CAs of Node.
const credentials = tls
  ? grpc.credentials.createSsl(SCOPEGATE_CA ? readFileSync(SCOPEGATE_CA) : null)
  : grpc.credentials.createInsecure();
const addresses = urls.map(url => `${url.hostname}:${url.port || (tls ? 443 : 80)}`);
// A name can have several addresses. gRPC accepts a list only of IP addresses.
const target = addresses.length > 1 ? `ipv4:${addresses.join(",")}` : `dns:///${addresses[0]}`;

const service = "scopegate.v1.AuthorizationService";
const config = {
  loadBalancingConfig: [{ round_robin: {} }], // All addresses have a connection.
  methodConfig: [{ // A check changes nothing, so it can be repeated at another address.
    name: [{ service, method: "Check" }, { service, method: "BatchCheck" }],
    retryPolicy: { maxAttempts: 3, initialBackoff: "0.01s", maxBackoff: "0.02s", backoffMultiplier: 2,
      retryableStatusCodes: ["UNAVAILABLE"] } }],
};
const options = { "grpc.service_config": JSON.stringify(config), "grpc.default_authority": addresses[0],
  "grpc.keepalive_time_ms": 30_000, "grpc.max_reconnect_backoff_ms": 1_000 };
const metadata = new grpc.Metadata();
if (SCOPEGATE_KEY_FILE) // A key of the role `service`.
  metadata.set("authorization", `Bearer ${readFileSync(SCOPEGATE_KEY_FILE, "utf8").trim()}`);

const decisions = new authorization.AuthorizationServiceClient(target, credentials, options);
const deadline = () => ({ deadline: Date.now() + 250 }); // Milliseconds for one call, with its retries.

export function check(request: authorization.CheckRequest) {
  return new Promise<authorization.CheckResponse>((resolve, reject) =>
    decisions.check(request, metadata, deadline(), (error, response) => error ? reject(error) : resolve(response)));
}
