"""Tests of deploy/image/build that need no compiler: python3 deploy/image/test_build.py"""

import hashlib
import importlib.machinery
import importlib.util
import io
import json
import re
import struct
import subprocess
import sys
import tarfile
import tempfile
import unittest
import zlib
from pathlib import Path

sys.dont_write_bytecode = True
FOLDER = Path(__file__).resolve().parent
loader = importlib.machinery.SourceFileLoader("build", str(FOLDER / "build"))
build = importlib.util.module_from_spec(importlib.util.spec_from_loader("build", loader))
loader.exec_module(build)

EPOCH = 1_700_000_000
FILES = {"image-export-operator": (0o755, b"program"), "etc/ssl/certs/ca-certificates.crt": (0o644, b"PEM")}
LABELS = {
    "org.opencontainers.image.created": "2023-11-14T22:13:20Z",
    "org.opencontainers.image.licenses": "Apache-2.0",
}
CRATES = [
    {"name": "a", "version": "1.0.0", "source": "crates.io", "dependencies": [1]},
    {"name": "b", "version": "2.0.0", "source": "crates.io", "kind": "build"},
    {"name": "image-export-operator", "version": "0.1.0", "source": "local", "root": True, "dependencies": [0]},
]


def archive(platforms=("linux/amd64",), files=FILES, labels=LABELS):
    return build.oci_archive({name: files for name in platforms}, "host/name:v1", labels, EPOCH)


def metadata(scratch, source):
    """What `cargo metadata` prints, as far as it is read, with this source of the crate of authorities."""
    crate = Path(scratch) / build.AUTHORITIES
    (crate / "src").mkdir(parents=True)
    (crate / "src" / "lib.rs").write_text(source)
    one = {"version": "1.0.0", "license": "MIT/Apache-2.0", "manifest_path": str(crate / "Cargo.toml")}
    versions = {"a": "1.0.0", "b": "2.0.0", "image-export-operator": "0.1.0", build.AUTHORITIES: "1.0.9"}
    return {"packages": [{**one, "name": name, "version": version} for name, version in versions.items()]}


AUTHORITY = 'b"\\x30\\x0A\\xFF"'
SOURCE = f'   // "An Authority"\n   CertificateDer::from_slice({AUTHORITY}),\n'


class TheArchive(unittest.TestCase):
    def test_depends_on_its_input_alone(self):
        self.assertEqual(archive(), archive())
        reordered = archive(files=dict(reversed(FILES.items())))
        self.assertEqual(archive(), reordered)
        changed = archive(files={**FILES, "more": (0o644, b"")})
        self.assertNotEqual(archive()[1], changed[1])
        self.assertNotEqual(archive()[1], archive(labels={**LABELS, "x": "y"})[1])

    def test_names_each_blob_by_its_digest_and_lacks_none(self):
        for platforms in (["linux/amd64"], ["linux/amd64", "linux/arm64"]):
            content, digest = archive(platforms)
            with tarfile.open(fileobj=io.BytesIO(content)) as opened:
                files = {one.name: opened.extractfile(one).read() for one in opened if one.isfile()}
            named = set()

            def follow(value):
                if isinstance(value, dict) and "digest" in value:
                    blob = files["blobs/" + value["digest"].replace(":", "/")]
                    self.assertEqual(value["digest"], "sha256:" + hashlib.sha256(blob).hexdigest())
                    self.assertEqual(value["size"], len(blob))
                    named.add(value["digest"])
                    if value["mediaType"].endswith("+json"):
                        follow(json.loads(blob))
                for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else []:
                    follow(part)

            index = json.loads(files["index.json"])
            follow(index)
            self.assertEqual(index["manifests"][0]["digest"], digest)
            self.assertEqual(len(named), sum(name.startswith("blobs/") for name in files))

    def test_runs_the_program_as_a_number_that_is_not_root(self):
        content, _ = archive()
        with tarfile.open(fileobj=io.BytesIO(content)) as opened:
            config = opened.extractfile(json.load(opened.extractfile("manifest.json"))[0]["Config"])
            config = json.load(config)["config"]
        self.assertEqual(config["User"], "65532:65532")
        self.assertEqual(config["Entrypoint"], ["/image-export-operator"])

    def test_has_files_of_root_that_nobody_else_writes(self):
        with tarfile.open(fileobj=io.BytesIO(build.tar(FILES, EPOCH))) as opened:
            entries = opened.getmembers()
        self.assertEqual([one.name for one in entries], sorted(one.name for one in entries))
        self.assertIn("etc/ssl", [one.name for one in entries])
        for one in entries:
            self.assertEqual((one.uid, one.gid, one.mtime, one.mode & 0o7022), (0, 0, EPOCH, 0), one.name)


