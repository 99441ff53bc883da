"""The connection to scopegate. A process needs one: it carries concurrent calls, and reconnects."""
import os
import pathlib
from urllib.parse import urlsplit
import grpc
from scopegate.v1.authorization_pb2_grpc import AuthorizationServiceStub

TIMEOUT = 0.25  # Seconds for one call, with its retry.
RETRY = """{"methodConfig": [{"name": [{}], "retryPolicy": {"maxAttempts": 2, "initialBackoff": "0.02s",
    "maxBackoff": "0.02s", "backoffMultiplier": 1, "retryableStatusCodes": ["UNAVAILABLE"]}}]}"""
OPTIONS = [
    ("grpc.service_config", RETRY), ("grpc.keepalive_time_ms", 30000), ("grpc.max_reconnect_backoff_ms", 1000)]


def channel():
    url = urlsplit(os.environ.get("SCOPEGATE_ENDPOINT", "http://127.0.0.1:50051"))
    ca = os.environ.get("SCOPEGATE_CA")
    if url.scheme == "https":  # Without SCOPEGATE_CA, the channel trusts the default CAs of gRPC.
        tls = grpc.ssl_channel_credentials(pathlib.Path(ca).read_bytes() if ca else None)
        return grpc.secure_channel(url.netloc, tls, OPTIONS)
    if url.scheme != "http" or ca:  # Never send the key without TLS if TLS is configured.
        raise SystemExit("SCOPEGATE_ENDPOINT must begin with https://, or with http:// if SCOPEGATE_CA is not set")
    return grpc.insecure_channel(url.netloc, OPTIONS)


def metadata():
    path = os.environ.get("SCOPEGATE_KEY_FILE")  # A key of the role `service`.
    return [("authorization", f"Bearer {pathlib.Path(path).read_text().strip()}")] if path else []


METADATA = metadata()
AUTHORIZATION = AuthorizationServiceStub(channel())
