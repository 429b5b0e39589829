"""The report of a build: one page that needs nothing else, and the same data as JSON and Markdown."""
