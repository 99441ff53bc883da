"""Tries the guarded endpoints of clients/: each is copied, installed and run by the commands of its
README, beside a server, and asked over HTTP what a client would ask."""

import concurrent.futures
import http.client
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

root = pathlib.Path(__file__).resolve().parent.parent
scratch = root / "target/examples"
builds = [root / "target/release/scopegate", root / "target/debug/scopegate"]
binary = os.environ.get("SCOPEGATE_BIN") or os.environ.get("SCOPEGATE_BINARY")
binary = binary or next((str(build) for build in builds if build.exists()), str(builds[0]))
SOURCES = {"python": ["main.py"], "typescript": ["main.ts"], "go": ["guard.go", "main.go", "refuse.go"]}
# Roles, which the demo's catalog has none of.
ROLES = """
roles:
  admin:  { scopes: { "users:read": all, "users:write": all } }
  member: { scopes: { "users:read": own, "users:write": own } }
"""
# A server that answers as none should, by the credential that is asked about.
ODD = """
import sys, time, grpc
from concurrent.futures import ThreadPoolExecutor
from scopegate.v1 import authorization_pb2 as pb, authorization_pb2_grpc as stubs
class Odd(stubs.AuthorizationServiceServicer):
    seen = 0
    def Check(self, request, context):
        self.seen += 1
        if request.credential_id == "slow":
            time.sleep(2)
        if request.credential_id == "busy" or request.credential_id == "once" and self.seen % 2:
            context.abort(grpc.StatusCode.UNAVAILABLE, "busy")
        decision = {"empty": 0, "odd": 9}.get(request.credential_id, pb.DECISION_ALLOWED)
        return pb.CheckResponse(decision=decision, http_status=200 if decision else 0)
server = grpc.server(ThreadPoolExecutor(9))
stubs.add_AuthorizationServiceServicer_to_server(Odd(), server)
server.add_insecure_port(sys.argv[1])
server.start()
server.wait_for_termination()
"""
started = []


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(command, folder, env, log):
    with open(scratch / log, "a") as out:
        process = subprocess.Popen(
            ["bash", "-c", command], cwd=folder, env=env,
            stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    started.append(process)
    return process


def end(process):
    # The group: what it started itself ends too.
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def until(what, seconds, test):
    deadline = time.monotonic() + seconds
    while not test():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} took more than {seconds} s")
        time.sleep(0.05)


class Server:
    """A demo, whose catalog also has roles."""

    def __init__(self, name, keys):
        self.name, self.port, self.key = name, free_port(), None
        self.data = tempfile.mkdtemp()
        self.serve()
        catalog = pathlib.Path(self.data).with_suffix(".yaml")
        catalog.write_text((root / "catalogs/360learning.yaml").read_text() + ROLES)
        self.say("catalog", "apply", str(catalog), "--yes")
        self.say("user", "put", "demo", "boss", "admin")
        self.say("user", "put", "demo", "7", "member")
        if keys:
            made = self.say("keys", "create", "operator", "--role", "operator")
            operator = re.search(r"^secret +(\S+)", made, re.M)[1]
            made = self.say("keys", "create", "example", "--role", "service", key=operator)
            self.key = re.search(r"^secret +(\S+)", made, re.M)[1]

    def say(self, *words, key=None, right=True):
        env = {"PATH": os.environ["PATH"], "HOME": self.data, "NO_COLOR": "1"}
        env |= {"SCOPEGATE_ENDPOINT": f"http://127.0.0.1:{self.port}"} | ({"SCOPEGATE_KEY": key} if key else {})
        done = subprocess.run([binary, *words], env=env, capture_output=True, text=True)
        if right and done.returncode:
            raise AssertionError(f"{words}: {done.stderr}")
        return done.stdout if right else done.returncode == 0

    def serve(self):
        options = f"--demo --listen 127.0.0.1:{self.port} --data-dir {self.data}/store"
        env = {"PATH": os.environ["PATH"], "NO_COLOR": "1"}
        self.process = start(f"exec {binary} serve {options}", self.data, env, f"{self.name}.log")
        until("the server", 20, lambda: self.say("health", right=False))

    def kill(self):
        end(self.process)


def blocks(name):
    return re.findall(r"^```sh\n(.*?)^```$", (root / "clients" / name / "README.md").read_text(), re.M | re.S)


def folder_of(name):
    # Go finds what has no module of its own by where it lies.
    return scratch / "src/guarded" if name == "go" else scratch / "clients" / name


def environment(name):
    env = {key: text for key, text in os.environ.items() if not key.startswith("SCOPEGATE_")}
    if name == "go":
        env |= {"GO111MODULE": "off", "GOPATH": f"{scratch}:/usr/share/gocode", "CGO_ENABLED": "0"}
        env |= {"GOCACHE": str(scratch / "cache"), "GOFLAGS": "", "GRPC_GO_RETRY": "on"}
    return env


def readme_shows_python():
    """Paragraph by paragraph as it is."""
    section = (root / "README.md").read_text().split("\n## Guard an endpoint\n")[1].split("\n## ")[0]
    source = (root / "clients/python/main.py").read_text()
    for paragraph in re.search(r"^```python\n(.*?)^```$", section, re.M | re.S)[1].split("\n\n"):
        assert paragraph.strip() in source, f"the README shows, and main.py has not:\n{paragraph}"


