"""Asks real routers, beside scopegate, with hostile requests. No request may run a handler and be
allowed without the scope of that handler.

`.ci/routers [--long] [--routes FILE] [ROUTER...]`: all of them, or those; `--long` tries
many more of them, and pairs of mutations."""

import argparse
import collections
import concurrent.futures
import json
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

import grpc
from google.protobuf import descriptor_pool, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

root = pathlib.Path(__file__).resolve().parent.parent
here = root / "tests/routers"
tools = root / "target/ci/routers"
scratch = pathlib.Path(tempfile.mkdtemp())
SHORT, LONG, PAIRS, BATCH = 500, 12_000, 4_000, 1000
started = []


# -- The requests ------------------------------------------------------------------------------


def encoded(text, upper=True):
    return "".join(f"%{byte:02X}" if upper else f"%{byte:02x}" for byte in text.encode())


def swapped(text):
    return text[:-1] + text[-1:].swapcase()


# What Unicode folds to an ASCII letter, or looks like one.
FOLDS = {"k": "\u212a", "s": "\u017f", "i": "\u0130", "I": "\u0131", "e": "\uff45", "a": "\u0430"}
# A segment as others may write it. None: it has no such form.
SEGMENTS = {
    "upper": str.upper,
    "capital": str.capitalize,
    "last letter": swapped,
    "every other letter": lambda s: "".join(c.upper() if n % 2 else c for n, c in enumerate(s)),
    "letter encoded": lambda s: encoded(s[:1]) + s[1:],
    "letter encoded, small digits": lambda s: s[:-1] + encoded(s[-1:], False),
    "all encoded": encoded,
    "other case encoded": lambda s: encoded(s[:1].swapcase()) + s[1:],
    "encoded twice": lambda s: encoded(s[:1]).replace("%", "%25") + s[1:],
    "percent encoded thrice": lambda s: encoded(s[:1]).replace("%", "%2525") + s[1:],
    "overlong": lambda s: f"%C1%{0x80 | ord(s[0]) & 0x3F:02X}" + s[1:] if s and s[0].isascii() else None,
    "%u": lambda s: f"%u{ord(s[0]):04x}" + s[1:] if s else None,
    "soft hyphen": lambda s: s[:1] + "%C2%AD" + s[1:],
    "upper; semicolon": lambda s: s.upper() + ";x=1",
    "upper, dot": lambda s: s.upper() + ".",
    "upper, space": lambda s: s.upper() + "%20",
    "dot before": lambda s: "." + s,
    "space before": lambda s: "%20" + s,
    "mark before": lambda s: "%EF%BB%BF" + s,
} | {
    f"{tail!r} behind": lambda s, tail=tail: s + tail
    for tail in (
        ";x=1", ";", ";;", ";x/y", ";/", "%3B", "%3bx=1", ".", "..", "%2e", "%2E", ".json", "~", "%20", "+", "%09",
        "%0a", "%0d%0a", "%00", "%00.x", "%7f", "%2f", "%2F", "%2fx", "%5c", "\\", "\\x", "%C0%AF", "%C0%AE",
        "%EF%BC%8F", "%E2%80%8B", "%C2%A0", "%3F", "%3fx=1", "%23", "%25", "%", "%2", "%zz", "%252f", "%252e",
        "'", "*", "!", "$", "(x)", ",x", "=", "=x", "&x=1", "@", "@x", "|", "\"", "<", "[", "{", "^", "`",
        ":", "::", ":x", "%3A", "%3a", "%3Ax", "/", "/;", "/.", "/%20", "//",
    )
} | {
    f"{letter} folded{how}": lambda s, letter=letter, fold=fold, raw=raw: (
        s.replace(letter.lower(), fold if raw else encoded(fold), 1) if letter.lower() in s else None
    )
    for letter, fold in FOLDS.items() for raw, how in [(False, ""), (True, ", not encoded")]
}  # fmt: skip
# What may stand where a slash does.
SLASHES = (
    "//", "/./", "/.;/", "/;/", "/;x/", "/x/../", "/x/..;/", "/x/%2e%2e/", "/%2e/", "/x/.%2E/", "\\", "%2f", "%2F", "%5c",
    "/%20/", "/%2f", "/\\", ";/", ";x/", "/.%00/", "%c0%af", "%252f", "/%09/",
)  # fmt: skip
WHOLE = {
    "upper": str.upper,
    "slash behind": lambda p: p + "/",
    "slashes behind": lambda p: p + "//",
    "no slash behind": lambda p: p.rstrip("/"),
    "dot segment behind": lambda p: p + "/.",
    "dots behind": lambda p: p + "/x/..",
    "query": lambda p: p + "?x=1",
    "empty query": lambda p: p + "?",
    "query with a path": lambda p: p + "?/../users/export",
    "slash, query": lambda p: p + "/?x",
    "fragment": lambda p: p + "#x",
    "semicolon, fragment": lambda p: p + ";#x",
    "absolute": lambda p: "http://127.0.0.1" + p,
    "absolute, other host": lambda p: "http://x.org:80" + p,
    "absolute, upper": lambda p: "HTTP://127.0.0.1" + p.upper(),
    "absolute, user": lambda p: "http://a@b" + p,
    "slash before": lambda p: "/" + p,
    "host before": lambda p: "//x.org" + p,
    "segment before": lambda p: "/x/.." + p,
    "dot before": lambda p: "/." + p,
    "no slash before": lambda p: p.lstrip("/"),
    "backslash before": lambda p: "\\" + p,
}


