from django.urls import path

from catalogue import views

app_name = "catalogue"

urlpatterns = [
    path("", views.BookList.as_view(), name="list"),
    path("new/", views.BookCreate.as_view(), name="create"),
    path("export.csv", views.export, name="export"),
    path("clock/", views.clock, name="clock"),
    path("fail/", views.fail, name="fail"),
    path("<int:pk>/", views.BookDetail.as_view(), name="detail"),
    path("<int:pk>/attach/", views.AttachmentCreate.as_view(), name="attach"),
    path("attachments/<int:pk>/", views.download, name="download"),
]
