"""Running an agent in environments, and keeping what it learned."""
