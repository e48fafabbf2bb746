"""A stub of W&B's server on localhost, which can be killed and started again.

python wandb_stub.py PORT FILE      # appends what runs stream to FILE
"""

import json
import re
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Handler(BaseHTTPRequestHandler):
    """Answers as W&B does to what a run asks for."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *words: Any) -> None:
        """Say nothing."""

    def _answer(self, body: Any) -> None:
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _body(self) -> str:
        return self.rfile.read(int(self.headers.get("Content-Length", 0))).decode(errors="replace")

    def do_POST(self) -> None:
        """A question, or lines of a run's history."""
        text = self._body()
        if not self.path.endswith("/graphql"):
            with open(sys.argv[2], "a") as file:
                file.write(text + "\n")
            self._answer({"exitcode": None, "limits": {}})
            return
        asked = json.loads(text)
        match = re.search(r"(?:mutation|query)\s+(\w+)", asked["query"])
        given = asked.get("variables") or {}
        project = {"id": "p", "name": given.get("project") or "x", "entity": {"id": "e", "name": "me"}}
        bucket = {"id": "cnVu", "name": given.get("name") or "run", "displayName": "run", "config": "{}"}
        files = [
            {"name": name, "uploadUrl": f"http://127.0.0.1:{sys.argv[1]}/files/{name}"}
            for name in given.get("files", [])
        ]
        answers = {
            "UpsertBucket": {"upsertBucket": {"bucket": {**bucket, "project": project}, "inserted": True}},
            "RunResumeStatus": {"model": {**project, "bucket": None}},
            "CreateRunFiles": {"createRunFiles": {"runID": "cnVu", "uploadHeaders": [], "files": files}},
        }
        self._answer({"data": answers.get(match[1] if match else "", {})})

    def do_PUT(self) -> None:
        """A file of a run."""
        self._body()
        self._answer({})


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
