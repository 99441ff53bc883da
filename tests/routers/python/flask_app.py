"""Flask: its router matches the decoded path and merges slashes."""

import json
import os
import re

from flask import Flask, jsonify, request
from werkzeug.serving import WSGIRequestHandler, run_simple

app = Flask(__name__, static_folder=None)


class Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, *_):
        pass


def handler(scope):
    def answer(**params):
        reply = jsonify(handler=scope, params=params)
        reply.headers["x-handler"] = scope
        reply.headers["x-path"] = request.environ["REQUEST_URI"].split("?")[0]
        return reply

    return answer


for route in json.load(open(os.environ["ROUTES"])):
    template = re.sub(r"\{(\w+)\+\}", r"<path:\1>", route["path"])
    template = re.sub(r"\{(\w+)\}", r"<\1>", template)
    scope = route["scope"]
    app.add_url_rule(template, scope, handler(scope), methods=[route["method"]])
run_simple("127.0.0.1", int(os.environ["PORT"]), app, threaded=True, request_handler=Quiet)
