from django import forms

from catalogue.models import Attachment, Book


class BookForm(forms.ModelForm):
    class Meta:
        model = Book
        fields = ("title", "author", "year", "shelf", "summary")

    def clean_shelf(self) -> str:
        """A shelf is a letter and a number."""
        shelf: str = self.cleaned_data["shelf"].upper()
        if not (shelf[:1].isalpha() and shelf[1:].isdigit()):
            raise forms.ValidationError("A shelf is a letter and a number, for instance B12.")
        return shelf


class AttachmentForm(forms.ModelForm):
    class Meta:
        model = Attachment
        fields = ("file",)
