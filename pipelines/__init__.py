"""One module a job, thin: parse, call the core, say where the result is. Never imported by serve."""
