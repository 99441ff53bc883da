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
    "BatchCheck": Call("BatchCheck", nested(1, CHECK) * BATCH, BATCH),
}
