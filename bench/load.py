"""Load: h2load and nghttp, what they are told and what they say."""

import os
import pathlib
import re
import resource
import shlex
import shutil
import subprocess
import tempfile
import time

import servers
from servers import Fault

def install():
    """Sees to it that h2load and nghttp are there."""
    if shutil.which("h2load") and shutil.which("nghttp"):
        return
    how = "apt-get install --yes nghttp2-client"
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise Fault(f"h2load is needed: install it by `{how}`, or from the nghttp2 project")
    print(f"h2load is not installed: {how}", flush=True)
    subprocess.run(["apt-get", "update", "--quiet=2"], check=True)
    subprocess.run([*shlex.split(how), "--quiet=2"], check=True, stdout=subprocess.DEVNULL)


def version():
    return subprocess.run(["h2load", "--version"], capture_output=True, text=True).stdout.strip()


def pinned(core):
    return (lambda: os.sched_setaffinity(0, {core})) if core is not None else None


class Load:
    """Who sends, from where: the core, a directory for bodies, the key to present, if any."""

    def __init__(self, scratch, core):
        self.scratch, self.core, self.key = scratch, core, None

    def headers(self, call):
        key = [f"authorization: Bearer {self.key}"] if self.key else []
        return [word for header in (*call.headers, *key) for word in ("-H", header)]

    def body(self, call):
        path = pathlib.Path(self.scratch, call.name)
        path.write_bytes(call.body)
        return str(path)

    def verify(self, server, call):
        """Asks once, and looks at what h2load does not: the reply and its status.

        Returns how many bytes a right reply has.
        """
        command = ["nghttp", "-v", "-y", "--no-dep", "-d", self.body(call), *self.headers(call)]
        said = subprocess.run([*command, server.url + call.path], capture_output=True).stdout
        if call.success not in said:
            status = re.search(rb"grpc-(status|message): .*|:status: .*", said)
            raise Fault(f"{server.name} did not answer {call.path}: {status and status[0].decode()}")
        # nghttp writes the payload as it is, and then a line about the frame that it came in.
        size = sum(map(int, re.findall(rb"recv DATA frame <length=(\d+)", said)))
        place = said.index(b"recv DATA frame") - len("[  0.000] ")
        reply = said[place - size:place]
        fault = call.fault(reply)
        if fault:
            raise Fault(f"{server.name} answers {call.path} wrongly: {fault}")
        return size

    def run(self, server, call, shape, seconds, reply_bytes, per_second=None, flags=()):
        """Sends for this long, as fast as answers come or at a steady rate; what came of it.

        There is no warm-up in here. h2load leaves the requests of its warm-up out of its count,
        while the server's CPU clock goes on: that would charge them to the requests that count.
        A separate run before, which nobody looks at, warms both servers. What is left is the
        requests that are under way when the time ends, served but not counted: at most one per
        stream, of many thousands, and the same for both servers.
        """
        connections, streams = shape
        log = tempfile.NamedTemporaryFile(dir=self.scratch) if per_second else None
        command = ["h2load", "-c", str(connections), "-m", str(streams), "-t", "1"]
        command += ["-D", f"{round(seconds * 1000)}ms", "-d", self.body(call), *self.headers(call)]
        command += flags
        if log:
            command += ["--rps", f"{per_second / connections:.3f}", "--log-file", log.name]
        load_before = resource.getrusage(resource.RUSAGE_CHILDREN)
        busy_before, cpu_before, start = servers.busy_seconds(), server.cpu(), time.monotonic()
        done = subprocess.run(
            [*command, server.url + call.path],
            capture_output=True, text=True, preexec_fn=pinned(self.core),
        )
        cpu, busy = server.cpu() - cpu_before, servers.busy_seconds() - busy_before
        elapsed = time.monotonic() - start
        load_after = resource.getrusage(resource.RUSAGE_CHILDREN)
        load_cpu = sum(
            getattr(load_after, name) - getattr(load_before, name)
            for name in ("ru_utime", "ru_stime")
        )
        count = self.count(server, done.stdout, reply_bytes, connections * streams)
        outcome = {
            "requests": count,
            "per_second": count / seconds,
            "cpu_us_per_request": cpu / count * 1e6,
            "server_cores": cpu / elapsed,
            "load_cores": load_cpu / elapsed,
            "other_cores": max(0.0, (busy - cpu - load_cpu) / elapsed),
        }
        if log:
            outcome.update(percentiles(log.name))
        return outcome

    def beside(self, server, call, per_second, seconds):
        """Starts to send at this rate, on one connection."""
        command = ["h2load", "-c", "1", "-m", "64", "-t", "1", "-D", f"{round(seconds * 1000)}ms"]
        command += ["--rps", str(per_second), "-d", self.body(call), *self.headers(call)]
        return subprocess.Popen(
            [*command, server.url + call.path],
            stdout=subprocess.PIPE, text=True, preexec_fn=pinned(self.core),
        )

    @staticmethod
    def answered(beside):
        """How many requests were answered."""
        said, _ = beside.communicate(timeout=60)
        requests = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored", said)
        if not requests or int(requests[2]) or int(requests[3]):
            raise Fault(f"the requests beside failed: {said[-300:]}")
        return int(requests[1])

    @staticmethod
    def count(server, said, reply_bytes, under_way):
        """How many requests were answered, if all of them were, and rightly."""
        requests = re.search(
            r"(\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", said
        )
        codes = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", said)
        data = re.search(r"\((\d+)\) data", said)
        if not (requests and codes and data):
            raise Fault(f"h2load did not finish against {server.name}: {said[-300:]}")
        done, succeeded, *bad = map(int, requests.groups())
        if done == 0 or succeeded != done or any(bad) or any(map(int, codes.groups()[1:])):
            raise Fault(f"not all requests to {server.name} succeeded: {requests[0]}; {codes[0]}")
        # A denial is longer and an error is empty. Replies under way at the end may be counted.
        least, most = reply_bytes
        if not done * least <= int(data[1]) <= (done + under_way) * most:
            each = int(data[1]) / done
            raise Fault(f"replies of {server.name} have {each:.1f} bytes, not {least} to {most}")
        return done


def percentiles(log):
    """The median and the 99th percentile of h2load's log, in microseconds."""
    with open(log) as lines:
        times = sorted(int(line.split("\t")[2]) for line in lines)
    return {"p50_us": times[len(times) // 2], "p99_us": times[len(times) * 99 // 100]}
