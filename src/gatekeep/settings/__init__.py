"""What a gateway is told: every setting declared once, and the places that it may come from.

`_spec` says how one is declared, `_settings` holds all of them. `_layers` puts together what profiles, files, the environment and
the command line say; `_file` reads a file.
"""
