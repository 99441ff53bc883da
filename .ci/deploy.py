"""Manifests, chart and metrics of deploy/, against schemas and against the real binary."""

import contextlib
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

import yaml

root = pathlib.Path(__file__).resolve().parent.parent
binary = os.environ.get("SCOPEGATE_BINARY", str(root / "target/release/scopegate"))
deploy = root / "deploy"
chart = deploy / "helm/scopegate"
scratch = pathlib.Path(tempfile.mkdtemp())
METRIC = re.compile(r"\b(?:scopegate_[a-z_]+|process_start_time_seconds)")


def manifests(name, text):
    """Validates manifests, and what this project asks of every pod."""
    if not shutil.which("kubernetes-validate"):
        return print(f"skipped: no kubernetes-validate for {name}")
    path = scratch / "manifests.yaml"
    # A resource that Kubernetes itself does not have.
    own = [m for m in yaml.safe_load_all(text) if m and m["kind"] != "ServiceMonitor"]
    path.write_text(yaml.safe_dump_all(own))
    done = subprocess.run(
        ["kubernetes-validate", "--strict", "--quiet", path], capture_output=True, text=True
    )
    if done.returncode != 0:
        sys.exit(f"{name}: {done.stdout}{done.stderr}")
    names = subprocess.run([binary, "serve", "--help"], capture_output=True, text=True, check=True)
    known = set(re.findall(r"env: (SCOPEGATE_\w+)", names.stdout))
    known |= {"SCOPEGATE_ENDPOINT", "SCOPEGATE_CA", "SCOPEGATE_CLIENT_CERT", "SCOPEGATE_CLIENT_KEY"}
    known |= {"SCOPEGATE_KEY_FILE", "POD"}
    for manifest in own:
        if manifest["kind"] == "ConfigMap":
            catalog(manifest["data"]["catalog.yaml"])
        if "template" not in manifest.get("spec", {}):
            continue
        pod = manifest["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"], name
        assert pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault", name
        assert pod["automountServiceAccountToken"] is False, name
        volumes = {volume["name"] for volume in pod.get("volumes", [])}
        claims = manifest["spec"].get("volumeClaimTemplates", [])
        volumes |= {claim["metadata"]["name"] for claim in claims}
        for container in pod.get("initContainers", []) + pod["containers"]:
            security = container["securityContext"]
            assert security["readOnlyRootFilesystem"], name
            assert security["capabilities"] == {"drop": ["ALL"]}, name
            assert security["allowPrivilegeEscalation"] is False, name
            assert "requests" in container["resources"], name
            assert {m["name"] for m in container.get("volumeMounts", [])} <= volumes, name
            env = {e["name"]: e.get("value") for e in container.get("env", [])}
            assert set(env) <= known, f"{name}: {set(env) - known}"
            if "readinessProbe" not in container:
                continue
            grace = pod["terminationGracePeriodSeconds"]
            assert grace > int(env["SCOPEGATE_DRAIN_TIMEOUT"].removesuffix("s")), name
            for probe, asks_live in [("readinessProbe", False), ("livenessProbe", True)]:
                how = "exec" if "SCOPEGATE_TLS_CERT" in env else "grpc"
                assert how in container[probe], f"{name}: {probe}"
                asked = container[probe][how]
                named = asked.get("service") == "live" or "live" in asked.get("command", [])
                assert named == asks_live, f"{name}: {probe}"
    print(f"kubernetes: {name} is right ({len(own)} resources)")


def catalog(text):
    path = scratch / "catalog.yaml"
    path.write_text(text)
    subprocess.run([binary, "catalog", "validate", path], check=True, stdout=subprocess.DEVNULL)


def kustomizations():
    if not shutil.which("kubectl"):
        return print("skipped: no kubectl for the kustomizations")
    for name in ["first", "base", "tls"]:
        built = subprocess.run(
            ["kubectl", "kustomize", deploy / "kubernetes" / name],
            capture_output=True, text=True, check=True,
        )
        manifests(name, built.stdout)
    copy = (deploy / "kubernetes/base/catalog.yaml").read_text()
    assert copy == (root / "catalogs/360learning.yaml").read_text(), "the catalog is another"


