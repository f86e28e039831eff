from django.shortcuts import render

from django_site.models import Article


def newest(request):
    return render(request, "newest.html", {"articles": Article.objects.order_by("-published")[:20]})
