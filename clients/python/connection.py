"""The connection to scopegate. A process needs one: it carries concurrent calls, and reconnects."""
import json
import os
import pathlib
from urllib.parse import urlsplit
import grpc
from scopegate.v1.authorization_pb2_grpc import AuthorizationServiceStub

TIMEOUT = 0.25  # Seconds for one call, with its retries.
SERVICE = "scopegate.v1.AuthorizationService"
CONFIG = json.dumps({
    # All addresses have a connection. A server that is not serving gets no calls.
    "loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": ""},
    "methodConfig": [{  # A check changes nothing, so it can be repeated at another address.
        "name": [{"service": SERVICE, "method": "Check"}, {"service": SERVICE, "method": "BatchCheck"}],
        "retryPolicy": {"maxAttempts": 3, "initialBackoff": "0.01s", "maxBackoff": "0.02s", "backoffMultiplier": 2,
                        "retryableStatusCodes": ["UNAVAILABLE"]}}]})
OPTIONS = [
    ("grpc.service_config", CONFIG), ("grpc.keepalive_time_ms", 30000), ("grpc.max_reconnect_backoff_ms", 1000)]


def channel():
    endpoint = os.environ.get("SCOPEGATE_ENDPOINT", "http://127.0.0.1:50051").strip()
    if endpoint.startswith("unix:") and "," not in endpoint and "SCOPEGATE_CA" not in os.environ:
        # A Unix socket, which has no TLS. By default gRPC sends the path as :authority, which HTTP/2 servers refuse.
        return grpc.insecure_channel(endpoint, [*OPTIONS, ("grpc.default_authority", "localhost")])
    urls = [urlsplit(url.strip()) for url in endpoint.split(",")]
    schemes, addresses = {url.scheme for url in urls}, ",".join(url.netloc for url in urls)
    # A name can have several addresses. gRPC accepts a list only of IP addresses.
    target = f"ipv4:{addresses}" if len(urls) > 1 else f"dns:///{addresses}"
    options = [*OPTIONS, ("grpc.default_authority", urls[0].netloc)]
    ca = os.environ.get("SCOPEGATE_CA")
    if schemes == {"https"}:  # Without SCOPEGATE_CA, the channel trusts the default CAs of gRPC.
        tls = grpc.ssl_channel_credentials(pathlib.Path(ca).read_bytes() if ca else None)
        return grpc.secure_channel(target, tls, options)
    if schemes != {"http"} or ca:  # Never send the key without TLS if TLS is configured.
        raise SystemExit("SCOPEGATE_ENDPOINT must begin with https://, or with http:// if SCOPEGATE_CA is not set")
    return grpc.insecure_channel(target, options)


def metadata():
    path = os.environ.get("SCOPEGATE_KEY_FILE")  # A key of the role `service`.
    return [("authorization", f"Bearer {pathlib.Path(path).read_text().strip()}")] if path else []


METADATA = metadata()
AUTHORIZATION = AuthorizationServiceStub(channel())
