"""A script as mod_wsgi has it: a file, and in it `application`."""


def application(environ, start_response):
    body = f"Served by process group {environ['gatekeep.process_group']}.\n".encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
