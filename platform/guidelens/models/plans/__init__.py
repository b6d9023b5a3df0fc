"""T3's values and baselines: what logged steps are worth, by estimates from the log alone, and simple policies to beat."""
