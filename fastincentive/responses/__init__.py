"""How best responses depend on the payments: regimes, menus, ties, cheapest support."""
