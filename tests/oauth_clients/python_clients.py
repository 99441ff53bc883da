"""OAuth libraries of Python against a server: arguments are its URL, the client's id and its secret."""

import os
import sys

import requests
from authlib.integrations.requests_client import OAuth2Session
from joserfc import jwt
from joserfc.jwk import KeySet
from oauthlib.oauth2 import BackendApplicationClient, InvalidClientError, InvalidScopeError
from requests.auth import HTTPBasicAuth
from requests_oauthlib import OAuth2Session as RequestsSession

url, client_id, secret = sys.argv[1:]
os.environ["OAUTHLIB_INSECURE_TRANSPORT"] = "1"
metadata = requests.get(f"{url}/.well-known/oauth-authorization-server").json()

# authlib, with both ways of proof
for method in metadata["token_endpoint_auth_methods_supported"]:
    session = OAuth2Session(client_id, secret, token_endpoint_auth_method=method)
    token = session.fetch_token(
        metadata["token_endpoint"], grant_type="client_credentials", audience="public"
    )
    assert token["scope"] == "api/read", token
    introspected = session.introspect_token(
        metadata["introspection_endpoint"], token["access_token"], "access_token"
    ).json()
    assert introspected["active"] and introspected["iss"] == metadata["issuer"], introspected
    keys = KeySet.import_key_set(requests.get(metadata["jwks_uri"]).json())
    claims = jwt.decode(token["access_token"], keys, algorithms=["ES256"]).claims
    jwt.JWTClaimsRegistry(
        iss={"essential": True, "value": metadata["issuer"]},
        aud={"essential": True, "value": "public"},
        exp={"essential": True},
    ).validate(claims)
    assert session.revoke_token(metadata["revocation_endpoint"], token["access_token"]).ok
    introspected = session.introspect_token(
        metadata["introspection_endpoint"], token["access_token"]
    ).json()
    assert introspected == {"active": False}, introspected
print("authlib: a token, its signature, introspection and revocation")

# requests-oauthlib
basic = HTTPBasicAuth(client_id, secret)


def fetch(auth=basic, scope=None):
    # The session does not send its own scope here.
    client = BackendApplicationClient(client_id=client_id, scope=scope)
    session = RequestsSession(client=client)
    return session.fetch_token(metadata["token_endpoint"], auth=auth, audience="public")


assert fetch()["scope"] == ["api/read"]
assert fetch(scope=["api/read"])["scope"] == ["api/read"]
try:
    fetch(scope=["api/read", "api/write"])
    sys.exit("a smaller scope raises nothing: docs/issuing-tokens.md says that it does")
except Warning as warning:
    assert warning.new_scope == ["api/read"], warning.new_scope
os.environ["OAUTHLIB_RELAX_TOKEN_SCOPE"] = "1"
assert fetch(scope=["api/read", "api/write"])["scope"] == ["api/read"]
for error, asked in [
    (InvalidScopeError, {"scope": ["api/write"]}),
    (InvalidClientError, {"auth": HTTPBasicAuth(client_id, "x")}),
]:
    try:
        fetch(**asked)
        sys.exit(f"no {error}")
    except error as raised:
        assert raised.description, raised
print("requests-oauthlib: a token, a smaller scope, errors")
