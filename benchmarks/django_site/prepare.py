"""Makes the database of the Django page: `BENCHMARK_DATABASE=FILE python -m django_site.prepare`."""

import os
from datetime import UTC, datetime, timedelta

import django

ARTICLES = 200


def prepare():
    """Creates the one table and fills it. Raises OperationalError when the table is there already."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "django_site.settings")
    django.setup()

    from django.db import connection

    from django_site.models import Article

    with connection.schema_editor() as editor:
        editor.create_model(Article)
    start = datetime(2024, 1, 1, 12, tzinfo=UTC)
    Article.objects.bulk_create(
        Article(
            title=f"article number {number} & its title",
            summary=f"A summary of some twenty words, one of them the number, for article {number} "
            f"of {ARTICLES}, which nobody is meant to read.",
            published=start + timedelta(hours=number),
        )
        for number in range(ARTICLES)
    )


if __name__ == "__main__":
    prepare()