def charts():
    try:
        from helm_python.chart import Chart, lint
    except (ImportError, OSError) as error:
        return print(f"skipped: no helm for the chart ({error})")
    learn_amp = (root / "catalogs/learn-amp.yaml").read_text()
    tls = {"secretName": "scopegate-tls"}
    for name, values in {
        "chart": {},
        "chart with a key to make": {"firstKey": {"enabled": True}},
        "chart with TLS": {"tls": tls, "catalog": learn_amp},
        "chart with all": {
            "tls": {**tls, "clientCertificates": True},
            "catalog": learn_amp,
            "allowCatalogRemovals": True,
            "oauth": {
                "enabled": True,
                "issuer": "https://id.example.org",
                "authorizeUrl": "https://platform.example.org/authorize",
            },
            "http": {"enabled": True, "url": "https://pdp.example.org"},
            "metrics": {"serviceMonitor": {"enabled": True, "labels": {"a": "b"}}},
            "traces": {"endpoint": "http://collector:4317", "sample": 1000},
            "networkPolicy": {"egress": [{"ports": [{"protocol": "TCP", "port": 443}]}]},
            "persistence": {"storageClass": "fast"},
            "imagePullSecrets": [{"name": "pull"}],
            "priorityClassName": "high",
            "nodeSelector": {"a": "b"},
            "tolerations": [{"operator": "Exists"}],
            "affinity": {"nodeAffinity": {}},
            "podLabels": {"a": "b"},
            "podAnnotations": {"a": "b"},
            "service": {"annotations": {"a": "b"}},
        },
        "chart with replicas": {
            "replicas": {
                "enabled": True,
                "etcd": {
                    "endpoints": ["etcd-0:2379", "etcd-1:2379"],
                    "tlsSecretName": "etcd-tls",
                    "parameters": "compact=off",
                },
                "catalogKeySecretName": "operator-key",
            },
            "tls": tls,
            "catalog": learn_amp,
        },
        "chart with replicas and their first key": {
            "replicas": {"enabled": True, "etcd": {"endpoints": ["etcd-0:2379"]}},
            "firstKey": {"enabled": True},
            "traces": {"endpoint": "http://collector:4317"},
        },
        "chart with little": {
            "persistence": {"existingClaim": "mine"},
            "metrics": {"enabled": False},
            "networkPolicy": {"enabled": False},
            "podDisruptionBudget": {"enabled": False},
        },
    }.items():
        report = lint(chart, values, strict=True)
        assert not report["errors"], report
        with Chart.load(chart) as loaded:
            rendered = loaded.render(values, name="scopegate", namespace="scopegate")
        notes = next(text for path, text in rendered.items() if path.endswith("NOTES.txt"))
        assert "<no value>" not in notes, notes
        texts = [text for path, text in rendered.items() if not path.endswith("NOTES.txt")]
        manifests(name, "\n---\n".join(text for text in texts if text.strip()))
    begun = {"replicas": {"enabled": True, "begin": False, "etcd": {"endpoints": ["etcd-0:2379"]}}}
    for first_key in [False, True]:
        values = begun | {"firstKey": {"enabled": first_key}}
        with Chart.load(chart) as loaded:
            rendered = loaded.render(values, name="scopegate", namespace="scopegate")
        assert "kind: Job" not in "".join(rendered.values()), "a cluster begins once"
    assert lint(chart, {"replicas": {"enabled": True}})["errors"], "no etcd"
    for more_than_one in ["replicas", "replicaCount"]:
        assert lint(chart, {more_than_one: 2})["errors"], "more than one replica"


def expressions():
    """All of the dashboard and of the alerts."""
    dashboard = json.loads((deploy / "grafana/dashboard.json").read_text())
    found = [t["expr"] for panel in dashboard["panels"] for t in panel.get("targets", [])]
    found += [note["expr"] for note in dashboard["annotations"]["list"]]
    assert len(found) > 25, "the dashboard"
    alerts = yaml.safe_load((deploy / "prometheus/alerts.yaml").read_text())
    rules = [rule for group in alerts["groups"] for rule in group["rules"]]
    page = (root / "docs/operating.md").read_text()
    for rule in rules:
        assert f"### {rule['alert']}\n" in page, f"docs/operating.md has no {rule['alert']}"
    return found, [rule["expr"] for rule in rules]


