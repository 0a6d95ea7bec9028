"""What the checks and the picture share: the alerts, the dashboard, their queries, and Prometheus's programs."""

import itertools
import json
import os
import pathlib
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
ALERTS = ROOT / "deploy/chart/files/alerts.yaml"
ALERTS_PER_OBJECT = ROOT / "deploy/monitoring/alerts-per-object.yaml"
DASHBOARD = ROOT / "deploy/chart/files/dashboard.json"
RUNBOOKS = ROOT / "docs/runbooks"

# Labels that Prometheus gives each target.
TARGET_LABELS = {"cluster", "namespace", "job", "pod", "container", "instance"}

# Metrics of others than the operator, with their own labels.
ELSEWHERE = {
    "up": set(),
    "ALERTS": {"alertname", "alertstate", "severity"},
    "kube_pod_container_resource_limits": {"resource"},
    "imageexportjob_condition": {"name", "type", "status", "reason"},
}


def tool(name):
    """The path of promtool or prometheus: on the PATH, else of Debian's package, which is kept in the cache."""
    if found := shutil.which(name):
        return found
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    cache = pathlib.Path(os.environ.get("IMAGE_EXPORT_TESTBED_CACHE") or f"{home}/image-export-operator")
    folder = cache / f"prometheus-{platform.machine()}"
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as work:
            try:
                run = {"cwd": work, "check": True, "capture_output": True, "text": True}
                subprocess.run(["apt-get", "download", "prometheus"], **run)
                [package] = pathlib.Path(work).glob("*.deb")
                subprocess.run(["dpkg", "-x", package, "unpacked"], **run)
                (pathlib.Path(work) / "unpacked/usr/bin").rename(folder)
            except (OSError, ValueError, subprocess.CalledProcessError) as error:
                cause = (getattr(error, "stderr", "") or str(error)).strip().splitlines()[-1]
                sys.exit(f"{name} is not on the PATH, and `apt-get download prometheus` does not help ({cause}): "
                         "put the programs of https://prometheus.io/download/ on the PATH")
    return str(folder / name)


def read(source):
    """The text of a file or URL."""
    if source.startswith(("http://", "https://")):
        # Loopback is reached without a proxy.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        return opener.open(source, timeout=10).read().decode()
    return pathlib.Path(source).read_text()


def alerts(path):
    """The alerts of a rule file, as dictionaries. Reads the subset of YAML in which these files are written."""
    found, block = [], None
    for number, line in enumerate(path.read_text().splitlines(), 1):
        text, indent = line.strip(), len(line) - len(line.lstrip())
        if not text or (text.startswith("#") and block is None):
            continue
        if block and indent > block[0]:
            found[-1][block[1]] += (" " if found[-1][block[1]] else "") + text
            continue
        block = None
        if text.startswith("#"):
            continue
        key, colon, value = text.removeprefix("- ").partition(":")
        value = value.strip()
        if not colon:
            sys.exit(f"{path}:{number}: not read: {text}")
        if key in ("groups", "name", "rules", "labels", "annotations"):
            continue
        if key == "alert":
            found.append({})
        if value in (">-", "|-"):
            block, value = (indent, key), ""
        found[-1][key] = value
    return found


def panels(dashboard):
    """The panels of a dashboard, those in collapsed rows included."""
    for panel in dashboard["panels"]:
        yield panel
        yield from panel.get("panels", [])


def expand(expr, values):
    """The query as Grafana sends it: with these values of its variables."""
    for name, value in values.items():
        expr = expr.replace(f"${name}", value)
    if "$" in expr:
        sys.exit(f"a variable that the dashboard does not have: {expr}")
    return expr


TOKEN = re.compile(r'\s+|(?P<string>"(?:[^"\\]|\\.)*")|(?P<name>[a-zA-Z_:][\w:]*)|(?P<number>\d[\w.]*)'
                   r'|(?P<sign>=~|!~|!=|==|>=|<=|[-+*/%^<>=(){}\[\],])')
