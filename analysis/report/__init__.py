"""Parts that all reports share: the HTML page with its explorer of responses, and Markdown."""
