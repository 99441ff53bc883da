"""OAuth libraries of Python get tokens by authorization codes: arguments are the server's URL, the client's
id and its secret. The platform's page is the command that `SCOPEGATE_BINARY` names."""

import json
import os
import subprocess
import sys
from urllib.parse import parse_qs, urlsplit

import requests
from authlib.common.security import generate_token
from authlib.integrations.base_client import OAuthError
from authlib.integrations.requests_client import OAuth2Session
from authlib.oauth2.rfc6749.errors import MismatchingStateException
from oauthlib.oauth2 import AccessDeniedError, InvalidGrantError, MismatchingStateError
from requests.auth import HTTPBasicAuth
from requests_oauthlib import OAuth2Session as RequestsSession

url, client_id, secret = sys.argv[1:]
os.environ["OAUTHLIB_INSECURE_TRANSPORT"] = "1"
metadata = requests.get(f"{url}/.well-known/oauth-authorization-server").json()
authorize, endpoint = metadata["authorization_endpoint"], metadata["token_endpoint"]
REDIRECT_URI = "https://app.example.org/callback"
READ, MANAGE = "read_personal_account", "manage_personal_account"
ASKED = [READ, MANAGE]


def query(uri):
    return {name: value for name, [value] in parse_qs(urlsplit(uri).query).items()}


def page(request, *given):
    """Where the page sends the browser after the user has given these scopes."""
    asked = query(request)
    assert request.startswith(f"{authorize}?"), request
    assert (asked["response_type"], asked["code_challenge_method"]) == ("code", "S256"), asked
    assert asked["scope"].split() == ASKED, asked
    command = [os.environ["SCOPEGATE_BINARY"], "authorization-code", "create"]
    command += ["league", asked["client_id"], "ref", *given, "--output", "json"]
    command += ["--redirect-uri", asked["redirect_uri"], "--state", asked["state"]]
    command += ["--code-challenge", asked["code_challenge"]]
    redirect_to = json.loads(subprocess.check_output(command))["redirectTo"]
    assert query(redirect_to)["iss"] == metadata["issuer"], redirect_to
    return redirect_to


def is_active(token):
    form = {"token": token["access_token"]}
    auth = HTTPBasicAuth(client_id, secret)
    return requests.post(metadata["introspection_endpoint"], form, auth=auth).json()["active"]


def refused(error, call):
    try:
        call()
    except error as raised:
        return raised
    sys.exit(f"no {error}")


# authlib, with both ways of proof
for method in metadata["token_endpoint_auth_methods_supported"]:
    session = OAuth2Session(
        client_id,
        secret,
        scope=" ".join(ASKED),
        redirect_uri=REDIRECT_URI,
        code_challenge_method="S256",
        token_endpoint_auth_method=method,
    )
    verifier = generate_token(48)

    def fetch(redirect_to, state):
        return session.fetch_token(
            endpoint, authorization_response=redirect_to, code_verifier=verifier, state=state
        )

    request, state = session.create_authorization_url(authorize, code_verifier=verifier)
    redirect_to = page(request, READ)
    refused(MismatchingStateException, lambda: fetch(redirect_to, "another"))
    token = fetch(redirect_to, state)
    assert token["scope"] == READ and is_active(token), token
    again = refused(OAuthError, lambda: fetch(redirect_to, state))
    assert again.error == "invalid_grant" and not is_active(token), again
    # The library does not read `error`: for a response without a code it requests client credentials.
    denied = page(request)
    assert query(denied)["error"] == "access_denied", denied
    refused(OAuthError, lambda: fetch(denied, state))
print("authlib: a token by a code, a code that is used again, a user who refuses")

# requests-oauthlib
session = RequestsSession(client_id, redirect_uri=REDIRECT_URI, scope=ASKED, pkce="S256")
request, state = session.authorization_url(authorize)


def redeem(redirect_to):
    auth = HTTPBasicAuth(client_id, secret)
    return session.fetch_token(endpoint, authorization_response=redirect_to, auth=auth)


# The warning has the token. The code is used up.
warning = refused(Warning, lambda: redeem(page(request, READ)))
assert warning.new_scope == [READ] and is_active(warning.token), warning
os.environ["OAUTHLIB_RELAX_TOKEN_SCOPE"] = "1"
redirect_to = page(request, READ)
refused(MismatchingStateError, lambda: redeem(redirect_to.replace(state, "another")))
token = redeem(redirect_to)
assert token["scope"] == [READ] and is_active(token), token
refused(InvalidGrantError, lambda: redeem(redirect_to))
assert not is_active(token)
assert sorted(redeem(page(request, READ, MANAGE))["scope"]) == sorted(ASKED)
refused(AccessDeniedError, lambda: redeem(page(request)))
print("requests-oauthlib: a token by a code, a smaller scope, a user who refuses")
