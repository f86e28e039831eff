"""Who may ask, and who answers. The functions are mod_wsgi's; a thread of the gateway asks them, for two seconds at most."""

import hmac

PASSWORDS = {"ann": "secret", "bob": "hush"}
GROUPS = {"ann": ["staff"], "bob": ["guests"]}


def check_password(environ, user, password):
    """True: it is right; False: it is wrong; None: nobody knows the user."""
    if user not in PASSWORDS:
        return None
    return hmac.compare_digest(PASSWORDS[user].encode(), password.encode())


def groups_for_user(environ, user):
    return GROUPS.get(user, [])


def process_group(environ):
    """Reports take long; None leaves it to the mount."""
    return "slow" if environ["PATH_INFO"].startswith("/reports") else None
