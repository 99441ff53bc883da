"""Wire: the bodies that are sent, and the replies that must come back; those of gRPC encoded by hand."""

import base64
import json

COMPANY, CREDENTIAL, SCOPE = "demo", "hr-sync", "users:write"
SERVICE = "scopegate.v1.AuthorizationService"
BATCH = 100


def varint(number):
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes(encoded + bytes([number]))


def nested(field, content):
    """A string or message field."""
    content = content.encode() if isinstance(content, str) else content
    return varint(field << 3 | 2) + varint(len(content)) + content


def number(field, value):
    return varint(field << 3) + varint(value)


def framed(message):
    """A gRPC message: not compressed, its length, itself."""
    return b"\0" + len(message).to_bytes(4, "big") + message


CHECK = nested(1, COMPANY) + nested(2, CREDENTIAL) + nested(3, SCOPE)

# DECISION_ALLOWED, REASON_ALLOWED, REACH_ALL, HTTP status 200; a revision follows.
ALLOWED = number(1, 1) + number(2, 1) + number(4, 1) + number(5, 200)


class Call:
    """A call to measure: its path, its body, and what makes a reply the right one."""

    headers = ("content-type: application/grpc", "te: trailers")
    # What nghttp shows of a call that was answered.
    success = b"grpc-status: 0"

    def __init__(self, method, request, answers, name=None):
        self.path, self.name = f"/{SERVICE}/{method}", name or method
        self.body = framed(request)
        self.answers = answers

    def fault(self, reply):
        """What is wrong with this reply, a frame and its message; None if nothing is."""
        message = reply[5:]
        if len(reply) < 5 or int.from_bytes(reply[1:5], "big") != len(message):
            return "the reply is not one whole message"
        if reply.count(ALLOWED) != self.answers:
            return f"{reply.count(ALLOWED)} of {self.answers} decisions are allowed"
        return None


class EnvoyCall(Call):
    """The same check, as Envoy asks it about a request of a browser or of an API client."""

    # What Envoy passes on of a request, with what it adds.
    SENT = {
        ":authority": "api.example.org", ":method": "POST", ":path": "/api/v2/users?notify=1", ":scheme": "https",
        "accept": "application/json", "accept-encoding": "gzip, br", "content-length": "412",
        "content-type": "application/json", "user-agent": "hr-sync/4.2 (python-requests/2.32)",
        "x-envoy-external-address": "203.0.113.7", "x-forwarded-for": "203.0.113.7", "x-forwarded-proto": "https",
        "x-request-id": "6f1c0a52-9d5e-4a6b-8f0e-2c4d1b3a7e90",
    }

    def __init__(self):
        super().__init__("Check", b"", 1, "EnvoyCheck")
        self.path = "/envoy.service.auth.v3.Authorization/Check"
        entry = lambda key, value: nested(1, key) + nested(2, value)
        http = nested(1, "7208214391") + nested(2, "POST") + nested(4, self.SENT[":path"])
        http += b"".join(nested(3, entry(*header)) for header in self.SENT.items())
        http += nested(5, "api.example.org") + nested(6, "https") + number(9, 412) + nested(10, "HTTP/2")
        settings = {"company_id": COMPANY, "credential_id": CREDENTIAL, "scopes": SCOPE}
        settings = b"".join(nested(10, entry(*setting)) for setting in settings.items())
        self.body = framed(nested(1, nested(4, nested(2, http)) + settings))

    def fault(self, reply):
        """What is wrong with this reply; None if nothing is."""
        # The status of an allow is an empty message, and its changes follow.
        is_allowed = reply[5:8] == b"\x0a\x00\x1a" and b"x-scopegate-company" in reply
        return None if is_allowed else "it is not allowed"


class TokenRequest:
    """A request for an access token by the client credentials grant (RFC 6749 section 4.4). The client
    proves itself by HTTP Basic."""

    path, name, success = "/oauth2/token", "Token", b":status: 200"

    def __init__(self, secret):
        basic = base64.b64encode(f"{COMPANY}:{secret}".encode()).decode()
        form = "content-type: application/x-www-form-urlencoded"
        self.headers = (form, f"authorization: Basic {basic}")
        self.body = b"grant_type=client_credentials"

    def fault(self, reply):
        """What is wrong with this reply, a JSON object; None if nothing is."""
        token = json.loads(reply)
        has_parts = token["access_token"].count(".") == 2
        return None if has_parts and token["scope"] else "it has no token with scopes"


def with_token(request, token, name, answers=1):
    """A check with this access token."""
    return Call("Check", request + nested(10, token), answers, name)


CALLS = {
    "Check": Call("Check", CHECK, 1),
    "EnvoyCheck": EnvoyCall(),
    "BatchCheck": Call("BatchCheck", nested(1, CHECK) * BATCH, BATCH),
}
