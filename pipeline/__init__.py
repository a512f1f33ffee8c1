"""Podium: from a competition's files to a leaderboard submission that can be trusted. `pipeline.api` is the way in."""