def paths(routes):
    """Good ones, also those with another route's literal where a parameter is."""
    literals = collections.defaultdict(set)
    for route in routes:
        for depth, segment in enumerate(route["path"].split("/")):
            if segment and "{" not in segment:
                literals[depth].add(segment)
    found = {}
    for route in routes:
        for path in route["tries"]:
            found[path] = None
            pieces, template = path.split("/"), route["path"].split("/")
            for depth, segment in enumerate(template):
                if "{" in segment:
                    for literal in sorted(literals[depth]):
                        found["/".join([*pieces[:depth], literal, *pieces[depth + 1 :]])] = None
    return list(found)


def verbs(routes):
    return sorted({route["path"].rsplit(":", 1)[1] for route in routes if ":" in route["path"]})


def mutated(path, verbs):
    """All mutations of a path, by kind."""
    pieces = path.split("/")
    for depth, segment in enumerate(pieces[1:], 1):
        around = lambda new: "/".join([*pieces[:depth], new, *pieces[depth + 1 :]])
        # A segment, and what stands on either side of a colon in it.
        parts = [("", segment, "")]
        if ":" in segment:
            before, verb = segment.rsplit(":", 1)
            parts += [(before + ":", verb, ""), ("", before, ":" + verb)]
            for colon in ["%3A", "%3a", "::", ":%20", "%253A", ";x:", ":;", "%EF%BC%9A", "%00:", ".:", "/:"]:
                yield f"colon as {colon}", around(before + colon + verb)
                yield f"colon as {colon}, upper", around(before + colon + verb.upper())
        for before, part, behind in parts:
            for kind, change in SEGMENTS.items():
                new = change(part)
                if new is not None:
                    yield f"segment: {kind}", around(before + new + behind)
        for verb in verbs:
            for tail in [":" + verb, ":" + verb.upper(), "%3A" + verb, f":{verb};x", f":{verb}:{verb}", f"::{verb}"]:
                yield f"verb: {tail.replace(verb, 'verb')}", around(segment + tail)
        for slash in SLASHES:
            yield f"slash as {slash}", "/".join(pieces[:depth]) + slash + "/".join(pieces[depth:])
    for kind, change in WHOLE.items():
        yield f"path: {kind}", change(path)


def corpus(routes, long):
    """Requests: (method, target), each once. Plain ones first, of the others a sample."""
    good, ends, methods = paths(routes), verbs(routes), sorted({route["method"] for route in routes})
    plain = {(route["method"], path): None for route in routes for path in route["tries"]}
    plain |= {(method, path): None for path in good for method in [*methods, "OPTIONS"]}
    plain |= {(method, path): None for path in good[:9] for method in ["get", "Get", "PUT", "TRACE", "GETX"]}
    kinds, dice = collections.defaultdict(dict), random.Random(20)
    for path in good:
        uses = [route["method"] for route in routes if path in route["tries"]] or methods
        for kind, target in mutated(path, ends):
            for method in {*uses, "HEAD"} if "GET" in uses else uses:
                kinds[kind][method, target] = None
    every = {kind: sorted(requests) for kind, requests in sorted(kinds.items())}
    found = dict(plain)
    # As many of each kind, so that no kind is left out.
    each = max(2, (LONG if long else SHORT) // len(every))
    for requests in every.values():
        found |= dict.fromkeys(dice.sample(requests, min(each, len(requests))))
    if long:
        singles = [target for requests in every.values() for _, target in requests if target.startswith("/")]
        for first in dice.sample(singles, PAIRS):
            _, second = dice.choice(list(mutated(first, ends)))
            found[dice.choice(methods), second] = None
    return list(found)


def path_of(target):
    """What a guard passes: the path as it was sent, without the query."""
    if re.match(r"(?i)http://", target):
        target = re.sub(r"(?i)^http://[^/?#]*", "", target)
    return target.split("?")[0]


# -- The routers -------------------------------------------------------------------------------


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(what, test, seconds=30):
    deadline = time.monotonic() + seconds
    while not test():
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.05)


