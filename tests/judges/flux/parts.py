"""What `run` runs: a Kubernetes API server, the operator, a simulated cloud, kustomize-controller and
a server of artifacts in place of Flux's source-controller. All of it listens on loopback."""

import contextlib
import gzip
import hashlib
import http.server
import io
import json
import os
import re
import secrets
import socket
import ssl
import subprocess
import tarfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
CACHE = Path(
    os.environ.get("IMAGE_EXPORT_TESTBED_CACHE")
    or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "image-export-operator"
)
PROJECT = "ac234de25c6741d2b1273da49eea1b9e"
CLOUDS_YAML = """clouds:
  otc:
    region_name: eu-de
    auth: {{auth_url: "{url}/v3", user_domain_name: demo, username: demo, password: demo}}
"""


class Unusable(Exception):
    """The check cannot run here."""


# Multiplies the limits of waits, for a machine that is busy.
PATIENCE = float(os.environ.get("PATIENCE") or 1)


def wait_for(condition, seconds, period=0.2):
    """What `condition` returns, once that is true; else its last result."""
    end = time.monotonic() + seconds * PATIENCE
    while not (result := condition()) and time.monotonic() < end:
        time.sleep(period)
    return result


# --- programs ---------------------------------------------------------------------------------


def output(*command, **options):
    return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE, **options).stdout.strip()


def built_controller():
    """kustomize-controller, built into the cache unless this module's version of it is there."""
    key = hashlib.sha256(b"".join((HERE / name).read_bytes() for name in ("go.mod", "go.sum"))).hexdigest()[:16]
    program = CACHE / f"kustomize-controller-{key}" / "kustomize-controller"
    if not program.exists():
        print("building kustomize-controller (once, some minutes)", flush=True)
        program.parent.mkdir(parents=True, exist_ok=True)
        unfinished = program.with_suffix(".unfinished")
        build = ["go", "build", "-mod=readonly", "-trimpath", "-ldflags", "-s -w", "-o", unfinished]
        environment = {**os.environ, "CGO_ENABLED": "0", "GOWORK": "off"}
        package = "github.com/fluxcd/kustomize-controller"
        subprocess.run([*build, package], check=True, cwd=HERE, env=environment)
        unfinished.rename(program)
    return program


def crd_folders():
    """Flux's CRDs, as the modules of both controllers have them."""
    environment = {**os.environ, "GOWORK": "off", "GOFLAGS": "-mod=readonly"}
    module = "github.com/fluxcd/source-controller"
    version = output("go", "list", "-m", "-f", "{{.Version}}", module + "/api", cwd=HERE, env=environment)
    sources = json.loads(output("go", "mod", "download", "-json", f"{module}@{version}", cwd="/"))["Dir"]
    applies = output(
        "go", "list", "-m", "-f", "{{.Dir}}", "github.com/fluxcd/kustomize-controller", cwd=HERE, env=environment
    )
    return [Path(folder) / "config/crd/bases" for folder in (applies, sources)]


def kubernetes_programs():
    folder = os.environ.get("KUBEBUILDER_ASSETS") or max(CACHE.glob("kubernetes-*/"), default="", key=str)
    for program in ("etcd", "kube-apiserver", "kubectl"):
        if not folder or not os.access(Path(folder) / program, os.X_OK):
            raise Unusable(f"no {program}: run `cargo test -p testbed --test cluster` first, which builds it")
    return Path(folder)


def operator_programs():
    folder = Path(os.environ.get("OPERATOR_PROGRAMS") or ROOT / "target/debug")
    for program in ("image-export-operator", "ims-simulator"):
        if not os.access(folder / program, os.X_OK):
            raise Unusable(f"no {program} in {folder}: run `cargo build --workspace --bins` first")
    return folder


# --- the API ----------------------------------------------------------------------------------

PLURALS = {
    "Namespace": ("/api/v1", "namespaces"),
    "Secret": ("/api/v1", "secrets"),
    "ConfigMap": ("/api/v1", "configmaps"),
    "Event": ("/api/v1", "events"),
    "ServiceAccount": ("/api/v1", "serviceaccounts"),
    "Job": ("/apis/batch/v1", "jobs"),
    "RoleBinding": ("/apis/rbac.authorization.k8s.io/v1", "rolebindings"),
    "Kustomization": ("/apis/kustomize.toolkit.fluxcd.io/v1", "kustomizations"),
    "GitRepository": ("/apis/source.toolkit.fluxcd.io/v1", "gitrepositories"),
    "ImageExportJob": ("/apis/imageexport.dev/v1alpha1", "imageexportjobs"),
}


