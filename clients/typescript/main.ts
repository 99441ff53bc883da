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
    if (answer?.decision === pb.Decision.DECISION_ALLOWED) { // Whose records alone may be touched, if not all:
      reply.locals.only = answer.reach === pb.Reach.REACH_ALL ? undefined : request.userId;
      return next();
    }
    const malformed = error?.code === grpc.status.INVALID_ARGUMENT; // The client's concern. Everything else is ours.
    const status = answer && answer.httpStatus >= 400 ? answer.httpStatus : malformed ? 400 : 503;
    const word = ({ 401: "invalid_token", 403: "insufficient_scope" } as Record<number, string>)[status];
    if (word) reply.set("WWW-Authenticate", `Bearer error="${word}", scope="${answer?.missingScopes.join(" ")}"`);
    const fallback = malformed ? "invalid_request" : "unavailable";
    reply.status(status).json({ error: answer?.error || fallback, message: answer?.message ?? "" });
  });
}

const app = express();
app.get("/api/v2/users", guard, (_, reply) =>
  reply.json(["7", "8"].filter((user) => [undefined, user].includes(reply.locals.only))));
app.patch("/api/v2/users/:user", guard, express.json(), (call, reply) => // Whose it is was part of the question.
  reply.json({ ...call.body, id: call.params.user }));
app.listen(Number(process.env.PORT ?? 8000), "127.0.0.1");
