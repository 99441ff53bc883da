"""A stand-in for the API of docs/envoy.md: it answers every request with what it got, in JSON.

python3 upstream.py [ADDRESS:PORT], by default 127.0.0.1:8081
"""

import http.server
import json
import sys


class Upstream(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        self.rfile.read(int(self.headers.get("content-length") or 0))
        got = {"method": self.command, "path": self.path, "headers": list(self.headers.items())}
        body = json.dumps(got).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = answer

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    host, port = (sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:8081").rsplit(":", 1)
    http.server.ThreadingHTTPServer((host, int(port)), Upstream).serve_forever()
