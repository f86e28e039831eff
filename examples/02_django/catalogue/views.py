"""The pages. Reading is for everybody, writing for people who have logged in."""

import csv
import logging
import time
from collections.abc import Iterator
from pathlib import PurePath

from django.contrib import messages
from django.contrib.auth.mixins import LoginRequiredMixin
from django.forms import ModelForm
from django.http import FileResponse, HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.http import require_safe
from django.views.generic import CreateView, DetailView, ListView

from catalogue.forms import AttachmentForm, BookForm
from catalogue.models import Attachment, Book

logger = logging.getLogger(__name__)


class BookList(ListView):
    model = Book
    paginate_by = 20


class BookDetail(DetailView):
    queryset = Book.objects.prefetch_related("attachments")


class BookCreate(LoginRequiredMixin, CreateView):
    model = Book
    form_class = BookForm

    def form_valid(self, form: ModelForm) -> HttpResponse:
        response = super().form_valid(form)
        logger.info("book %s added by %s", self.object.pk, self.request.user)
        messages.success(self.request, f"“{self.object}” is on shelf {self.object.shelf}.")
        return response


class AttachmentCreate(LoginRequiredMixin, CreateView):
    model = Attachment
    form_class = AttachmentForm

    def get_context_data(self, **kwargs: object) -> dict[str, object]:
        return super().get_context_data(book=get_object_or_404(Book, pk=self.kwargs["pk"]), **kwargs)

    def form_valid(self, form: ModelForm) -> HttpResponse:
        form.instance.book = get_object_or_404(Book, pk=self.kwargs["pk"])
        response = super().form_valid(form)
        logger.info("%d bytes attached to book %s", self.object.file.size, self.object.book_id)
        return response

    def get_success_url(self) -> str:
        return self.object.book.get_absolute_url()


@require_safe
def download(request: HttpRequest, pk: int) -> FileResponse:
    """A file response goes out through the server's `wsgi.file_wrapper`."""
    attachment = get_object_or_404(Attachment, pk=pk)
    return FileResponse(
        attachment.file.open("rb"), as_attachment=True, filename=PurePath(attachment.file.name).name
    )


class Line:
    """What `csv.writer` needs of a file: it hands the line back instead of keeping it."""

    def write(self, text: str) -> str:
        return text


@require_safe
def export(request: HttpRequest) -> StreamingHttpResponse:
    """The whole catalogue, a line at a time."""
    writer = csv.writer(Line())

    def lines() -> Iterator[str]:
        yield writer.writerow(("title", "author", "year", "shelf"))
        for book in Book.objects.iterator():
            yield writer.writerow((book.title, book.author, book.year, book.shelf))

    return StreamingHttpResponse(lines(), content_type="text/csv; charset=utf-8")


@require_safe
def clock(request: HttpRequest) -> StreamingHttpResponse:
    """Three lines, half a second apart (`?pause=0.5`): each arrives when it is made."""
    pause = float(request.GET.get("pause", "0.5"))

    def lines() -> Iterator[str]:
        for second in range(3):
            if second:
                time.sleep(pause)
            yield f"tick {second}\n"

    return StreamingHttpResponse(lines(), content_type="text/plain; charset=utf-8")


def fail(request: HttpRequest) -> HttpResponse:
    """A bug: Django logs the traceback and answers with `500.html`."""
    raise RuntimeError("this view fails on purpose")
