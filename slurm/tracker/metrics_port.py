"""`elm-queue metrics --port N`: the metrics over HTTP, for this machine alone."""

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from conf.errors import InputError
from slurm.tracker import metrics

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def serve(port: int) -> None:
    """Serves /metrics on 127.0.0.1 until it is interrupted."""
    if not 1 <= port <= 65535:
        raise InputError(f"--port: found {port}; allowed is 1 to 65535")
    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    except OSError as error:
        raise InputError(f"--port: {port} cannot be used ({error.strerror})") from error
    with server:
        server.serve_forever()


class Handler(BaseHTTPRequestHandler):
    """Answers GET /metrics; says nothing else to anybody."""

    def do_GET(self) -> None:
        if self.path != "/metrics":
            self.send_error(404)
            return
        content = metrics.text()[0].encode()
        self.send_response(200)
        self.send_header("Content-Type", CONTENT_TYPE)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Requests are not logged."""
