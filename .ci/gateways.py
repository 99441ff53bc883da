"""Starts scopegate, Envoy with deploy/envoy/envoy.yaml, and a stand-in for the API, and sends requests.

The file is used as it is, but for its three addresses, and with more time for a busy machine."""

import base64
import http.client
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

root = pathlib.Path(__file__).resolve().parent.parent
here = root / "deploy/envoy"
binary = os.environ["SCOPEGATE_BINARY"]
envoy = pathlib.Path(sys.executable).with_name("envoy")
scratch = pathlib.Path(tempfile.mkdtemp())
started = []
environment = {name: value for name, value in os.environ.items() if not name.startswith("SCOPEGATE_")}


def free():
    with socket.socket() as own:
        own.bind(("127.0.0.1", 0))
        return own.getsockname()[1]


def start(name, *command, **more):
    """A process, whose output is a file."""
    output = open(scratch / f"{name}.log", "wb")
    process = subprocess.Popen(command, stdout=output, stderr=output, env=environment | more)
    started.append(process)
    return process


def stop(process):
    process.send_signal(signal.SIGTERM)
    process.wait(20)


def wait_for(what, is_so):
    until = time.monotonic() + 30
    while not is_so():
        if time.monotonic() > until:
            sys.exit(f"{what}: not within 30 s")
        time.sleep(0.05)


def listens(port):
    with socket.socket() as own:
        return own.connect_ex(("127.0.0.1", port)) == 0


scopegate_port, api_port, port = free(), free(), free()
data = scratch / "data"


def scopegate(*arguments):
    done = subprocess.run(
        [binary, *arguments], env=environment | {"SCOPEGATE_ENDPOINT": f"http://127.0.0.1:{scopegate_port}",
                                                 "SCOPEGATE_KEY": operator},
        capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"scopegate {arguments}: {done.stdout}{done.stderr}")
    return done.stdout


def serve():
    served = start("scopegate", binary, "serve", "--listen", f"127.0.0.1:{scopegate_port}",
                   "--data-dir", str(data), "--catalog", str(here / "catalog.yaml"))
    health = [binary, "health", "--endpoint", f"http://127.0.0.1:{scopegate_port}"]
    wait_for("scopegate", lambda: not subprocess.run(health, env=environment, capture_output=True, check=False).returncode)
    return served


class Reply:
    def __init__(self, response):
        self.status, self.headers = response.status, response.headers
        self.body = response.read()

    def got(self):
        """What the API got."""
        return json.loads(self.body)

    def header_of_api(self, name):
        found = [value for key, value in self.got()["headers"] if key.lower() == name]
        return found[0] if len(found) == 1 else found or None


