"""A proxy before an S3 server that counts requests and breaks chosen ones."""

import contextlib
import http.client
import socket
import struct
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

ERROR = '<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{0}</Code><Message>the proxy says {0}</Message></Error>'
SAME = ("content-length", "connection", "transfer-encoding", "date", "server")


class Proxy:
    """Where it listens, what went through, and what becomes of the next request.

    ``decide(method, path)`` is called with every request, in its thread, and returns ``None`` to let it through, or a
    fault: ``("answer", status, code)``, ``("reset",)`` (before it is forwarded), ``("lost",)`` (after it was done),
    ``("truncate",)``, ``("alter",)`` (one byte of the answer).
    """

    def __init__(self, upstream):
        self.upstream = urlsplit(upstream)
        self.requests = []
        self.decide = lambda method, path: None
        self.lock = threading.Lock()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"

    def count(self, method):
        return sum(m == method for m, _ in self.requests)

    def _handler(proxy):
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *arguments):
                pass

            def handle_any(self):
                size = int(self.headers.get("content-length") or 0)
                body = self.rfile.read(size)
                with proxy.lock:
                    proxy.requests.append((self.command, self.path))
                    fault = proxy.decide(self.command, self.path)
                if fault is not None and fault[0] == "answer":
                    return self.reply(fault[1], [], ERROR.format(fault[2]).encode())
                if fault == ("reset",):
                    return self.reset()
                status, headers, answer = proxy.forward(self, body)
                if fault == ("lost",):
                    return self.reset()
                if fault == ("alter",) and answer:
                    answer = bytes([answer[0] ^ 1]) + answer[1:]
                return self.reply(status, headers, answer, cut=fault == ("truncate",))

            def handle(self):
                with contextlib.suppress(ConnectionError):  # whoever asked may be killed
                    super().handle()

            def reset(self):
                linger = struct.pack("ii", 1, 0)
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                self.close_connection = True
                self.connection.close()

            def reply(self, status, headers, answer, *, cut=False):
                self.send_response_only(status)
                for name, value in headers:
                    self.send_header(name, value)
                length = next((v for n, v in headers if n.lower() == "x-length"), str(len(answer)))  # HEAD has no body
                self.send_header("Content-Length", length)
                self.end_headers()
                self.wfile.write(answer[: len(answer) // 2] if cut else answer)
                self.close_connection = cut

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_any

        return Handler

    def forward(self, handler, body):
        connection = http.client.HTTPConnection(self.upstream.hostname, self.upstream.port)
        try:
            connection.request(handler.command, handler.path, body, dict(handler.headers))
            answer = connection.getresponse()
            headers = [(name, value) for name, value in answer.getheaders() if name.lower() not in SAME]
            if handler.command == "HEAD":
                headers.append(("x-length", answer.getheader("content-length", "0")))
            return answer.status, headers, answer.read()
        finally:
            connection.close()


def every(number, fault, method, part):
    """Let every request of a kind fail until it was tried `number` times; then let it through."""
    tries = {}

    def decide(asked, path):
        if asked != method or part not in path:
            return None
        tries[path] = tries.get(path, 0) + 1
        return fault if tries[path] <= number else None

    return decide


@contextlib.contextmanager
def s3_proxy(upstream):
    """Run a proxy before the server at `upstream`."""
    proxy = Proxy(upstream)
    thread = threading.Thread(target=proxy.server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield proxy
    finally:
        proxy.server.shutdown()
        proxy.server.server_close()
        thread.join()
