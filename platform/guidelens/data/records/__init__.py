"""From raw files to rows that keep the contracts, or to what is wrong with them. Knows no lake."""