def install(name):
    """By the README's first commands, in a copy."""
    for source in SOURCES[name]:
        length = len((root / "clients" / name / source).read_text().splitlines())
        assert length < 40, f"clients/{name}/{source} has {length} lines"
    began, folder = time.monotonic(), folder_of(name)
    # What git would have there: no stub that lies about beside it.
    files = ["ls-files", "--cached", "--others", "--exclude-standard", f"clients/{name}"]
    for file in subprocess.check_output(["git", *files], cwd=root, text=True).split():
        target = folder / pathlib.Path(file).relative_to(f"clients/{name}")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / file, target)
    command = blocks(name)[0] + ("go build -o guarded . && go vet ." if name == "go" else "")
    done = subprocess.run(
        ["bash", "-euc", command], cwd=folder, env=environment(name),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert done.returncode == 0, f"{name}: {done.stdout}"
    print(f"{name}: installed and generated in {time.monotonic() - began:.0f} s", flush=True)


class Example:
    """A running example."""

    def __init__(self, name, port, key):
        self.name, self.port = name, free_port()
        env = environment(name) | {"PORT": str(self.port), "SCOPEGATE_ADDRESS": f"127.0.0.1:{port}"}
        env |= {"SCOPEGATE_KEY": key} if key else {}
        self.process = start(blocks(name)[1], folder_of(name), env, f"{name}.log")

    def __enter__(self):
        def listens():
            assert self.process.poll() is None, f"{self.name} ended: see target/examples/{self.name}.log"
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.port)) == 0

        until(self.name, 60, listens)
        return self

    def __exit__(self, *_):
        end(self.process)

    def ask(self, method="PATCH", path="/api/v2/users/7", credential="hr-sync", user=None):
        headers = {"x-company": "demo", "content-type": "application/json"}
        headers |= {"x-credential": credential} if credential else {}
        headers |= {"x-user": user} if user else {}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        body = '{"name": "Ada", "id": "9"}' if method == "PATCH" else None
        connection.request(method, path, body, headers)
        reply = connection.getresponse()
        return reply.status, reply.headers["www-authenticate"], json.loads(reply.read())

    def expect(self, status, error=None, challenge=None, **call):
        got = self.ask(**call)
        place = f"{self.name} {call}: {got}"
        assert got[0] == status and got[1] == challenge, place
        if error is None:
            assert got[2] == {"id": call.get("path", "/7").rsplit("/")[-1], "name": "Ada"}, place
            return
        assert set(got[2]) == {"error", "message"} and got[2]["error"] == error, place
        # What is no answer has nothing to say.
        assert bool(got[2]["message"]) == (status in (401, 403, 404)), place


def story(name, server):
    lacks = 'Bearer error="insufficient_scope", scope="users:write"'
    unknown = 'Bearer error="invalid_token", scope="users:write"'
    with Example(name, server.port, server.key) as example:
        example.expect(200)
        example.expect(403, "invalid_scope", lacks, credential="analytics")
        example.expect(401, "invalid_client", unknown, credential="nobody")
        example.expect(401, "invalid_token", unknown, user="nobody")
        # Malformed: no credential, and a path that servers read in different ways.
        example.expect(400, "invalid_request", credential=None)
        example.expect(400, "invalid_request", path="/api/v2/users/;7")
        # A member reaches their own record only, an admin everybody's.
        example.expect(200, user="7")
        example.expect(403, "access_denied", lacks, path="/api/v2/users/8", user="7")
        example.expect(200, path="/api/v2/users/8", user="boss")
        if name != "go":
            assert example.ask("GET", "/api/v2/users") == (200, None, ["7", "8"])
            assert example.ask("GET", "/api/v2/users", user="7") == (200, None, ["7"])
        server.kill()
        example.expect(503, "unavailable")
        server.serve()
        # It comes back by itself, within seconds.
        until(f"{name} to be there again", 10, lambda: example.ask()[0] == 200)
    if server.key:
        with Example(name, server.port, None) as example:
            example.expect(503, "unavailable")


def odd_story(names):
    port = free_port()
    python = [str(scratch / "clients/python/.venv/bin/python"), "-c", ODD, f"127.0.0.1:{port}"]
    odd = subprocess.Popen(python, cwd=scratch / "clients/python", start_new_session=True)
    started.append(odd)
    for name in names:
        with Example(name, port, None) as example:
            until("the odd server", 20, lambda: example.ask(credential="fine")[0] == 200)
            for credential in ["empty", "odd", "busy", "slow"]:
                began = time.monotonic()
                example.expect(503, "unavailable", credential=credential)
                assert time.monotonic() - began < 1.5, f"{name}: no deadline"
            for _ in range(4):
                example.expect(200, credential="once")
        print(f"{name}: no answer is no, and a second try is made", flush=True)


def main():
    names = sys.argv[1:] or list(SOURCES)
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    (scratch / "proto").symlink_to(root / "proto")
    began = time.monotonic()
    readme_shows_python()
    try:
        with concurrent.futures.ThreadPoolExecutor() as pool:
            list(pool.map(install, names))
        for keys in [False, True]:
            server = Server("keys" if keys else "open", keys)
            for name in names:
                story(name, server)
                print(f"{name}: guarded, {'with a key' if keys else 'without keys'}", flush=True)
        if "python" in names:
            odd_story(names)
    finally:
        for process in started:
            end(process)
    print(f"the examples are true, after {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
