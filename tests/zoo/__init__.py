"""Networks written by others, and the means to look inside what becomes of them."""
