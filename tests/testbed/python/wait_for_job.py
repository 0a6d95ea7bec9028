"""Waits for the job that is the only argument, as a user of otcextensions does, and prints it as JSON.
The cloud is the entry `otc` of the clouds.yaml that OS_CLIENT_CONFIG_FILE names."""

import json
import sys

import openstack
from otcextensions import sdk

connection = openstack.connect(cloud="otc")
sdk.register_otc_extensions(connection)
job = connection.imsv1.wait_for_async_job(sys.argv[1], timeout=300, wait=0.2)
print(json.dumps(job.to_dict(computed=False, original_names=True)))
