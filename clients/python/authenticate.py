"""Authenticates the client: turns its Authorization header into fields of a CheckRequest."""
import base64
import os
import pathlib
import grpc
import jwt
from connection import DIRECTORY, METADATA, TIMEOUT
from scopegate.v1 import authorization_pb2 as pb
from scopegate.v1.directory_pb2 import VerifySecretRequest

BASIC, BEARER = 'Basic realm="api"', 'Bearer realm="api"'
PUBLIC_KEY = ISSUER = AUDIENCE = None
if path := os.environ.get("JWT_PUBLIC_KEY_FILE"):  # Without a public key, no JWT is accepted.
    PUBLIC_KEY = pathlib.Path(path).read_text()
    ISSUER, AUDIENCE = os.environ["JWT_ISSUER"], os.environ["JWT_AUDIENCE"]


class Unauthenticated(Exception):
    """No credentials, or wrong ones. Its text is the value of WWW-Authenticate."""


def authenticate(header):
    """Raises Unauthenticated, or grpc.RpcError if scopegate cannot verify the secret."""
    scheme, _, value = (header or "").partition(" ")
    scheme, value = scheme.lower(), value.strip()
    if scheme == "basic":
        try:
            client_id, _, secret = base64.b64decode(value, validate=True).decode().partition(":")
        except ValueError:
            raise Unauthenticated(BASIC) from None
        if not client_id:  # An empty credential_id would verify a secret of any credential.
            raise Unauthenticated(BASIC)
        return verify_secret(client_id, secret, BASIC)
    if scheme != "bearer":
        raise Unauthenticated(f"{BEARER}, {BASIC}")
    invalid = f'{BEARER}, error="invalid_token"'
    if value.startswith("sgs_"):  # The prefix of all secrets. The secret alone identifies the client.
        return verify_secret("", value, invalid)
    return verify_jwt(value, invalid)


def verify_secret(client_id, secret, challenge):
    request = VerifySecretRequest(credential_id=client_id, secret=secret)
    try:
        response = DIRECTORY.VerifySecret(request, timeout=TIMEOUT, metadata=METADATA)
    except grpc.RpcError as error:
        if error.code() == grpc.StatusCode.INVALID_ARGUMENT:  # The client id is not a valid id.
            raise Unauthenticated(challenge) from None
        raise
    if not response.verified:
        raise Unauthenticated(challenge)
    return {"company_id": response.company_id, "credential_id": response.credential_id}


def verify_jwt(text, challenge):
    if not PUBLIC_KEY:
        raise Unauthenticated(challenge)
    try:
        claims = jwt.decode(
            text, PUBLIC_KEY, algorithms=["RS256"], issuer=ISSUER, audience=AUDIENCE,
            options={"require": ["iat", "exp", "client_id", "company_id"]})
    except jwt.InvalidTokenError:
        raise Unauthenticated(challenge) from None
    client_id, user_id = claims["client_id"], claims.get("sub")
    # If the client acts for itself, `sub` is the client and not a user (RFC 9068).
    token = pb.Token(
        audience=AUDIENCE, scopes=claims.get("scope", "").split(), user_id=user_id if user_id != client_id else None)
    token.issued_at.FromSeconds(int(claims["iat"]))
    token.expires_at.FromSeconds(int(claims["exp"]))
    return {"company_id": claims["company_id"], "credential_id": client_id, "token": token}
