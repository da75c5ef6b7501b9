"""The HTTP service: similar tiles, their pictures, and a page to explore them."""