def api_version(kind):
    return PLURALS[kind][0].removeprefix("/apis/").removeprefix("/api/")


class Api:
    """The API server, with an administrator's rights."""

    def __init__(self, url, token, certificate):
        self.url, self.token = url, token
        context = ssl.create_default_context(cafile=certificate)
        # The certificate is the server's own, made for this run.
        context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)
        self.opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )

    def call(self, method, path, body=None, content="application/json"):
        """The answer; None for 404."""
        request = urllib.request.Request(self.url + path, method=method)
        request.add_header("Authorization", f"Bearer {self.token}")
        request.add_header("Content-Type", content)
        data = None if body is None else json.dumps(body).encode()
        try:
            with self.opener.open(request, data, timeout=60) as answer:
                text = answer.read()
                return json.loads(text) if text.startswith(b"{") else text
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise RuntimeError(f"{method} {path}: {error.code} {error.read().decode()}") from None

    def path(self, kind, namespace, name=""):
        group, plural = PLURALS[kind]
        inside = "" if kind == "Namespace" else f"/namespaces/{namespace}"
        return f"{group}{inside}/{plural}" + (f"/{name}" if name else "")

    def get(self, kind, namespace, name):
        return self.call("GET", self.path(kind, namespace, name))

    def list(self, kind, namespace):
        return self.call("GET", self.path(kind, namespace))["items"]

    def create(self, kind, namespace, name, **content):
        body = {"apiVersion": api_version(kind), "kind": kind, "metadata": {"name": name}, **content}
        return self.call("POST", self.path(kind, namespace), body)

    def merge(self, kind, namespace, name, change, subresource=""):
        path = self.path(kind, namespace, name) + subresource
        return self.call("PATCH", path, change, "application/merge-patch+json")


# --- the artifacts ----------------------------------------------------------------------------


