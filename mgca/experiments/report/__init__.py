"""Tables and figures of the book, from results."""
