from django.urls import path

from django_site.views import newest

urlpatterns = [path("", newest)]