class Artifacts(http.server.ThreadingHTTPServer):
    """Serves each revision as Flux's source-controller does: a tar.gz under its digest."""

    daemon_threads = True

    def __init__(self):
        self.archives = {}
        super().__init__(("127.0.0.1", 0), ArtifactHandler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def add(self, files):
        """The artifact of a status for these files, by path."""
        buffer = io.BytesIO()
        with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as packed, tarfile.open(fileobj=packed, mode="w") as tar:
            for path, content in sorted(files.items()):
                data = (content if isinstance(content, str) else json.dumps(content)).encode()
                entry = tarfile.TarInfo(path)
                entry.size, entry.mode = len(data), 0o644
                tar.addfile(entry, io.BytesIO(data))
        archive = buffer.getvalue()
        digest = hashlib.sha256(archive).hexdigest()
        self.archives[f"/{digest}.tar.gz"] = archive
        return {
            "digest": f"sha256:{digest}",
            "path": f"{digest}.tar.gz",
            "url": f"http://127.0.0.1:{self.server_address[1]}/{digest}.tar.gz",
            "revision": f"main@sha1:{digest[:40]}",
            "lastUpdateTime": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "size": len(archive),
        }


class ArtifactHandler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        archive = self.server.archives.get(self.path)
        self.send_response(200 if archive else 404)
        self.send_header("Content-Length", str(len(archive or b"")))
        self.end_headers()
        self.wfile.write(archive or b"")

    def log_message(self, *_):
        pass


# --- everything that runs ---------------------------------------------------------------------


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class World:
    """Starts processes, whose logs are in `work`, and ends them at the end of the `with` block."""

    def __init__(self, work):
        self.work = work
        self.processes = []
        self.kubernetes = kubernetes_programs()
        self.programs = operator_programs()
        self.controller = built_controller()
        self.artifacts = Artifacts()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in reversed(self.processes):
            process.terminate()
        for process in self.processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()

    def log(self, name):
        return self.work / f"{name}.log"

    def start(self, name, *command, **environment):
        # Settings and proxies of the shell must not change what runs.
        kept = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith("IMAGE_EXPORT_") and not key.lower().endswith("_proxy")
        }
        log = self.log(name).open("w")
        self.processes.append(
            subprocess.Popen(
                [str(part) for part in command],
                env={**kept, "TMPDIR": str(self.work), **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        )

    def start_kubernetes(self):
        etcd, peer, port = free_port(), free_port(), free_port()
        token = secrets.token_hex(16)
        (self.work / "tokens").write_text(f"{token},admin,admin,system:masters\n")
        key = self.work / "key"
        output("openssl", "genrsa", "-out", str(key), "2048", stderr=subprocess.DEVNULL)
        client, certificates = f"http://127.0.0.1:{etcd}", self.work / "certs"
        self.start(
            "etcd", self.kubernetes / "etcd", "--data-dir", self.work / "etcd", "--unsafe-no-fsync",
            "--listen-client-urls", client, "--advertise-client-urls", client,
            "--listen-peer-urls", f"http://127.0.0.1:{peer}",
        )  # fmt: skip
        self.start(
            "kube-apiserver", self.kubernetes / "kube-apiserver", "--etcd-servers", client,
            "--cert-dir", certificates, "--bind-address", "127.0.0.1", "--advertise-address", "127.0.0.1",
            "--endpoint-reconciler-type", "none", "--secure-port", port, "--authorization-mode", "RBAC",
            "--token-auth-file", self.work / "tokens",
            "--service-account-issuer", "https://kubernetes.default.svc",
            "--service-cluster-ip-range", "10.0.0.0/24",
            "--service-account-key-file", key, "--service-account-signing-key-file", key,
        )  # fmt: skip
        self.server, self.certificate = f"https://127.0.0.1:{port}", certificates / "apiserver.crt"
        if not wait_for(self.certificate.exists, 60):
            raise Unusable(f"the API server did not start: {self.log('kube-apiserver')}")
        self.api = Api(self.server, token, self.certificate)
        self.admin = self.kubeconfig("admin", token)

        def is_ready():
            with contextlib.suppress(OSError, RuntimeError):
                return self.api.call("GET", "/readyz") == b"ok"

        if not wait_for(is_ready, 90):
            raise Unusable(f"the API server did not become ready: {self.log('kube-apiserver')}")
        for folder in (*crd_folders(), ROOT / "crds" / "imageexportjobs.imageexport.dev.yaml"):
            self.kubectl("apply", "--server-side", "-f", folder)
        self.kubectl("apply", "--server-side", "-k", ROOT / "deploy")
        self.kubectl("wait", "--for=condition=Established", "--all", "crd", "--timeout=120s")

    def kubeconfig(self, name, token):
        path = self.work / f"{name}.kubeconfig"
        cluster = {"server": self.server, "certificate-authority": str(self.certificate)}
        config = {
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": cluster}],
            "users": [{"name": "c", "user": {"token": token}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
        }  # fmt: skip
        path.write_text(json.dumps(config))
        return path

    def token(self, namespace, account):
        """A kubeconfig of a ServiceAccount."""
        path = self.api.path("ServiceAccount", namespace, account) + "/token"
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        return self.kubeconfig(f"{namespace}-{account}", self.api.call("POST", path, request)["status"]["token"])

    def kubectl(self, *arguments):
        command = [self.kubernetes / "kubectl", "--kubeconfig", self.admin, *arguments]
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"kubectl {' '.join(map(str, arguments))}: {done.stderr.strip()}")
        return done.stdout

    def start_cloud(self):
        self.start("ims-simulator", self.programs / "ims-simulator", "--project", PROJECT)
        pattern = re.compile(r"listens on (http://\S+)")
        found = wait_for(lambda: pattern.search(self.log("ims-simulator").read_text()), 20)
        if not found:
            raise Unusable(f"the simulator did not start: {self.log('ims-simulator')}")
        self.cloud_url = found.group(1)

    def cloud_job(self, job_id, **job):
        """Creates a job in the cloud, or starts it anew."""
        body = json.dumps({"project_id": PROJECT, "job_id": job_id, **job}).encode()
        request = urllib.request.Request(self.cloud_url + "/admin/jobs", body, {"Content-Type": "application/json"})
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10).close()

    def start_operator(self):
        account = self.token("image-export-operator", "image-export-operator")
        self.start(
            "operator", self.programs / "image-export-operator", "run", "--allow-http",
            "--poll-period", "1", "--http-listen", "127.0.0.1:0", KUBECONFIG=str(account),
        )  # fmt: skip

    def start_controller(self, name, *flags):
        """A kustomize-controller for the Kustomizations with the label `controller: NAME`."""
        self.start(
            name, self.controller, "--watch-label-selector", f"controller={name}", "--metrics-addr", "0",
            "--health-addr", "0", "--requeue-dependency", "5s", *flags,
            KUBECONFIG=str(self.admin), RUNTIME_NAMESPACE="flux-system",
        )  # fmt: skip
