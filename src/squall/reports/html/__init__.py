"""The report as one HTML file: `page` puts it together from `sections`, `charts` and `gauges`.

`tags` builds markup that cannot forget to escape; `style.css` and `page.js` are the page's only style and script.
"""

from squall.reports.html.page import to_html

__all__ = ["to_html"]