WORDS = {"and", "or", "unless", "offset", "bool"}
GROUPING = {"by", "without", "on", "ignoring", "group_left", "group_right"}


def parse(expr):
    """The selectors of a query, each a metric with its matchers, and the labels by which it groups and joins."""
    tokens, at = [], 0
    while at < len(expr):
        match = TOKEN.match(expr, at)
        if not match:
            sys.exit(f"not understood at {expr[at:at + 20]!r}: {expr}")
        at = match.end()
        if match.lastgroup:
            tokens.append((match.lastgroup, match.group()))
    tokens.append(("sign", ""))
    selectors, labels, i = [], set(), 0
    while i < len(tokens) - 1:
        kind, text = tokens[i]
        i += 1
        if kind != "name" or text in WORDS:
            if text == "{":
                sys.exit(f"a selector without a metric: {expr}")
            continue
        following = tokens[i][1]
        if text in GROUPING:
            if following == "(":
                while tokens[i][1] != ")":
                    i += 1
                    if tokens[i][0] == "name":
                        labels.add(tokens[i][1])
            continue
        if following == "(" or following in ("by", "without"):
            continue
        matchers = []
        if following == "{":
            i += 1
            while tokens[i][1] != "}":
                if tokens[i][1] == ",":
                    i += 1
                    continue
                (_, label), (_, operator), (_, value) = tokens[i:i + 3]
                matchers.append((label, operator, json.loads(value)))
                i += 3
            i += 1
        selectors.append((text, matchers))
    return selectors, labels


SAMPLE = re.compile(r'(?P<name>[a-zA-Z_:][\w:]*)(?:\{(?P<labels>.*)\})? \S+')
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def exposition(text):
    """The series of a text of metrics: the labels of each, by metric."""
    series = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            match = SAMPLE.match(line)
            if not match:
                sys.exit(f"not a sample: {line}")
            series.setdefault(match["name"], []).append(dict(LABEL.findall(match["labels"] or "")))
    return series


def alternatives(operator, value):
    """The values that a matcher asks for, or `None` where it is no plain list of them."""
    if operator == "=":
        return [value]
    if operator == "=~" and re.fullmatch(r"[\w|]+", value):
        return value.split("|")
    return None


def missing(expr, series, reasons):
    """What a query asks for that is not among the series, where the value `None` of a label stands for any.
    `reasons`: those of imageexport_objects, which are not all there at once."""
    selectors, grouped = parse(expr)
    known = set(TARGET_LABELS)
    for metric, matchers in selectors:
        own = [match for match in matchers if match[0] not in TARGET_LABELS]
        if metric in ELSEWHERE:
            known |= ELSEWHERE[metric]
            for label, *_ in own:
                if label not in ELSEWHERE[metric]:
                    yield f"{metric} has no label {label}"
            continue
        if metric not in series:
            yield f"there is no metric {metric}"
            continue
        found = list(series[metric])
        if metric == "imageexport_objects":
            found += [{"reason": reason} for reason in reasons]
        labels = {label for one in found for label in one}
        known |= labels
        for label, *_ in own:
            if label not in labels:
                yield f"{metric} has no label {label}"
        asked = [(label, alternatives(operator, value)) for label, operator, value in own]
        plain = [(label, values) for label, values in asked if values]
        for values in itertools.product(*(values for _, values in plain)):
            wanted = dict(zip((label for label, _ in plain), values))
            if not any(all(one.get(label, "") in (value, None) for label, value in wanted.items()) for one in found):
                yield f"there is no {metric} with {wanted}"
        for label, operator, value in own:
            # What is left out has to exist as well.
            for value in value.split("|") if operator in ("!=", "!~") else []:
                if not any(one.get(label, "") in (value, None) for one in found):
                    yield f"there is no {metric} with {label} {value}, which is left out"
            if operator == "=~" and alternatives(operator, value) is None:
                if not any(one.get(label, "") is None or re.fullmatch(value, one.get(label, "")) for one in found):
                    yield f"there is no {metric} with {label} like {value}"
    for label in sorted(grouped - known):
        yield f"no metric has the label {label}"
