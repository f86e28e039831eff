"""A Django project with one page: a query of 20 rows, a template, the middleware of `startproject`."""
