"""What travels between the rooms: records, requests, replies, steps and column names. Knows nothing of who sends them."""