def start(command, name, **env):
    with open(scratch / f"{name}.log", "w") as out:
        process = subprocess.Popen(
            command, env=os.environ | env, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
    started.append(process)
    return process


def locations(routes, blind):
    """nginx knows methods only inside of a location, so routes of one shape are one location."""
    shapes = {}
    for route in routes:
        shape = re.sub(r"\{\w+(\+?)\}", r"{\1}", route["path"])
        shapes.setdefault(shape, []).append(route)
    text = ""
    # The first expression that matches is taken, so the more literal one must come first.
    ranks = lambda shape: [("{" in s) + s.endswith("}") + s.endswith("+}") for s in shape[0].split("/")]
    for _, same in sorted(shapes.items(), key=ranks):
        path = same[0]["path"]
        if "{" not in path:
            head = f"~* ^{re.escape(path)}$" if blind else f"= {path}"
        elif path.endswith("+}") and path.count("{") == 1 and not blind:
            # Without `^~` any expression that matches would win over a prefix.
            head = "^~ " + path[: path.index("{")]
        else:
            pattern = re.sub(r"\{(\w+)\}", r"(?<\1>[^/]+)", re.sub(r"\{(\w+)\+\}", r"(?<\1>.+)", path))
            head = f'~{"*" * blind} "^{pattern}$"'
        names = re.findall(r"\{(\w+)", path) if head.startswith("~") else []
        params = ",".join(f'"{name}":"${name}"' for name in names)
        text += f"location {head} {{\n"
        # GET is last: a HEAD is answered as a GET unless there is a HEAD of its own.
        for route in sorted(same, key=lambda route: route["method"] == "GET"):
            own = any(other["method"] == "HEAD" for other in same)
            method = "^(GET|HEAD)$" if route["method"] == "GET" and not own else f"^{route['method']}$"
            text += f"""  if ($request_method ~ "{method}") {{
    add_header X-Handler {route["scope"]}; add_header X-Path $sent_path;
    return 200 '{{"handler":"{route["scope"]}","params":{{{params}}}}}';
  }}
"""
        text += "  return 405;\n}\n"
    return text


def nginx(routes):
    seeing, blind = free_port(), free_port()
    conf = (here / "nginx.conf").read_text()
    for name, value in {
        "EXACT_LOCATIONS": locations(routes, False), "BLIND_LOCATIONS": locations(routes, True),
        "SEEING": str(seeing), "BLIND": str(blind), "FOLDER": str(scratch),
    }.items():  # fmt: skip
        conf = conf.replace(name, value)
    (scratch / "nginx.conf").write_text(conf)
    binary = shutil.which("nginx") or tools / "nginx/usr/sbin/nginx"
    process = start([binary, "-p", scratch, "-c", scratch / "nginx.conf", "-e", scratch / "error.log"], "nginx")
    return {"nginx": (process, seeing), "nginx ~*": (process, blind)}


def served(routes, name):
    """The routes that a router can express."""
    return [route for route in routes if name not in route.get("skip", [])]


def commands():
    python, node = tools / "python/bin/python", "node"
    return {
        "express": [node, here / "node/express.js", "express"],
        "express 4": [node, here / "node/express.js", "express4"],
        "koa": [node, here / "node/koa.js"],
        "fastify": [node, here / "node/fastify.js"],
        "fastify, blind": [node, here / "node/fastify.js", "blind"],
        "hono": [node, here / "node/hono.js"],
        "fastapi": [python, here / "python/fastapi_app.py"],
        "flask": [python, here / "python/flask_app.py"],
        "go": [tools / "servemux"],
        "axum": [root / "target/debug/examples/axum"],
    }


class Connection:
    """HTTP/1.1 by hand: a target is sent as it is, byte by byte."""

    def __init__(self, port):
        self.port, self.socket, self.rest = port, None, b""

    def read(self, enough):
        while not enough(self.rest):
            more = self.socket.recv(65536)
            if not more:
                return False
            self.rest += more
        return True

    def close(self):
        if self.socket:
            self.socket.close()
        self.socket, self.rest = None, b""

    def ask(self, method, target):
        """Status, headers and body; or nothing, if the connection is ended without an answer."""
        host = b"127.0.0.1"
        head = method.encode() + b" " + target.encode() + b" HTTP/1.1\r\nhost: " + host + b"\r\n"
        head += b"content-length: 0\r\n\r\n" if method in ("POST", "PUT", "DELETE") else b"\r\n"
        for fresh in [self.socket is None, True]:
            if fresh:
                self.close()
                self.socket = socket.create_connection(("127.0.0.1", self.port), timeout=5)
                self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                self.socket.sendall(head)
                if self.read(lambda rest: b"\r\n\r\n" in rest):
                    return self.answer(method)
            except (ConnectionError, TimeoutError):
                pass
            self.close()
            if fresh:
                return None, {}, b""

    def answer(self, method):
        head, _, self.rest = self.rest.partition(b"\r\n\r\n")
        first, *lines = head.split(b"\r\n")
        status = int(first.split()[1])
        headers = {}
        for line in lines:
            name, _, value = line.partition(b":")
            headers[name.strip().lower()] = value.strip()
        body, ends = b"", headers.get(b"connection", b"").lower() == b"close" or first.startswith(b"HTTP/1.0")
        if method == "HEAD" or status in (204, 304):
            pass
        elif b"content-length" in headers:
            length = int(headers[b"content-length"])
            whole = self.read(lambda rest: len(rest) >= length)
            body, self.rest, ends = self.rest[:length], self.rest[length:], ends or not whole
        elif not (headers.get(b"transfer-encoding") == b"chunked" and self.read(lambda rest: rest.endswith(b"0\r\n\r\n"))):
            ends = True
        else:
            body, self.rest = self.rest, b""
        if ends:
            self.close()
        return status, headers, body


Run = collections.namedtuple("Run", "method target path handler")


def ask_router(name, port, requests):
    """What each request ran, by the path as it was sent and by what the framework calls the path."""
    connection, runs, silent = Connection(port), [], 0
    for method, target in requests:
        status, headers, _ = connection.ask(method, target)
        silent += status is None
        handler = headers.get(b"x-handler", b"").decode()
        if not handler:
            continue
        runs.append(Run(method, target, path_of(target), handler))
        try:
            told = headers.get(b"x-path", b"").decode()
        except UnicodeDecodeError:
            continue
        if told != runs[-1].path:
            runs.append(Run(method, target, told, handler))
    assert silent < len(requests) / 2, f"{name} leaves {silent} of {len(requests)} requests without an answer"
    connection.close()
    return runs


# -- Scopegate ---------------------------------------------------------------------------------


class Scopegate:
    """A server with a catalog of these routes."""

    def __init__(self, binary, routes):
        folder = pathlib.Path(tempfile.mkdtemp(dir=scratch))
        self.scopes = [route["scope"] for route in routes]
        catalog = folder / "catalog.yaml"
        quote = json.dumps
        lines = ["name: routers", "scopes:", '  "nothing:here": {}', *(f"  {quote(s)}: {{}}" for s in self.scopes)]
        lines.append("endpoints:")
        for route in routes:
            colons = f", colon_in: {quote(route['colon_in'])}" if "colon_in" in route else ""
            lines.append(
                f"  - {{ method: {route['method']}, path: {quote(route['path'])}, scopes: [{quote(route['scope'])}]{colons} }}"
            )
        catalog.write_text("\n".join(lines) + "\n")
        address = f"127.0.0.1:{free_port()}"
        options = ["--catalog", catalog, "--listen", address, "--data-dir", folder / "store"]
        start([binary, "serve", *options], "scopegate", NO_COLOR="1")
        self.channel = grpc.insecure_channel(address)
        try:
            grpc.channel_ready_future(self.channel).result(timeout=30)
            # It listens before its store is open.
            until("scopegate", lambda: subprocess.run(
                [binary, "health", "--endpoint", address], capture_output=True, check=False
            ).returncode == 0)  # fmt: skip
        except grpc.FutureTimeoutError:
            sys.exit((scratch / "scopegate.log").read_text())
        pool = descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(self.channel))
        self.methods = {}
        for service, method in [
            ("Authorization", "Check"), ("Authorization", "BatchCheck"),
            ("Directory", "CreateCompany"), ("Directory", "CreateCredential"),
        ]:  # fmt: skip
            found = pool.FindServiceByName(f"scopegate.v1.{service}Service").FindMethodByName(method)
            ask = message_factory.GetMessageClass(found.input_type)
            answer = message_factory.GetMessageClass(found.output_type)
            rpc = self.channel.unary_unary(
                f"/scopegate.v1.{service}Service/{method}",
                request_serializer=ask.SerializeToString, response_deserializer=answer.FromString,
            )  # fmt: skip
            self.methods[method] = ask, rpc
        self.call("CreateCompany", company_id="acme")
        # One that holds each scope alone, one that holds all others, all, and none of an endpoint's.
        everything = {"everything": self.scopes, "nothing": ["nothing:here"]}
        for n, scope in enumerate(self.scopes):
            everything[f"only-{n}"] = [scope]
            everything[f"without-{n}"] = [other for other in self.scopes if other != scope]
        for name, scopes in everything.items():
            self.call("CreateCredential", company_id="acme", credential_id=name, scopes=scopes)

    def call(self, method, **fields):
        ask, rpc = self.methods[method]
        return rpc(ask(**fields), timeout=30)

    def check(self, credential, method, path):
        return {"company_id": "acme", "credential_id": credential, "endpoint": {"method": method, "path": path}}

    def well_formed(self, calls):
        """Those that are no INVALID_ARGUMENT; a batch fails by one that is, so each is asked alone."""
        ask, rpc = self.methods["Check"]
        found = set()
        for n in range(0, len(calls), 64):
            asked = [(call, rpc.future(ask(**self.check("everything", *call)), timeout=30)) for call in calls[n : n + 64]]
            for call, future in asked:
                code = future.code()
                assert code in (grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT), (call, code)
                if code == grpc.StatusCode.OK:
                    found.add(call)
        return found

    def batch(self, checks):
        answers = []
        for n in range(0, len(checks), BATCH):
            some = [self.check(*check) for check in checks[n : n + BATCH]]
            answers += self.call("BatchCheck", checks=some).results
        return answers


