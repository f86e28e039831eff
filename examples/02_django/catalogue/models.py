"""Books, and files that people attach to them."""

from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.urls import reverse


class Book(models.Model):
    title = models.CharField(max_length=120, unique=True)
    author = models.CharField(max_length=120)
    year = models.PositiveSmallIntegerField(validators=[MinValueValidator(1450), MaxValueValidator(2100)])
    shelf = models.CharField(max_length=8)
    summary = models.TextField(blank=True)

    class Meta:
        ordering = ("pk",)

    def __str__(self) -> str:
        return self.title

    def get_absolute_url(self) -> str:
        return reverse("catalogue:detail", args=[self.pk])


class Attachment(models.Model):
    book = models.ForeignKey(Book, on_delete=models.CASCADE, related_name="attachments")
    file = models.FileField(upload_to="attachments/")
    added = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("pk",)

    def __str__(self) -> str:
        return self.file.name
