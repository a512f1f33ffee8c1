"""A study: many settings trained alike, scored alike, and laid side by side. `podium study FILE`."""
