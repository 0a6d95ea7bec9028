"""The operator that a team would write with kopf: a timer for each object. It has the cloud's URL and the token from its
environment, where a real one would read a Secret.
"""

import datetime
import os
import zlib

import aiohttp
import kopf

CLOUD = os.environ["CLOUD_URL"]
TOKEN = os.environ["CLOUD_TOKEN"]
PERIOD = int(os.environ["POLL_PERIOD"])
STREWN = os.environ.get("POLL_STREWN") == "true"

CONDITIONS = {
    "SUCCESS": ("True", "JobSucceeded"),
    "FAIL": ("False", "JobFailed"),
    "INIT": ("Unknown", "JobInitializing"),
}


@kopf.on.startup()
async def connect(memo, **_):
    memo.cloud = aiohttp.ClientSession(
        headers={"X-Auth-Token": TOKEN}, timeout=aiohttp.ClientTimeout(total=20)
    )


@kopf.on.cleanup()
async def disconnect(memo, **_):
    await memo.cloud.close()


def is_unfinished(status, **_):
    return status.get("status") not in ("SUCCESS", "FAIL")


def delay(uid, **_):
    """An instant of its own within the period, where polls are strewn."""
    return PERIOD * (zlib.crc32(uid.encode()) % 1000) / 1000 if STREWN else 0


@kopf.timer(
    "imageexport.dev", "v1alpha1", "imageexportjobs",
    interval=PERIOD, initial_delay=delay, when=is_unfinished, backoff=5,
)
async def poll(spec, status, meta, patch, memo, **_):
    project, job = spec["projectID"], spec["jobID"]
    async with memo.cloud.get(f"{CLOUD}/v1/{project}/jobs/{job}") as response:
        if response.status == 429:
            after = int(response.headers.get("Retry-After", 5))
            raise kopf.TemporaryError("throttled", delay=after)
        response.raise_for_status()
        report = await response.json()
    ready, reason = CONDITIONS.get(report["status"], ("Unknown", "JobRunning"))
    shown = next((c for c in status.get("conditions", []) if c["type"] == "Ready"), {})
    if status.get("status") == report["status"] and shown.get("reason") == reason:
        return
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    patch.status["observedGeneration"] = meta["generation"]
    patch.status["status"] = report["status"]
    patch.status["imageID"] = report["entities"].get("image_id")
    patch.status["failReason"] = report["fail_reason"]
    patch.status["conditions"] = [{
        "type": "Ready",
        "status": ready,
        "reason": reason,
        "message": f"Job {job} is {report['status']}.",
        "observedGeneration": meta["generation"],
        "lastTransitionTime": (
            shown["lastTransitionTime"] if shown.get("status") == ready else now
        ),
    }]
