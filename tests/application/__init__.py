"""An application of its own, with a history: what a team has before it adds search."""
