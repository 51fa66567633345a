"""A page for one's own photographs, served to the browser on this machine and nowhere else.

:mod:`mgca.cli.app.view` computes what the page shows, :mod:`mgca.cli.app.page` lays it out with gradio, and
:mod:`mgca.cli.app.server` serves it. gradio is the extra ``app``.
"""