class TheContents(unittest.TestCase):
    def test_authorities_become_pem(self):
        with tempfile.TemporaryDirectory() as scratch:
            bundle, version = build.ca_bundle(metadata(scratch, SOURCE))
        self.assertEqual(version, "1.0.9")
        self.assertEqual(
            bundle.decode(), "# An Authority\n-----BEGIN CERTIFICATE-----\nMAr/\n-----END CERTIFICATE-----\n"
        )

    def test_an_authority_in_another_form_is_an_error_and_not_left_out(self):
        for source in ("", SOURCE + SOURCE.replace("\\x30", "0")):
            with tempfile.TemporaryDirectory() as scratch, self.assertRaises(build.Problem):
                build.ca_bundle(metadata(scratch, source))

    def test_crates_are_read_from_the_program(self):
        data = zlib.compress(json.dumps({"packages": CRATES}).encode())
        names = b"\0.text\0.dep-v0\0"
        header = struct.pack("<40xQ10xHHH", 64 + len(data) + len(names), 64, 3, 2)
        section = "<IIQQQQ24x"
        table = struct.pack(section, 1, 0, 0, 0, 0, 0)
        table += struct.pack(section, 7, 0, 0, 0, len(header), len(data))
        table += struct.pack(section, 0, 0, 0, 0, len(header) + len(data), len(names))
        with tempfile.TemporaryDirectory() as scratch:
            program = Path(scratch) / "program"
            program.write_bytes(header + data + names + table)
            self.assertEqual(build.embedded_crates(program), CRATES)
            program.write_bytes(program.read_bytes().replace(b".dep-v0", b".deps-0"))
            with self.assertRaises(build.Problem):
                build.embedded_crates(program)

    def test_the_list_of_contents_is_complete(self):
        with tempfile.TemporaryDirectory() as scratch:
            described = metadata(scratch, SOURCE)
            listed = build.sbom([CRATES, CRATES], described, "host/name:v1", "sha256:00", LABELS)
        components = {one["name"]: one for one in listed["components"]}
        self.assertEqual(
            set(components), {"a", "b", "image-export-operator", "rust-std", "ca-certificates"}
        )
        self.assertEqual(components["a"]["licenses"], [{"expression": "MIT OR Apache-2.0"}])
        self.assertEqual(components["b"]["scope"], "excluded")
        refs = {one["bom-ref"] for one in listed["components"]} | {listed["metadata"]["component"]["bom-ref"]}
        self.assertEqual(refs, {one["ref"] for one in listed["dependencies"]})
        for one in listed["dependencies"]:
            self.assertLessEqual(set(one["dependsOn"]), refs)


class TheCommand(unittest.TestCase):
    def test_wrong_usage_is_told_before_anything_is_built(self):
        for arguments in ([], ["a", "--rootfs", "b"], ["a", "--platform", "linux/s390x"], ["a", "--name", "x"]):
            done = subprocess.run([sys.executable, FOLDER / "build", *arguments], capture_output=True)
            self.assertEqual(done.returncode, 2, arguments)

    def test_the_containerfile_has_the_same_rust_user_and_program(self):
        containerfile = (FOLDER / "Containerfile").read_text()
        self.assertIn(f"/rust:{build.RUST}-", containerfile)
        self.assertIn(f"\nUSER {build.USER}\n", containerfile)
        self.assertIn(f'\nENTRYPOINT ["/{build.PROGRAM}"]\n', containerfile)
        self.assertIn(f'source="{build.SOURCE}"', containerfile)
        oldest = re.search('rust-version = "(.*)"', (build.ROOT / "Cargo.toml").read_text()).group(1)
        numbers = lambda version: [int(part) for part in version.split(".")]
        self.assertGreaterEqual(numbers(build.RUST), numbers(oldest))


if __name__ == "__main__":
    unittest.main()
