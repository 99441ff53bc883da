"""Issuer: an issuer of access tokens, whose key is in the catalog, so no server of keys is needed."""

import base64
import json
import pathlib
import subprocess
import time

import wire
from servers import Fault

NAME, AUDIENCE = "https://id.example.org/", "https://api.example.org/"
# The length of the text of a token, which is a usual one.
TOKEN_BYTES = 900


def encode(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def openssl(*words, given=None):
    done = subprocess.run(["openssl", *words], input=given, capture_output=True)
    if done.returncode:
        raise Fault(f"openssl {words[0]} failed: {done.stderr.decode()[-200:]}")
    return done.stdout


class Issuer:
    """A new ES256 key, and the tokens that it signs."""

    def __init__(self, scratch):
        self.key, self.catalog = f"{scratch}/issuer.pem", pathlib.Path(scratch, "catalog.yaml")
        curve = "ec_paramgen_curve:P-256"
        openssl("genpkey", "-algorithm", "EC", "-pkeyopt", curve, "-out", self.key)

    def public_key(self):
        # The end of the encoding is the point: a byte for its form, x, and y.
        point = openssl("pkey", "-in", self.key, "-pubout", "-outform", "DER")[-64:]
        return {"kty": "EC", "crv": "P-256", "kid": "1", "x": encode(point[:32]), "y": encode(point[32:])}

    def apply(self, binary, server, catalog):
        """Adds this issuer to a catalog, which has no audiences, and applies it."""
        entry = {
            "jwks": {"keys": [self.public_key()]}, "algorithms": ["ES256"], "audiences": [AUDIENCE],
            "company": {"claim": "tid"}, "companies": [wire.COMPANY],
        }  # fmt: skip
        self.catalog.write_text(f"{catalog}\nissuers: {json.dumps({NAME: entry})}\n")
        apply = [binary, "catalog", "apply", self.catalog, "--yes", "--endpoint", server.url]
        done = subprocess.run(apply, capture_output=True, text=True)
        if done.returncode:
            raise Fault(f"the catalog was not applied: {done.stderr.strip()}")

    def token(self):
        """An access token of the credential that is checked."""
        now = int(time.time())
        claims = {
            "iss": NAME, "aud": AUDIENCE, "iat": now, "exp": now + 86_400, "jti": "7f2c9a", "tid": wire.COMPANY,
            "client_id": wire.CREDENTIAL, "sub": wire.CREDENTIAL, "scope": wire.SCOPE, "filler": "",
        }  # fmt: skip
        head = encode(json.dumps({"alg": "ES256", "typ": "at+jwt", "kid": "1"}).encode())
        missing = TOKEN_BYTES - len(head) - 88 - len(encode(json.dumps(claims).encode()))
        claims["filler"] = "x" * (missing * 3 // 4)
        signed = f"{head}.{encode(json.dumps(claims).encode())}"
        der = openssl("dgst", "-sha256", "-sign", self.key, given=signed.encode())
        return f"{signed}.{encode(fixed(der))}"


def fixed(der):
    """The two numbers of an ECDSA signature in DER, 32 bytes each."""
    first, second = der[4 : 4 + der[3]], der[6 + der[3] :]
    return b"".join(int.from_bytes(number, "big").to_bytes(32, "big") for number in (first, second))


def forged(token):
    """The token with another signature, which is well formed."""
    signed, _, signature = token.rpartition(".")
    return f"{signed}.{'B' if signature[0] == 'A' else 'A'}{signature[1:]}"
