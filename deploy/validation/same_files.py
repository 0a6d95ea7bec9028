"""Compares the alerts and the dashboard in what Helm made of the chart with their files."""

import json
import pathlib
import sys

import yaml

manifests, folder = map(pathlib.Path, sys.argv[1:])
objects = {o["kind"]: o for o in yaml.safe_load_all(manifests.read_text()) if o}
alerts = yaml.safe_load((folder / "alerts.yaml").read_text())
dashboard = json.loads((folder / "dashboard.json").read_text())
made = json.loads(objects["ConfigMap"]["data"]["image-export-operator.json"])
if objects["PrometheusRule"]["spec"] != alerts:
    sys.exit("the PrometheusRule is not alerts.yaml")
if made != dashboard:
    sys.exit("the dashboard is not dashboard.json")
