"""The wing of books: watch lists that outlive the process, and are shared by several."""
