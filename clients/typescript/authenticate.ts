// Authenticates the client: turns its Authorization header into fields of a CheckRequest.
import { createPublicKey } from "node:crypto";
import { readFileSync } from "node:fs";
import { status, type ServiceError } from "@grpc/grpc-js";
import { errors, jwtVerify } from "jose";
import { verifySecret } from "./connection.js";

const { JWT_PUBLIC_KEY_FILE, JWT_ISSUER: issuer, JWT_AUDIENCE: audience } = process.env;
// Without a public key, no JWT is accepted.
const publicKey = JWT_PUBLIC_KEY_FILE ? createPublicKey(readFileSync(JWT_PUBLIC_KEY_FILE)) : undefined;
if (publicKey && !(issuer && audience)) throw new Error("JWT_PUBLIC_KEY_FILE requires JWT_ISSUER and JWT_AUDIENCE");

const basicChallenge = 'Basic realm="api"', bearerChallenge = 'Bearer realm="api"';
const invalidToken = `${bearerChallenge}, error="invalid_token"`;

/** No credentials, or wrong ones. */
export class Unauthenticated extends Error {
  /** challenge is the value of WWW-Authenticate. */
  constructor(readonly challenge: string) {
    super("unauthenticated");
  }
}

/** Rejects with Unauthenticated, or with a ServiceError if scopegate cannot verify the secret. */
export async function authenticate(header = "") {
  const [scheme = "", value = ""] = header.trim().split(/ +(.*)/);
  if (scheme.toLowerCase() === "basic") {
    // Buffer ignores characters that are not base64. scopegate rejects the wrong secret that remains.
    const [clientId, secret = ""] = Buffer.from(value, "base64").toString().split(/:(.*)/s);
    // An empty credential_id would verify a secret of any credential.
    if (!clientId) throw new Unauthenticated(basicChallenge);
    return callerOfSecret(clientId, secret, basicChallenge);
  }
  if (scheme.toLowerCase() !== "bearer") throw new Unauthenticated(`${bearerChallenge}, ${basicChallenge}`);
  // The prefix of all secrets. The secret alone identifies the client.
  if (value.startsWith("sgs_")) return callerOfSecret("", value, invalidToken);
  return callerOfJwt(value);
}

async function callerOfSecret(clientId: string, secret: string, challenge: string) {
  const response = await verifySecret(clientId, secret).catch((error: ServiceError) => {
    // The client id is not a valid id.
    if (error.code === status.INVALID_ARGUMENT) throw new Unauthenticated(challenge);
    throw error;
  });
  if (!response.verified) throw new Unauthenticated(challenge);
  return { companyId: response.companyId, credentialId: response.credentialId };
}

async function callerOfJwt(jwt: string) {
  if (!publicKey) throw new Unauthenticated(invalidToken);
  const requiredClaims = ["iat", "exp", "client_id", "company_id"];
  const options = { algorithms: ["RS256"], issuer, audience, requiredClaims };
  const { payload } = await jwtVerify(jwt, publicKey, options).catch((error) => {
    throw error instanceof errors.JOSEError ? new Unauthenticated(invalidToken) : error;
  });
  const { iat, exp, sub, scope, client_id, company_id } = payload;
  if (!iat || !exp || typeof client_id !== "string" || typeof company_id !== "string")
    throw new Unauthenticated(invalidToken);
  return {
    companyId: company_id,
    credentialId: client_id,
    token: {
      audience,
      scopes: typeof scope === "string" ? scope.split(" ").filter(Boolean) : [],
      issuedAt: new Date(iat * 1000),
      expiresAt: new Date(exp * 1000),
      // If the client acts for itself, `sub` is the client and not a user (RFC 9068).
      userId: sub === client_id ? undefined : sub,
    },
  };
}
