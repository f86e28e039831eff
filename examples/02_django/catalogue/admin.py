from django.contrib import admin

from catalogue.models import Attachment, Book


class AttachmentInline(admin.TabularInline):
    model = Attachment
    extra = 0


@admin.register(Book)
class BookAdmin(admin.ModelAdmin):
    list_display = ("title", "author", "year", "shelf")
    list_filter = ("shelf",)
    search_fields = ("title", "author")
    inlines = (AttachmentInline,)
