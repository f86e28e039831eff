"""`python manage.py prepare`: all that the demonstration needs before it is served. It may be run again."""

from argparse import ArgumentParser

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management import BaseCommand, call_command

from catalogue.models import Book

AUTHORS = (
    "Ada Ferrier",
    "Björn Åkesson",
    "Chiara Conti",
    "Dániel Szabó",
    "Estelle Noé",
    "Femi Adeyemi",
    "古川 玄",
)
SUBJECTS = ("Gates", "Locks", "Queues", "Bridges")
KINDS = ("A History of", "Notes on", "The Care of", "Letters about", "An Atlas of", "Songs of", "Against")


class Command(BaseCommand):
    help = "Migrate, collect static files, and create the demonstration's books and its user."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--user", default="admin", help="The user's name (and password).")

    def handle(self, *, user: str, verbosity: int, **options: object) -> None:
        """Do it all; what exists already stays."""
        call_command("migrate", verbosity=0, interactive=False)
        call_command("collectstatic", verbosity=0, interactive=False)
        create_books()
        create_user(user)
        self.stdout.write(f"{Book.objects.count()} books and the user {user!r} are in {settings.DATA_DIR}")


def create_books() -> None:
    """28 books, always the same."""
    titles = [f"{kind} {subject}" for subject in SUBJECTS for kind in KINDS]
    Book.objects.bulk_create(
        (
            Book(
                title=title,
                author=AUTHORS[number * 3 % len(AUTHORS)],
                year=1890 + number * 37 % 130,
                shelf=f"{'ABCD'[number % 4]}{number % 9 + 1}",
                summary=f"{title}, in {number % 5 + 2} chapters & an index. " * 3,
            )
            for number, title in enumerate(titles)
        ),
        ignore_conflicts=True,
    )


def create_user(name: str) -> None:
    """Somebody who may do everything, with a password that is good for a demonstration only."""
    users = get_user_model().objects
    if not users.filter(username=name).exists():
        users.create_superuser(name, password=name)
