"""Photos, frames and 3-D models: read, checked, decoded and embedded."""
