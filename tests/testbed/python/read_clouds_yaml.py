"""Prints how openstacksdk reads entry `otc` of each file that is an argument: one JSON object a line, of the
fields that matter for the image service, or with the field `error`. Sends no request."""

import json
import os
import sys
import warnings

import openstack.config

warnings.simplefilter("ignore")


def read(path):
    config = openstack.config.OpenStackConfig(
        config_files=[path], secure_files=[], vendor_files=[], load_envvars=False
    )
    cloud = config.get_one(cloud="otc")
    verify, _ = cloud.get_requests_verify_args()
    fields = {name: value for name, value in cloud.config["auth"].items() if value}
    fields |= {
        "auth_type": cloud.config["auth_type"],
        "region": cloud.get_region_name("image"),
        "interface": cloud.get_interface("image"),
        "endpoint": cloud.get_endpoint("image"),
        "verify": verify,
    }
    return {name: value for name, value in fields.items() if value not in (None, "")}


for path in sys.argv[1:]:
    try:
        reading = read(path)
    except Exception as error:
        reading = {"error": type(error).__name__}
    print(json.dumps(reading))
# Threads of its cache would hold the process.
sys.stdout.flush()
os._exit(0)
