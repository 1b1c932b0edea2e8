"""Serve the page on this machine: python3 serve.py [PORT], by default http://127.0.0.1:8000.

Its two headers isolate the page from other origins, without which a browser gives WebAssembly no threads.
"""

import functools
import http.server
import sys
from pathlib import Path


class Handler(http.server.SimpleHTTPRequestHandler):
    """Files of this folder, isolated from other origins."""

    extensions_map = {**http.server.SimpleHTTPRequestHandler.extensions_map, ".mjs": "text/javascript"}

    def end_headers(self) -> None:
        """Add the headers of isolation."""
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()


def server(port: int) -> http.server.ThreadingHTTPServer:
    """Return the server, on the loopback interface; port 0 takes a free one."""
    handler = functools.partial(Handler, directory=Path(__file__).parent)
    return http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)


if __name__ == "__main__":
    with server(int(sys.argv[1]) if len(sys.argv) > 1 else 8000) as running:
        print(f"http://127.0.0.1:{running.server_port}")
        running.serve_forever()