def send(method, path, headers=(), body=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.putrequest(method, path, skip_accept_encoding=True)
    for name, value in headers:
        connection.putheader(name, value)
    if body is not None:
        connection.putheader("content-length", str(len(body)))
    connection.endheaders(body)
    reply = Reply(connection.getresponse())
    connection.close()
    return reply


checked = 0


def expect(what, found, expected):
    global checked
    checked += 1
    if found != expected:
        sys.exit(f"{what}: {found!r} instead of {expected!r}")


def denied(what, reply, status, error):
    expect(what, reply.status, status)
    expect(what, reply.headers["content-type"], "application/json")
    expect(what, sorted(json.loads(reply.body)), ["error", "message"])
    expect(what, json.loads(reply.body)["error"], error)


def check(secret):
    basic = "Basic " + base64.b64encode(f"acme:{secret}".encode()).decode()
    own = [("authorization", f"Bearer {secret}")]

    # Allowed, with the identity and without the secret.
    for authorization in (f"Bearer {secret}", basic):
        reply = send("GET", "/orders?page=2", [("Authorization", authorization), ("accept", "*/*")])
        expect("allowed", reply.status, 200)
        expect("as it was sent", (reply.got()["method"], reply.got()["path"]), ("GET", "/orders?page=2"))
        expect("company", reply.header_of_api("x-scopegate-company"), "acme")
        expect("credential", reply.header_of_api("x-scopegate-credential"), "shop")
        expect("reach", reply.header_of_api("x-scopegate-reach"), "ALL")
        expect("revision", reply.header_of_api("x-scopegate-revision").isdigit(), True)
        expect("no user", reply.header_of_api("x-scopegate-user"), None)
        expect("no secret", reply.header_of_api("authorization"), None)
        expect("other headers", reply.header_of_api("accept"), "*/*")

    # Denied, with a body and a challenge.
    reply = send("POST", "/orders", own, b"{}")
    denied("a scope is missing", reply, 403, "invalid_scope")
    challenge = 'Bearer error="insufficient_scope", scope="orders:write"'
    expect("challenge", reply.headers.get_all("www-authenticate"), [challenge])
    both = 'Bearer realm="scopegate", Basic realm="scopegate", charset="UTF-8"'
    for authorization in ([], [("authorization", "")], [("authorization", "Bearer x")],
                          own + own, [("authorization", f"Bearer {secret}, Bearer {secret}")]):
        for path in ("/orders", "/nothing"):
            reply = send("GET", path, authorization)
            denied(f"not proven: {path}", reply, 401, "invalid_token")
            expect("challenge", reply.headers.get_all("www-authenticate"), [both])
    reply = send("GET", "/orders", [("sec-fetch-mode", "cors")])
    expect("a browser", reply.headers.get_all("www-authenticate"), ['Bearer realm="scopegate"'])
    denied("no such endpoint", send("GET", "/nothing", own), 404, "not_found")
    denied("an endpoint of another audience", send("GET", "/stock", own), 404, "not_found")

    # What a client says of itself does not reach the API.
    spoofed = [("x-scopegate-company", "other"), ("X-Scopegate-Company", "other"), ("X-SCOPEGATE-USER", "root"),
               ("x-scopegate-reach", "OWN"), ("x-scopegate-admin", "true"), ("x.scopegate.company", "other"),
               ("x-scopegate.user", "root"), ("X-HTTP-Method-Override", "DELETE"), ("x-http-method", "DELETE"),
               ("x-method-override", "DELETE"), ("X-Original-URL", "/admin"), ("x-rewrite-url", "/admin")]
    reply = send("GET", "/orders", own + spoofed)
    names = sorted(name.lower() for name, _ in reply.got()["headers"])
    same = ["".join(c if c.isalnum() else "-" for c in name) for name in names]
    expect("spoofed", [name for name in same if name.startswith("x-scopegate-")],
           [f"x-scopegate-{part}" for part in ("company", "credential", "reach", "revision")])
    expect("spoofed", reply.header_of_api("x-scopegate-company"), "acme")
    expect("spoofed", reply.header_of_api("x-scopegate-reach"), "ALL")
    expect("overrides", [name for name in names if "override" in name or name.endswith(("-url", "-method"))], [])

    # Refused by Envoy or by scopegate; never passed on in another form than it was judged.
    for path in ("/orders%2f1", "/orders/%2e%2e%2fadmin", "/orders%5cadmin", "/orders/%252fadmin",
                 "/orders/..%3bx/admin", "/orders/;/1", "/%6frders%00"):
        reply = send("GET", path, own)
        expect(path, reply.status in (400, 404), True)
        expect(path, b'"headers"' in reply.body, False)
    expect("underscore", send("GET", "/orders", own + [("x_scopegate_company", "other")]).status, 400)
    # Dot segments and double slashes are gone before the path is judged: both see the same one.
    for path, judged in (("/admin/../orders", "/orders"), ("/orders/./1", "/orders/1"), ("//orders", "/orders"),
                         ("/orders/%2e%2e/orders", "/orders")):
        reply = send("GET", path, own)
        expect(path, (reply.status, reply.got()["path"]), (200, judged))
    expect("dot segments", send("GET", "/orders/../admin", own).status, 404)

    # A call of gRPC is judged as one.
    grpc = [("content-type", "application/grpc"), ("te", "trailers")]
    expect("gRPC", send("POST", "/shop.Orders/List", own + grpc, b"").status, 200)
    expect("no gRPC", send("POST", "/shop.Orders/List", own, b"").status, 404)
    refused = send("POST", "/shop.Orders/List", grpc, b"")
    expect("a denial of gRPC", (refused.status, refused.headers["grpc-status"]), (200, "16"))

    # The route's scopes, the route without a check, and preflights.
    denied("route with scopes", send("GET", "/reports/1", own), 403, "invalid_scope")
    reply = send("GET", "/healthz", [("x-scopegate-company", "other"), ("x-scopegate-user", "root")])
    expect("health", (reply.status, reply.header_of_api("x-scopegate-company")), (200, None))
    expect("health", reply.header_of_api("x-scopegate-user"), None)
    preflight = [("origin", "https://app.example.org"), ("access-control-request-method", "POST")]
    reply = send("OPTIONS", "/orders", preflight)
    expect("preflight", (reply.status, reply.headers["access-control-allow-origin"]),
           (200, "https://app.example.org"))
    expect("preflight", b'"headers"' in reply.body, False)
    reply = send("OPTIONS", "/orders", [("origin", "https://evil.example.org")] + preflight[1:])
    expect("another origin", reply.headers["access-control-allow-origin"], None)

    # A restriction is in force at the next request.
    scopegate("company", "restrict", "acme", "orders:read", "--yes", "--affected", "1")
    denied("restricted", send("GET", "/orders", own), 403, "invalid_scope")


operator = subprocess.run([binary, "keys", "bootstrap", "--data-dir", str(data)], env=environment,
                          capture_output=True, text=True, check=True).stdout.strip()
try:
    server = serve()
    scopegate("company", "create", "acme")
    scopegate("credential", "create", "acme", "shop", "orders:read")
    made = json.loads(scopegate("credential", "secret", "create", "acme", "shop", "--output", "json"))
    key = json.loads(scopegate("keys", "create", "envoy", "--role", "service", "--output", "json"))
    configuration = (here / "envoy.yaml").read_text()
    for place, own_port in (("0.0.0.0, port_value: 10000", port), ("127.0.0.1, port_value: 50051", scopegate_port),
                            ("127.0.0.1, port_value: 8081", api_port)):
        if configuration.count(place) != 1:
            sys.exit(f"deploy/envoy/envoy.yaml: {place}: not there once")
        configuration = configuration.replace(place, f"127.0.0.1, port_value: {own_port}")
    (scratch / "envoy.yaml").write_text(configuration.replace("timeout: 0.25s", "timeout: 10s"))
    api = start("api", sys.executable, str(here / "upstream.py"), f"127.0.0.1:{api_port}")
    proxy = start("envoy", str(envoy), "-c", str(scratch / "envoy.yaml"), "--use-dynamic-base-id", "--concurrency", "1",
          SCOPEGATE_KEY=key["secret"])
    wait_for("the API", lambda: listens(api_port))
    wait_for("Envoy", lambda: listens(port))
    own = [("authorization", f"Bearer {made['secret']}")]
    wait_for("a first decision", lambda: send("GET", "/orders", own).status == 200)
    check(made["secret"])
    # Without scopegate nothing is passed on, and Envoy says so.
    stop(server)
    expect("closed", send("GET", "/orders", own).status, 503)
    expect("closed without a credential", send("GET", "/orders").status, 503)
    expect("health", send("GET", "/healthz").status, 200)
    serve()
    wait_for("a decision again", lambda: send("GET", "/orders", own).status == 403)
    # Its log, which is complete at its end, has the decisions and no credential.
    stop(proxy)
    log = (scratch / "envoy.log").read_text()
    for text in (made["secret"], key["secret"], operator):
        expect("the log of Envoy", text in log, False)
    expect("the log of Envoy", '"reason":"SCOPE_NOT_GRANTED"' in log and '"company":"acme"' in log, True)
    print(f"Envoy: {checked} expectations")
except BaseException:
    for name in ("scopegate", "envoy", "api"):
        path = scratch / f"{name}.log"
        if path.exists():
            sys.stderr.write(f"-- {name}\n" + "".join(path.read_text().splitlines(True)[-12:]))
    raise
finally:
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()
    shutil.rmtree(scratch, ignore_errors=True)
