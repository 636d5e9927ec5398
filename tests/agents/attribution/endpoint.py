"""A real HTTP server on this machine that speaks the wire format of OpenAI's chat completions, well or badly."""

import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def completion(content, **message):
    """A response body with one choice."""
    finish = message.pop("finish_reason", "stop")
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": content, **message}}
    return {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}


class Endpoint:
    """What the server answers, one entry per request (the last one for ever), and what it was asked.

    An entry is a body for status 200, (status, body, headers), or a function of the request's handler.
    """

    def __init__(self, url, answers):
        self.url, self.answers = url, list(answers)
        self.requests, self.keys, self.released = [], [], threading.Event()

    def next(self):
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@contextmanager
def serving(*answers):
    """The address of a server that gives these answers."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            endpoint.requests.append(json.loads(body))
            endpoint.keys.append(self.headers.get("Authorization"))
            assert self.path == "/v1/chat/completions"
            answer = endpoint.next()
            if callable(answer):
                answer(self, endpoint)
            else:
                send(self, *(answer if isinstance(answer, tuple) else (200, answer, {})))

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    endpoint = Endpoint(f"http://127.0.0.1:{server.server_port}/v1", answers)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield endpoint
    finally:
        endpoint.released.set()
        server.shutdown()
        server.server_close()
        thread.join()


def send(handler, status, body, headers):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    handler.send_response(status)
    for name, value in {"Content-Type": "application/json", "Content-Length": str(len(content)), **headers}.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(content)


def rate_limit(milliseconds=5):
    return 429, {"error": {"message": "slow down"}}, {"retry-after-ms": str(milliseconds)}


def hang(handler, endpoint):
    """Never answers."""
    endpoint.released.wait(20)


def dribble(handler, endpoint):
    """Sends a byte now and then, so that no time-out between bytes is ever reached."""
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.end_headers()
    while not endpoint.released.wait(0.02):
        try:
            handler.wfile.write(b" ")
            handler.wfile.flush()
        except OSError:
            return


def break_off(handler, endpoint):
    """Closes the connection in the middle of the body."""
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"id": "1", "choices": [{"index"')
    handler.wfile.flush()
    time.sleep(0.01)
    handler.connection.close()
