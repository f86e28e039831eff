from django.db import models


class Article(models.Model):
    title = models.CharField(max_length=200)
    summary = models.TextField()
    published = models.DateTimeField(db_index=True)

    def __str__(self):
        return self.title