ALLOWED, DENIED = 1, 2


def verdicts(scopegate, runs):
    """For each run: whether it is allowed by its handler's scope, without it, and what was asked for."""
    calls = sorted({(run.method, run.path) for run in runs})
    good = scopegate.well_formed(calls)
    number = {scope: n for n, scope in enumerate(scopegate.scopes)}
    keys = sorted({(run.method, run.path, number[run.handler]) for run in runs if (run.method, run.path) in good})
    checks = [(f"{who}-{n}", method, path) for method, path, n in keys for who in ("only", "without")]
    answers = scopegate.batch(checks)
    good = sorted(good)
    asked = [answer.missing_scopes[:1] for answer in scopegate.batch([("nothing", *call) for call in good])]
    asked = dict(zip(good, asked))
    result = {}
    for n, (method, path, handler) in enumerate(keys):
        only, without = answers[2 * n].decision, answers[2 * n + 1].decision
        assert {only, without} <= {ALLOWED, DENIED}
        result[method, path, scopegate.scopes[handler]] = only == ALLOWED, without == ALLOWED, [*asked[method, path]]
    return result


# -- The test ----------------------------------------------------------------------------------


def usable(name, port, routes, allowed):
    """Each route's good paths run its handler, and are allowed by its scope."""
    connection, wrong = Connection(port), []
    for route in routes:
        for path in route["tries"]:
            status, headers, body = connection.ask(route["method"], path)
            ran = headers.get(b"x-handler", b"").decode()
            if ran != route["scope"]:
                wrong.append(f"{name}: {route['method']} {path} runs {ran or status} and not {route['scope']}")
            elif route["method"] != "HEAD" and json.loads(body)["handler"] != ran:
                wrong.append(f"{name}: {route['method']} {path} answers {body}")
            verdict = allowed.get((route["method"], path, route["scope"]))
            if verdict != (True, False, [route["scope"]]):
                wrong.append(f"scopegate: {route['method']} {path} with {route['scope']} alone: {verdict}")
    connection.close()
    return wrong


