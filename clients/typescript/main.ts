// An API that asks scopegate before it does anything. What is no answer is no.
import express, { type NextFunction, type Request, type Response } from "express";
import * as grpc from "@grpc/grpc-js";
import * as pb from "./generated/scopegate/v1/authorization.js";

const retryPolicy = { maxAttempts: 2, initialBackoff: "0.02s", maxBackoff: "0.02s", backoffMultiplier: 1,
  retryableStatusCodes: ["UNAVAILABLE"] };
const address = process.env.SCOPEGATE_ADDRESS ?? "127.0.0.1:50051"; // Where others can listen: createSsl().
const scopegate = new pb.AuthorizationServiceClient(address, grpc.credentials.createInsecure(), { // One a process.
  "grpc.service_config": JSON.stringify({ methodConfig: [{ name: [{}], retryPolicy }] }),
  "grpc.keepalive_time_ms": 30_000, "grpc.max_reconnect_backoff_ms": 1_000 });
const key = new grpc.Metadata();
if (process.env.SCOPEGATE_KEY) key.set("authorization", `Bearer ${process.env.SCOPEGATE_KEY}`);
function guard(call: Request, reply: Response, next: NextFunction) {
  const request = pb.CheckRequest.fromPartial({ // The gateway has authenticated the client: these are its headers.
    companyId: call.get("x-company"), credentialId: call.get("x-credential"), userId: call.get("x-user"),
    endpoint: { method: call.method, path: call.originalUrl.split("?")[0] }, // As it was sent, not decoded.
    resourceOwnerId: call.params.user?.toString() });
  scopegate.check(request, key, { deadline: Date.now() + 250 }, (error, answer?: pb.CheckResponse) => {
    const allowed = answer?.decision === pb.Decision.DECISION_ALLOWED;
    if (allowed && (answer.reach === pb.Reach.REACH_ALL || request.resourceOwnerId)) return next();
    if (error) console.warn(`scopegate: ${error.message}`);
    const malformed = error?.code === grpc.status.INVALID_ARGUMENT; // The client's concern. Everything else is ours.
    const [status, word, message] = // A yes for the user's own records is none for a call that names nobody's.
      allowed ? [403, "access_denied", "You may touch your own records alone."]
      : answer && answer.httpStatus >= 400 ? [answer.httpStatus, answer.error, answer.message]
      : malformed ? [400, "invalid_request", error.details]
      : [503, "temporarily_unavailable", "Try again in a moment."];
    const kind = ({ 401: "invalid_token", 403: "insufficient_scope" } as Record<number, string>)[status];
    const scope = !allowed && answer?.missingScopes.length ? `, scope="${answer.missingScopes.join(" ")}"` : "";
    if (kind) reply.set("WWW-Authenticate", `Bearer error="${kind}"${scope}`);
    reply.status(status).json({ error: word, message });
  });
}

const app = express();
app.patch("/api/v2/users/:user", guard, express.json(), (call, reply) => // Whose it is was part of the question.
  reply.json({ ...call.body, id: call.params.user }));
app.listen(Number(process.env.PORT ?? 8000), "127.0.0.1");
