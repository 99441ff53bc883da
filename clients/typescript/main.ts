// An API that calls a handler only if scopegate allows the request.
import express, { type NextFunction, type Request, type Response } from "express";
import { status as codes, type ServiceError } from "@grpc/grpc-js";
import { check } from "./connection.js";
import * as pb from "./generated/scopegate/v1/authorization.js";

async function guard(call: Request, reply: Response, next: NextFunction) {
  const resourceOwnerId = call.params.user?.toString();
  const authorization = call.get("authorization");
  if (authorization === undefined) {
    reply.set("WWW-Authenticate", "Bearer");
    return refuse(reply, 401, "invalid_token", "Send credentials.");
  }
  let response: pb.CheckResponse;
  try {
    const endpoint = { method: call.method, path: call.originalUrl.split("?")[0] }; // As it was sent, not decoded.
    response = await check(pb.CheckRequest.fromPartial({ authorization, endpoint, resourceOwnerId }));
  } catch (error) {
    console.warn(`scopegate: ${error}`);
    const { code, details } = error as ServiceError;
    // The client's mistake. Other errors are not.
    if (code === codes.INVALID_ARGUMENT) return refuse(reply, 400, "invalid_request", details);
    return unavailable(reply);
  }
  const { decision, reach, httpStatus, error, message, missingScopes } = response;
  if (decision === pb.Decision.DECISION_ALLOWED) {
    if (reach === pb.Reach.REACH_ALL || resourceOwnerId) return next();
    // For the user's own records, but the route names no owner.
    reply.set("WWW-Authenticate", 'Bearer error="insufficient_scope"');
    return refuse(reply, 403, "access_denied", "Only your own records.");
  }
  if (httpStatus < 400) return unavailable(reply); // Without a decision, the request is not allowed.
  const scope = error === "invalid_scope" ? `, scope="${missingScopes.join(" ")}"` : "";
  if (httpStatus === 401) reply.set("WWW-Authenticate", 'Bearer error="invalid_token"');
  if (httpStatus === 403) reply.set("WWW-Authenticate", `Bearer error="insufficient_scope"${scope}`);
  if (httpStatus === 503) reply.set("Retry-After", "1"); // scopegate cannot verify the token now.
  refuse(reply, httpStatus, error, message);
}

function unavailable(reply: Response) {
  refuse(reply.set("Retry-After", "1"), 503, "temporarily_unavailable", "Try again in a moment.");
}

function refuse(reply: Response, status: number, error: string, message: string) {
  reply.status(status).json({ error, message });
}

const app = express();
// The path parameter `user` names the owner of the record.
app.patch("/api/v2/users/:user", guard, express.json(), (call, reply) =>
  reply.json({ ...call.body, id: call.params.user }));
app.listen(Number(process.env.PORT ?? 8000), "127.0.0.1");
