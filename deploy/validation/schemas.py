"""Schemas for kubeconform and kubectl-validate, made of what Kubernetes publishes, and of CRDs."""

import json
import pathlib
import sys

import yaml


def strict(schema):
    """With no fields but those that are named, unless the schema says otherwise."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {key: strict(value) for key, value in schema.items()}
    open_ended = "x-kubernetes-preserve-unknown-fields" in schema or "additionalProperties" in schema
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object" and not open_ended:
        schema["additionalProperties"] = False
    if schema.get("x-kubernetes-int-or-string") is True:
        schema.pop("type", None)
    return schema


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def kubeconform(kind, group, version):
    """The file that kubeconform looks for: of the group, it takes the first label."""
    names = [kind, group.split(".")[0], version]
    return out / "kubeconform" / ("-".join(filter(None, names)).lower() + ".json")


out, openapi = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
for source in [openapi / "api__v1_openapi.json", *openapi.glob("apis__*__*_openapi.json")]:
    document = json.loads(source.read_text())
    place = source.name.removesuffix("_openapi.json").replace("__", "/")
    group_version = place.split("/")[1:]
    write(out / "openapi" / f"{place}.json", document)
    schemas = document["components"]["schemas"]
    components = {"schemas": strict(schemas)}
    for name, schema in schemas.items():
        for kind in schema.get("x-kubernetes-group-version-kind", []):
            if [part for part in (kind["group"], kind["version"]) if part] != group_version:
                continue
            file = kubeconform(kind["kind"], kind["group"], kind["version"])
            write(file, {"$ref": f"#/components/schemas/{name}", "components": components})

for source in map(pathlib.Path, sys.argv[3:]):
    text = source.read_text()
    crd = yaml.safe_load(text)
    write(out / "crds" / source.name, text)
    spec = crd["spec"]
    for version in spec["versions"]:
        schema = strict(version["schema"]["openAPIV3Schema"])
        kind = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"}}
        schema["properties"].update(kind)
        write(kubeconform(spec["names"]["kind"], spec["group"], version["name"]), schema)
