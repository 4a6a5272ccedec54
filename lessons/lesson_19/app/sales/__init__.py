"""What the shop charges: the price of a copy, quotes and invoices."""
