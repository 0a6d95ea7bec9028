"""Serves Keystone on a free port of 127.0.0.1 and prints its base URL. OS_KEYSTONE_CONFIG_FILES names
its configuration.

One process, because Keystone's caches are in its memory and a second one would not notice what the
first changes; one thread, because several that meet in Keystone's lazy initialisation answer 500 and
403. A request takes about 20 ms, all of it computation."""

import socket

import waitress
from keystone.conf import CONF
from keystone.wsgi.api import application

listener = socket.create_server(("127.0.0.1", 0))
url = "http://127.0.0.1:{}".format(listener.getsockname()[1])
# Links, and the catalog's own entry, which refers to this setting.
CONF.set_override("public_endpoint", url)
print(url, flush=True)
waitress.serve(application, sockets=[listener], threads=1)
