"""An application that tells who asks, and where it runs."""


def application(environ, start_response):
    user = environ.get("REMOTE_USER", "somebody")
    body = f"Hello {user}, this is process group {environ['gatekeep.process_group']}.\n".encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