def port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def program(command, log):
    with open(scratch / log, "w") as output:
        running = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        yield running
    finally:
        running.terminate()
        running.wait(30)


def until(what, done):
    for _ in range(150):
        if done():
            return
        time.sleep(0.2)
    sys.exit(f"{what}: not within 30 seconds")


def read(url):
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.read().decode()
    except urllib.error.HTTPError as error:
        sys.exit(f"{url}: {error.read().decode()}")
    except OSError:
        return ""


def metrics():
    dashboard, alerts = expressions()
    key, cert = scratch / "key.pem", scratch / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-days", "30", "-subj", "/CN=localhost", "-addext",
         "basicConstraints=critical,CA:FALSE", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", key, "-out", cert],
        check=True, capture_output=True,
    )  # fmt: skip
    address, page = f"127.0.0.1:{port()}", f"127.0.0.1:{port()}"
    server = [
        binary, "serve", "--demo", "--listen", address, "--metrics", page,
        "--data-dir", scratch / "data", "--decision-log", scratch / "decisions",
        "--tls-cert", cert, "--tls-key", key,
    ]  # fmt: skip
    client = ["--endpoint", f"https://{address}", "--ca", cert]

    def ask(scope):
        command = [binary, "check", "demo", "analytics", scope, *client]
        return subprocess.run(command, capture_output=True).returncode

    with program(server, "server.log"):
        until("the server", lambda: ask("users:read") == 0)
        text = read(f"http://{page}/metrics")
        names = set(re.findall(r"^((?:scopegate|process)_\w+)[{ ]", text, re.M))
        # A gauge of issuers, of which the demo has none.
        names |= set(re.findall(r"^# TYPE (scopegate_issuer_\w+) gauge", text, re.M))
        asked = {name for expr in dashboard + alerts for name in METRIC.findall(expr)}
        # Those of replicas are looked for by `.ci/replicas`.
        asked = {name for name in asked if not name.startswith("scopegate_replica_")}
        assert len(asked) > 20, asked
        if asked - names:
            sys.exit(f"the server has no {sorted(asked - names)}")
        print(f"metrics: all {len(asked)} that are asked for are there")
        if not shutil.which("prometheus"):
            return print("skipped: no prometheus to try the expressions")
        config = scratch / "prometheus.yaml"
        written = yaml.safe_load((deploy / "prometheus/prometheus.yaml").read_text())
        written["global"] = {"scrape_interval": "1s"}
        written["rule_files"] = [str(deploy / "prometheus/alerts.yaml")]
        written["scrape_configs"][0]["static_configs"][0]["targets"] = [page]
        config.write_text(yaml.safe_dump(written))
        where = f"127.0.0.1:{port()}"
        prometheus = [
            "prometheus", f"--config.file={config}", f"--storage.tsdb.path={scratch}/tsdb",
            f"--web.listen-address={where}", "--log.level=warn",
        ]  # fmt: skip

        def value(expr):
            expr = expr.replace("$__rate_interval", "20s").replace("$instance", ".*")
            query = urllib.parse.urlencode({"query": expr})
            answer = json.loads(read(f"http://{where}/api/v1/query?{query}") or "{}")
            return answer.get("data", {}).get("result")

        with program(prometheus, "prometheus.log"):
            until("prometheus", lambda: value("scopegate_ready"))
            for _ in range(20):
                ask("users:read"), ask("users:write")
                time.sleep(0.1)
            # What there is only when something happens that did not.
            rare = re.compile(r"changes\(process_start|scopegate_issuer_keys_age|scopegate_replica_")
            empty = []
            for _ in range(10):
                empty = [e for e in dashboard if not rare.search(e) and not value(e)]
                if not empty:
                    break
                time.sleep(1)
            if empty:
                sys.exit("nothing is shown by:\n" + "\n".join(empty))
            fired = [e for e in alerts if value(e)]
            if fired:
                sys.exit("a server that is well has the alerts:\n" + "\n".join(fired))
            print(f"dashboard: all {len(dashboard)} expressions show something; no alert is raised")


kustomizations()
charts()
metrics()
shutil.rmtree(scratch)