def build():
    """The two routers that are compiled. The one in Rust as `cargo test` builds it."""
    subprocess.run(["cargo", "build", "--quiet", "--example", "axum"], cwd=root, check=True)
    env = os.environ | {"GOCACHE": str(tools / "gocache"), "GOTOOLCHAIN": "local", "CGO_ENABLED": "0"}
    env |= {"GO111MODULE": "on", "GODEBUG": "", "GOFLAGS": ""}
    go = [os.environ.get("GO", "go"), "build", "-o", tools / "servemux", "."]
    subprocess.run(go, cwd=here / "go", env=env, check=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--routes", default=here / "routes.json")
    parser.add_argument("routers", nargs="*")
    options = parser.parse_args()
    began = time.monotonic()
    binary = os.environ.get("SCOPEGATE_BINARY")
    builds = [root / "target/release/scopegate", root / "target/debug/scopegate"]
    binary = binary or next((str(build) for build in builds if build.exists()), str(builds[0]))
    for name in [name for name in os.environ if name.startswith("SCOPEGATE_")]:
        del os.environ[name]
    routes = json.loads(pathlib.Path(options.routes).read_text())
    requests = corpus(routes, options.long)
    env = {"NODE_PATH": str(tools / "node_modules"), "NODE_ENV": "production"}
    build()
    running = nginx(routes)
    for name, command in commands().items():
        port, file = free_port(), scratch / f"{name}.json"
        file.write_text(json.dumps(served(routes, name)))
        running[name] = start(command, name, PORT=str(port), ROUTES=str(file), **env), port
    running = {name: running[name] for name in options.routers or running}

    def listens(port):
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    for name, (process, port) in running.items():
        until(name, lambda: process.poll() is not None or listens(port))
        assert process.poll() is None, f"{name} ended: {(scratch / f'{name}.log').read_text()}"
    asked = {}
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        futures = {name: pool.submit(ask_router, name, port, requests) for name, (_, port) in running.items()}
        asked = {name: future.result() for name, future in futures.items()}
    # Routers that serve the same routes have one catalog, of just these.
    alike = collections.defaultdict(list)
    for name in asked:
        alike[json.dumps(served(routes, name))].append(name)
    results = {}
    for same, names in alike.items():
        same = json.loads(same)
        plain = [Run(route["method"], path, path, route["scope"]) for route in same for path in route["tries"]]
        scopegate = Scopegate(binary, same)
        result = verdicts(scopegate, plain + [run for name in names for run in asked[name]])
        results |= dict.fromkeys(names, result)
    print(f"{'router':15} {'requests':>8} {'ran':>7} {'allowed':>7} {'refused':>7} {'wrong':>6}")
    failures, wrong = [], {}
    for name, runs in asked.items():
        result = results[name]
        failures += usable(name, running[name][1], served(routes, name), result)
        counts = collections.Counter()
        for run in runs:
            only, without, scope = result.get((run.method, run.path, run.handler), (False, False, []))
            counts["wrong" if without else "allowed" if only else "refused"] += 1
            if without:
                wrong.setdefault((run.method, run.target, run.path, run.handler, *scope), []).append(name)
        print(
            f"{name:15} {len(requests):8} {len(runs):7} {counts['allowed']:7} {counts['refused']:7} {counts['wrong']:6}"
        )
        if not counts["allowed"] or not counts["refused"]:
            failures.append(f"{name}: nothing was allowed, or nothing refused: this tests nothing")
        if running[name][0].poll() is not None:
            failures.append(f"{name} ended: {(scratch / f'{name}.log').read_text()}")
    for (method, target, path, handler, *scope), names in sorted(wrong.items()):
        asked_by = f"{target} (asked as {path})" if path != target else target
        print(f"wrong: {method} {asked_by} runs {handler}, and is allowed by {scope}: {', '.join(names)}")
    for failure in dict.fromkeys(failures):
        print(failure)
    print(f"{len(requests)} requests to {len(asked)} routers, after {time.monotonic() - began:.0f} s")
    return 1 if wrong or failures else 0


if __name__ == "__main__":
    try:
        code = main()
    finally:
        for process in started:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()
        shutil.rmtree(scratch, ignore_errors=True)
    sys.exit(code)
