"""Servers: the processes under measurement, their ports, their CPU time."""

import copy
import json
import os
import pathlib
import signal
import socket
import subprocess
import tempfile
import time


class Fault(Exception):
    """What was measured cannot be trusted, or nothing could be: one sentence."""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def cpu_seconds(pid):
    """The CPU time that a process has used, threads that have ended included.

    This is the kernel's CPU clock of the process (see clock_getcpuclockid(3), whose formula this
    is). It is the sum over its threads of what /proc/PID/task/*/schedstat shows, except that a
    thread's share stays when it ends: scopegate's threads for blocking reads come and go.
    """
    return time.clock_gettime(~pid << 3 | 2)


def busy_seconds():
    """The CPU time that the machine has used for anything, interrupts included."""
    fields = pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _idle, _wait, irq, softirq = map(int, fields[:7])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


class Server:
    """A running server. Use it in a `with`; it is ended at the end."""

    def __init__(self, name, command, port, core=None, log=None, tls=None):
        self.name, self.port, self.log, self.key = name, port, log, None
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
        # Before the program starts, so that its runtime sees the cores that it may use.
        pin = (lambda: os.sched_setaffinity(0, {core})) if core is not None else None
        # Its own output is no part of the table; the end of it explains a failure.
        with open(log, "wb") as output:
            self.process = subprocess.Popen(
                command, stdout=output, stderr=output, preexec_fn=pin
            )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def wait(self, ready, seconds=30):
        """Waits until `ready()` is true."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.process.poll() is not None:
                said = pathlib.Path(self.log).read_text(errors="replace").strip()[-500:]
                raise Fault(f"{self.name} ended with {self.process.returncode}: {said}")
            if ready():
                return self
            time.sleep(0.05)
        raise Fault(f"{self.name} was not ready after {seconds} s")

    def listens(self):
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def cpu(self):
        return cpu_seconds(self.process.pid)

    def at(self, port):
        """The same process, by another of its addresses, which is of plain text."""
        other = copy.copy(self)
        other.port, other.url = port, f"http://127.0.0.1:{port}"
        return other


def certificate(scratch):
    """A certificate of this machine and its key, in files."""
    cert, key = f"{scratch}/cert.pem", f"{scratch}/key.pem"
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
         "-days", "2", "-subj", "/CN=localhost", "-addext", "basicConstraints=critical,CA:FALSE",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", cert],
        capture_output=True,
    )
    if made.returncode:
        raise Fault(f"no certificate could be made: {made.stderr.decode()[-200:]}")
    return cert, key


def flags(tls):
    return ["--tls-cert", tls[0], "--tls-key", tls[1]] if tls else []


def yardstick(binary, core, scratch, tls=None):
    port = free_port()
    log = f"{tempfile.mkdtemp(dir=scratch)}/log"
    command = [binary, "--listen", f"127.0.0.1:{port}", *flags(tls)]
    server = Server("yardstick", command, port, core, log, tls)
    return server.wait(server.listens)


def bootstrap(binary, data):
    made = subprocess.run([binary, "keys", "bootstrap", "--data-dir", data], capture_output=True)
    if made.returncode:
        raise Fault(f"no key could be made: {made.stderr.decode().strip()}")
    return made.stdout.decode().strip()


def secret(binary, server, company, credential):
    """The text of a new secret of a credential."""
    create = [binary, "credential", "secret", "create", company, credential, "--output", "json"]
    made = subprocess.run([*create, "--endpoint", server.url], capture_output=True)
    if made.returncode:
        raise Fault(f"no secret was made: {made.stderr.decode().strip()}")
    return json.loads(made.stdout)["secret"]


def scopegate(binary, args, core, scratch, keys=False, tls=None):
    port = free_port()
    home = tempfile.mkdtemp(dir=scratch)
    address = f"127.0.0.1:{port}"
    key = bootstrap(binary, f"{home}/data") if keys else None
    command = [binary, "serve", "--demo", "--data-dir", f"{home}/data", "--listen", address]
    command += [*flags(tls), *args]
    server = Server("scopegate", command, port, core, f"{home}/log", tls)
    server.key = key

    def ready():
        # It listens before its store is open; only its own word for it counts.
        health = [binary, "health", "--endpoint", server.url]
        health += ["--ca", tls[0]] if tls else []
        return subprocess.run(health, capture_output=True).returncode == 0

    return server.wait(ready)


def redis(core, scratch):
    port = free_port()
    home = tempfile.mkdtemp(dir=scratch)
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", home]
    server = Server("redis", [*command, "--save", "", "--appendonly", "no"], port, core, f"{home}/log")
    return server.wait(server.listens)
