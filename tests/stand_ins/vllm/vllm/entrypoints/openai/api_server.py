"""A stand-in for vLLM's server: its flags and its key, and answers that say which ids came."""

import argparse
import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

parser = argparse.ArgumentParser()
for flag in ("--model", "--host", "--served-model-name"):
    parser.add_argument(flag, required=True)
parser.add_argument("--port", type=int, required=True)
parser.add_argument("--max-num-seqs", type=int)
parser.add_argument("--disable-uvicorn-access-log", action="store_true", required=True)
GIVEN = parser.parse_args()
KEY = os.environ["VLLM_API_KEY"]


class Handler(BaseHTTPRequestHandler):
    """Answers /health, and a completion with its prompt and the path of its request."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        right = self.headers["authorization"] == f"Bearer {KEY}"
        choice = {"index": 0, "text": json.dumps([self.path, body.get("prompt")]), "finish_reason": "stop"}
        found = {"id": "x", "model": body["model"], "choices": [choice], "usage": {"completion_tokens": 3}}
        self.send_response(200 if right else 401)
        self.end_headers()
        self.wfile.write(json.dumps(found).encode())

    def log_message(self, *words: object) -> None:
        """Say nothing."""


ThreadingHTTPServer((GIVEN.host, GIVEN.port), Handler).serve_forever()
